//! Any bytes as a `CheckRequest` in protobuf JSON: read or refused, its facts stated or refused, and
//! decided without a panic.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use portcullis_authz::{check_request, facts};
use portcullis_policy::compile::{Documents, compile};
use portcullis_policy::document::SourceText;
use portcullis_policy::settings::Settings;
use portcullis_policy::snapshot::Snapshot;
use tonic::metadata::MetadataMap;

static SNAPSHOT: LazyLock<Arc<Snapshot>> = LazyLock::new(|| {
    let source = |file: &str, text: &str| SourceText {
        file: file.into(),
        bytes: text.as_bytes().into(),
    };
    let documents = Documents {
        base: vec![
            source(
                "policies.yaml",
                include_str!("../../policies/examples/bookshop/policies.yaml"),
            ),
            source(
                "workloads.yaml",
                include_str!("../../policies/examples/bookshop/workloads.yaml"),
            ),
        ],
        candidate: None,
    };
    let snapshot = compile(&documents, &Settings::default());
    Arc::new(snapshot.unwrap_or_else(|diagnostics| panic!("{diagnostics:?}")))
});

fuzz_target!(|line: &[u8]| {
    let Ok(check) = check_request::from_json(line) else {
        return;
    };
    let Ok(request) = facts::request(check, &MetadataMap::new(), &facts::Options::default()) else {
        return;
    };
    let decision = SNAPSHOT.decide(&request);
    assert_eq!(
        decision,
        SNAPSHOT.decide(&request),
        "a decision is a function of the request"
    );
    assert_eq!(
        decision.decision,
        SNAPSHOT.explain(&request, true).decision.decision
    );
});
