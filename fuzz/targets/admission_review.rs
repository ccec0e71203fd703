//! Any bytes as an AdmissionReview: an answer or a refusal to read it, within the limits of an API server.

#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use portcullis_admission::break_glass::BreakGlass;
use portcullis_admission::decide::Admission;
use portcullis_admission::enforcement::Enforcement;
use portcullis_admission::in_force::Held;
use portcullis_admission::judge::{NoCases, NoFlows};
use portcullis_admission::review::{self, Malformed};
use portcullis_admission::tell;
use portcullis_admission::verdict::Verdict;
use portcullis_policy::live::Store;
use portcullis_policy::settings::Settings;

static WORLD: LazyLock<(Admission, Held)> = LazyLock::new(|| {
    let glass = BreakGlass {
        groups: vec!["oncall".to_owned()],
    };
    let admission = Admission::new(Enforcement::default(), glass, Arc::new(NoCases), Arc::new(NoFlows));
    let held = Held::new(Store::new(Settings::default()), Default::default());
    (admission, held)
});

fuzz_target!(|bytes: &[u8]| {
    let (admission, held) = &*WORLD;
    let (uid, verdict) = match review::parse(bytes) {
        Ok(request) => {
            let until = Instant::now() + Duration::from_secs(60);
            // There are no cases, so there is time for all of them.
            let Ok(verdict) = admission.decide(&request, held, until) else {
                panic!("no verdict");
            };
            (request.uid.clone(), verdict)
        }
        Err(Malformed::Unreadable { uid, why }) => (uid, Verdict::malformed(&why)),
        Err(_) => return,
    };
    let answer = &verdict.answer;
    assert_eq!(answer.refusal.is_none(), verdict.cause.allows());
    let total: usize = answer.warnings.iter().map(|w| w.chars().count()).sum();
    assert!(total <= tell::WARNINGS);
    for warning in &answer.warnings {
        assert!(warning.chars().count() <= tell::WARNING && !warning.contains(char::is_control));
    }
    let said: serde_json::Value = serde_json::from_slice(&answer.to_json(&uid)).expect("an answer is JSON");
    assert_eq!(said["response"]["uid"], uid.as_str());
});
