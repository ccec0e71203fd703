//! Runs the cases of a PolicyTest: each request is read and decided as the server would.

use std::sync::Arc;

use envoy_types::ext_authz::v3::pb::CheckRequest;
use portcullis_policy::decision::Decision;
use portcullis_policy::diagnostic::Diagnostic;
use portcullis_policy::explain::Explanation;
use portcullis_policy::resource::{CaseOutcome, DecisionCase, PolicyTest};
use portcullis_policy::snapshot::Snapshot;
use tonic::metadata::MetadataMap;

use crate::check_request;
use crate::decide;
use crate::facts;

/// What each case of `test` comes to under `snapshot`, in order. A case whose request is no CheckRequest
/// does not hold.
#[must_use]
pub fn run(snapshot: &Arc<Snapshot>, test: &PolicyTest) -> Vec<CaseOutcome> {
    let cases = test.cases.iter();
    cases.map(|case| run_case(snapshot, test, case)).collect()
}

/// What one case of `test` comes to, as [`run`].
#[must_use]
pub fn run_case(snapshot: &Arc<Snapshot>, test: &PolicyTest, case: &DecisionCase) -> CaseOutcome {
    let got = decide(snapshot, case);
    CaseOutcome {
        test: format!("{}/{}", test.meta.namespace, test.meta.name),
        name: case.name.clone(),
        at: case.at.clone(),
        field: case.field.clone(),
        wanted: case.expected.clone(),
        holds: got.as_ref().is_ok_and(|got| case.expected.holds(got)),
        got,
    }
}

/// Decides the request of one case.
///
/// # Errors
/// Why the case's request is no CheckRequest.
pub fn decide(snapshot: &Arc<Snapshot>, case: &DecisionCase) -> Result<Decision, String> {
    let check = check_request(case)?;
    let options = options(case);
    Ok(decide::decide(
        snapshot,
        check,
        &MetadataMap::new(),
        &options,
    ))
}

/// Tells why the request of one case is decided as it is; `all` reports every rule that selects the
/// workload.
///
/// # Errors
/// Why the case's request is no CheckRequest, or has no facts to decide by.
pub fn explain(
    snapshot: &Arc<Snapshot>,
    case: &DecisionCase,
    all: bool,
) -> Result<Explanation, String> {
    let check = check_request(case)?;
    let options = facts::Options {
        num_trusted_proxies: snapshot.mesh().num_trusted_proxies,
        ..options(case)
    };
    let request = facts::request(check, &MetadataMap::new(), &options);
    let request = request.map_err(|invalid| invalid.to_string())?;
    Ok(snapshot.explain(&request, all))
}

/// What is wrong with the requests of a test, which the engine keeps as values.
#[must_use]
pub fn diagnose(test: &PolicyTest) -> Vec<Diagnostic> {
    let name = format!("{}/{}", test.meta.namespace, test.meta.name);
    test.cases
        .iter()
        .filter_map(|case| {
            let why = check_request(case).err()?;
            CaseOutcome {
                test: name.clone(),
                name: case.name.clone(),
                at: case.at.clone(),
                field: case.field.clone(),
                wanted: case.expected.clone(),
                got: Err(why),
                holds: false,
            }
            .diagnostic()
        })
        .collect()
}

fn check_request(case: &DecisionCase) -> Result<CheckRequest, String> {
    let text = case.request.to_string();
    check_request::from_json(text.as_bytes()).map_err(|error| error.to_string())
}

fn options(case: &DecisionCase) -> facts::Options {
    facts::Options {
        path_form: case.path_form,
        target: case.target,
        num_trusted_proxies: None,
    }
}
