//! Any request target, in every mode: no panic, and what must hold of every normal path.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_policy::path::{authority, is_stable, normalise, second_pass, without_query};
use portcullis_policy::resource::PathNormalization::{
    Base, DecodeAndMergeSlashes, MergeSlashes, None as Raw,
};

fuzz_target!(|raw: &str| {
    for mode in [Raw, Base, MergeSlashes, DecodeAndMergeSlashes] {
        // Second passes also take what HTTP/1.1 would refuse.
        if let Ok(again) = second_pass(raw, mode) {
            assert_eq!(is_stable(raw, mode), again == raw);
        }
        let Ok(normal) = normalise(raw, mode) else {
            continue;
        };
        assert!(normal.starts_with('/') && normal.bytes().all(|o| o.is_ascii_graphic()));
        assert!(!normal.contains('#'));
        if raw.starts_with('/') {
            assert!(authority(raw).is_none());
            assert_eq!(normalise(raw, mode), Ok(normal.clone()));
            if is_stable(raw, mode) {
                assert_eq!(normal, raw);
            }
        }
        let url_path = without_query(&normal);
        let query = normal.strip_prefix(url_path).unwrap_or_default();
        assert!(raw.contains(query), "the query is never touched");
        if mode == Raw {
            continue;
        }
        assert!(
            url_path
                .split('/')
                .all(|segment| segment != "." && segment != "..")
        );
        assert!(!url_path.contains(['\\', '"', '<', '>', '^', '`', '{', '|', '}']));
        if mode != Base {
            assert!(url_path == "//" || !url_path.contains("//"));
        }
    }
});
