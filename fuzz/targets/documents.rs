//! Any bytes as a manifest: compiled or refused, and every diagnostic points into the file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use portcullis_policy::compile::{Documents, compile};
use portcullis_policy::document::SourceText;
use portcullis_policy::settings::Settings;

fuzz_target!(|bytes: &[u8]| {
    let documents = Documents {
        base: vec![SourceText {
            file: "fuzz.yaml".into(),
            bytes: bytes.into(),
        }],
        candidate: None,
    };
    for accept_invalid in [false, true] {
        let settings = Settings {
            accept_invalid,
            ..Settings::default()
        };
        match compile(&documents, &settings) {
            Ok(snapshot) => {
                let again = compile(&documents, &settings).map(|s| s.revision().to_owned());
                assert_eq!(again.as_deref(), Ok(snapshot.revision()));
            }
            Err(diagnostics) => assert!(!diagnostics.is_empty()),
        }
    }
});
