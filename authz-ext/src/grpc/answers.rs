//! Answers as they are sent, those of equal decisions made once.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_policy::decision::Decision;
use prost::bytes::Bytes;

use super::message;
use crate::check::Answer;
use crate::respond::{Options, respond};

/// Most answers that a thread remembers for a listener.
const REMEMBERED: usize = 256;

thread_local! {
    /// By listener, then by decision.
    static KNOWN: RefCell<HashMap<u64, HashMap<Decision, Bytes>>> = RefCell::default();
}

static LISTENERS: AtomicU64 = AtomicU64::new(0);

/// Turns answers into framed `CheckResponse`s.
///
/// Most answers say nothing but a decision, and there are few of those: the policies that apply,
/// the reasons. Made of maps of maps, an answer takes longer to make than to look up.
#[derive(Debug)]
pub(super) struct Answers {
    listener: u64,
    options: Options,
}

impl Answers {
    /// Answers that say beside the verdict what `options` allow.
    pub(super) fn new(options: Options) -> Self {
        Self {
            listener: LISTENERS.fetch_add(1, Ordering::Relaxed),
            options,
        }
    }

    /// The answer in its frame.
    pub(super) fn frame(&self, answer: &Answer) -> Bytes {
        if !answer.is_plain() {
            return self.made(answer);
        }
        KNOWN.with_borrow_mut(|known| {
            let known = known.entry(self.listener).or_default();
            if let Some(frame) = known.get(&answer.decision) {
                return frame.clone();
            }
            let frame = self.made(answer);
            if known.len() >= REMEMBERED {
                known.clear();
            }
            known.insert(answer.decision.clone(), frame.clone());
            frame
        })
    }

    fn made(&self, answer: &Answer) -> Bytes {
        message::framed(&respond(answer, &self.options))
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::ext_authz::v3::pb::CheckResponse;
    use portcullis_policy::decision::Reason;
    use prost::Message as _;

    use super::*;
    use crate::check::HeaderChange;
    use crate::respond::DeniedBody;

    fn answer(reason: Reason, policy: String) -> Answer {
        Decision {
            policies: vec![policy],
            ..Decision::closed(reason, "r1")
        }
        .into()
    }

    fn sent(answers: &Answers, answer: &Answer) -> CheckResponse {
        let mut frame = answers.frame(answer);
        let message = frame.split_off(message::HEAD);
        CheckResponse::decode(message).unwrap()
    }

    #[test]
    fn what_is_remembered_is_what_is_made() {
        let listeners = [
            Answers::new(Options::default()),
            Answers::new(Options {
                denied_body: DeniedBody::Decision,
                debug_headers: true,
                missing_token_status: Some(401),
            }),
        ];
        for _ in 0..2 {
            for reason in Reason::ALL {
                for n in 0..20 {
                    let mut answer = answer(reason, format!("foo/a#rule[{n}]"));
                    for answers in &listeners {
                        assert_eq!(sent(answers, &answer), respond(&answer, &answers.options));
                    }
                    // The same decision with more to say is another answer.
                    answer.request_headers = vec![HeaderChange::Remove {
                        name: "authorization".to_owned(),
                    }];
                    for answers in &listeners {
                        assert_eq!(sent(answers, &answer), respond(&answer, &answers.options));
                    }
                }
            }
        }
        KNOWN.with_borrow(|known| assert!(known.values().all(|k| k.len() <= REMEMBERED)));
    }
}
