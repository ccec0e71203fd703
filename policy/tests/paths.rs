//! Paths and templates against what a real Envoy 1.40 did with them (`tests/corpora/paths`).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use portcullis_policy::path::{self, PathTemplate, TemplateError};
use portcullis_policy::resource::PathNormalization::{
    self, Base, DecodeAndMergeSlashes, MergeSlashes, None as Raw,
};
use proptest::prelude::*;
use serde_json::Value;

const MODES: [PathNormalization; 4] = [Raw, Base, MergeSlashes, DecodeAndMergeSlashes];

fn corpus(name: &str) -> Vec<Vec<Value>> {
    let file = format!(
        "{}/../tests/corpora/paths/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

#[test]
fn normalises_as_envoy_did() {
    let rows = corpus("measured.json");
    assert!(rows.len() > 500);
    for row in rows {
        let raw = row[0].as_str().unwrap();
        for (mode, expected) in MODES.iter().zip(&row[1..5]) {
            let got = path::normalise(raw, *mode);
            assert_eq!(
                got.as_deref().ok(),
                expected.as_str(),
                "{raw:?} {mode:?}: {got:?}"
            );
        }
        if let Some(authority) = row.get(5) {
            assert_eq!(path::authority(raw), authority.as_str(), "{raw:?}");
        }
    }
}

#[test]
fn matches_templates_as_envoy_did() {
    let rows = corpus("templates.json");
    assert!(rows.len() > 100);
    for row in rows {
        let text = row[0].as_str().unwrap();
        let template = PathTemplate::parse_unchecked(text);
        let (Some(matched), Some(unmatched)) = (row[1].as_array(), row[2].as_array()) else {
            assert!(template.is_err(), "{text} must be refused: {template:?}");
            continue;
        };
        let template = template.unwrap();
        for url_path in matched {
            assert!(
                template.matches(url_path.as_str().unwrap()),
                "{text} must match {url_path}"
            );
        }
        for url_path in unmatched {
            assert!(
                !template.matches(url_path.as_str().unwrap()),
                "{text} must not match {url_path}"
            );
        }
    }
}

#[test]
fn tells_what_the_webhook_refuses_from_what_envoy_cannot_load() {
    let cases = [
        (
            "/a/{**}/{*}",
            "invalid: `{**}` must be the last operator of a path template",
        ),
        (
            "/{**}/{**}",
            "invalid: `{**}` must be the last operator of a path template",
        ),
        (
            "/api/{*}?x=1",
            "invalid: segment `{*}?x=1` has a brace: only `{*}` and `{**}` as whole segments are supported",
        ),
        (
            "/api/v{*}",
            "invalid: segment `v{*}` has a brace: only `{*}` and `{**}` as whole segments are supported",
        ),
        (
            "/{*}//x",
            "invalid: `` in a path template is empty or has a character that no path segment can have",
        ),
        (
            "/a|b/{*}",
            "invalid: `a|b` in a path template is empty or has a character that no path segment can have",
        ),
        (
            "/a*/{*}",
            "invalid: `a*` in a path template is empty or has a character that no path segment can have",
        ),
        ("{**}", "refused: a path template must start with `/`"),
        ("{*}/a", "refused: a path template must start with `/`"),
        (
            "//{*}",
            "refused: a path template cannot have an empty segment (`//`)",
        ),
        (
            "/{*}//",
            "refused: a path template cannot have an empty segment (`//`)",
        ),
    ];
    for (value, expected) in cases {
        let got = match PathTemplate::parse(value).unwrap_err() {
            TemplateError::Invalid(fault) => format!("invalid: {fault}"),
            TemplateError::RefusedByEnvoy(fault) => format!("refused: {fault}"),
        };
        assert_eq!(got, expected, "{value}");
    }
    let long = format!("/{{*}}/{}", "a".repeat(254));
    assert!(matches!(
        PathTemplate::parse(&long),
        Err(TemplateError::RefusedByEnvoy(_))
    ));
    assert!(PathTemplate::parse(&long[..long.len() - 1]).is_ok());
}

#[test]
fn keeps_the_edges_that_istio_documents() {
    let cases = [
        ("/allow/admin/{**}", "/allow/admin/", "/allow/admin"),
        ("/foo/{*}/bar/{**}", "/foo/a/bar/x", "/foo//bar/x"),
        ("/store/{**}/cart", "/store//cart", "/store/cart"),
        ("/x/{**}", "/x/a/b", "/x/a[0]"),
        ("/{*}", "/a=b*", "/"),
        ("/a/{*}/", "/a/b/", "/a/b"),
    ];
    for (value, matched, unmatched) in cases {
        let template = PathTemplate::parse(value).unwrap();
        assert!(template.matches(matched), "{value} must match {matched}");
        assert!(
            !template.matches(unmatched),
            "{value} must not match {unmatched}"
        );
        assert_eq!(
            (template.text(), template.to_string().as_str()),
            (value, value)
        );
        let again = PathTemplate::parse_unchecked(template.canonical()).unwrap();
        assert_eq!(again.canonical(), template.canonical());
    }
}

#[test]
fn a_normalised_path_that_a_second_pass_would_change_is_not_stable() {
    assert!(path::is_stable("/a/b?x=%2e", Base));
    assert!(!path::is_stable("/a/..;/b", Base));
    assert!(path::is_stable("/a/..;/b", Raw));
    assert!(!path::is_stable("/a//b", MergeSlashes) && path::is_stable("//", MergeSlashes));
    assert!(!path::is_stable("/%2F", DecodeAndMergeSlashes));
    assert!(path::is_stable("/café", Raw) && !path::is_stable("/café", Base));
    assert_eq!(path::second_pass("/café", Base).unwrap(), "/caf%C3%A9");
}

#[test]
fn takes_a_long_path_in_linear_time() {
    // Quadratic work on a megabyte would take minutes.
    for piece in [
        "/..", "/a/../", "/%2e%2e;", "%%30", "//", "\\", "{", ".;/", "%2F",
    ] {
        let raw = format!("/{}", piece.repeat(1_000_000 / piece.len()));
        for mode in MODES {
            let normal = path::normalise(&raw, mode).unwrap();
            assert!(normal.starts_with('/'), "{piece} {mode:?}");
        }
    }
    let long = "/a".repeat(500_000);
    assert!(PathTemplate::parse("/{*}/{**}/a").unwrap().matches(&long));
    assert!(!PathTemplate::parse("/{*}/{**}/b").unwrap().matches(&long));
}

/// Paths made of what normalisation looks at.
fn raw_path() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/", "/", ".", "..", ";", "%2e", "%2F", "%5c", "\\", "%", "%%", "%0", "30", "2e", "%41",
        "%7B", "{", "a", "b", "?", "#",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #[test]
    fn without_normalisation_only_the_fragment_goes(raw in raw_path()) {
        let kept = raw.split('#').next().unwrap();
        prop_assert_eq!(path::normalise(&raw, Raw).unwrap(), kept);
    }

    #[test]
    fn a_normal_path_has_no_dot_segments_backslashes_or_unsafe_characters(raw in raw_path()) {
        prop_assume!(!raw.contains("%00"));
        let normal = path::normalise(&raw, Base).unwrap();
        let url_path = path::without_query(&normal);
        prop_assert!(url_path.starts_with('/'));
        prop_assert!(url_path.split('/').all(|s| s != "." && s != ".."));
        let unsafe_left = url_path.contains(['\\', '{', '#']);
        prop_assert!(!unsafe_left, "{}", url_path);
    }

    #[test]
    fn merging_leaves_no_double_slash_but_the_lone_one(raw in raw_path()) {
        let normal = path::normalise(&raw, MergeSlashes).unwrap();
        let url_path = path::without_query(&normal);
        prop_assert!(url_path == "//" || !url_path.contains("//"));
    }

    #[test]
    fn the_query_is_never_touched(raw in raw_path(), query in "[a-z%2e/.]{0,12}") {
        let path_only = path::without_query(&raw);
        for mode in MODES {
            let with = path::normalise(&format!("{path_only}?{query}"), mode).unwrap().into_owned();
            let without = path::normalise(path_only, mode).unwrap();
            prop_assert_eq!(with, format!("{without}?{query}"));
        }
    }

    #[test]
    fn any_string_is_normalised_or_refused(raw in any::<String>(), value in "[/{}*a=\\[%]{0,16}") {
        for mode in MODES {
            if let Ok(normal) = path::normalise(&raw, mode) {
                prop_assert!(normal.is_ascii());
            }
        }
        if let Ok(template) = PathTemplate::parse_unchecked(&value) {
            let _either = template.matches(&raw);
        }
    }

    #[test]
    fn templates_match_as_their_expression_does(
        segments in prop::collection::vec(prop::sample::select(vec!["{*}", "{**}", "a", "b.c", ""]), 1..5),
        url_path in "(/|a|b|\\.|c|\\[|=){0,10}",
    ) {
        let value = format!("/{}", segments.join("/"));
        prop_assume!(PathTemplate::is_template(&value));
        let Ok(template) = PathTemplate::parse(&value) else { return Ok(()); };
        let class = r"a-zA-Z0-9\-._~%!$&'()+,;:@=*";
        let expression = value
            .replace('.', r"\.")
            .replace("{**}", &format!("[{class}/]*"))
            .replace("{*}", &format!("[{class}]+"));
        let expression = regex::Regex::new(&format!(r"\A{expression}\z")).unwrap();
        let url_path = format!("/{url_path}");
        prop_assert_eq!(template.matches(&url_path), expression.is_match(&url_path), "{} {}", value, url_path);
    }
}
