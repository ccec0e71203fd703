//! What a listener finds out before the engine decides, in the order of Istio's filters: CUSTOM
//! providers that we ask, then tokens that we verify.
//!
//! Each stage sees the request as the one before left it: a provider may add the token that is
//! verified next, and the policies' rules see the headers that tokens were turned into.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use portcullis_policy::decide::{CustomMatch, Way};
use portcullis_policy::decision::{Decision, Reason};
use portcullis_policy::path;
use portcullis_policy::request::{PathForm, Request, Tokens};
use portcullis_policy::resource::ExtensionProvider;
use portcullis_policy::snapshot::Snapshot;

use super::{Answer, Denied, HeaderChange};
use crate::custom::{self, Allowed, Providers};
use crate::observe::Observer;
use crate::token::svid::{Svid, Svids};
use crate::token::{self, Outcome, TokenError, Verifier};

/// Filter whose dynamic metadata is the proxy's word about tokens.
const JWT_AUTHN: &str = "envoy.filters.http.jwt_authn";

/// What a listener finds out by itself. By default nothing: its proxy verifies tokens, and no
/// provider is asked.
#[derive(Clone, Debug, Default)]
pub struct Stages {
    /// Verifies tokens; `None`: the proxy does.
    pub tokens: Option<Verifier>,
    /// JWT-SVIDs that count as the peer's identity.
    pub svids: Option<Svids>,
    /// Asks CUSTOM providers; `None`: those that must be asked cannot be had.
    pub providers: Option<Providers>,
}

/// Decides `request`, which nobody has looked at. It is left as the last stage saw it.
pub(super) async fn answer(
    stages: &Stages,
    observer: &Observer,
    snapshot: &Arc<Snapshot>,
    request: &mut Request,
) -> Answer {
    if stages.tokens.is_some() {
        // Nobody but us says what is in a token.
        request.jwt = None;
        request.metadata.remove(JWT_AUTHN);
    }
    if let Some(providers) = &stages.providers
        && is_own_question(providers, request)
    {
        tracing::error!("request denied: a CUSTOM provider led back to this service");
        let reason = Reason::CustomProviderUnavailable;
        return Decision::closed(reason, snapshot.revision()).into();
    }
    let mut changes = Vec::new();
    if let Some(svids) = &stages.svids {
        match svids.check(request, &mut changes) {
            Svid::None | Svid::Valid => {}
            Svid::Invalid(error) => {
                tracing::info!(%error, "request denied: its JWT-SVID is not valid");
                return invalid(Decision::closed(Reason::TokenInvalid, snapshot.revision()));
            }
            Svid::TwoIdentities => {
                tracing::info!("request denied: its JWT-SVID and its certificate differ");
                return Decision::closed(Reason::AmbiguousIdentity, snapshot.revision()).into();
            }
        }
    }
    let asked = stages.tokens.is_some() || stages.providers.is_some();
    let mut allowed = Allowed::default();
    if asked {
        let asking = ask(stages, observer, snapshot, request, &mut changes);
        // Boxed: what is large and rare must not make the future of every check large, which is moved.
        match Box::pin(asking).await {
            Ok(given) => allowed = given,
            Err(answer) => return *answer,
        }
    }
    let decision = match &stages.tokens {
        None => guarded(snapshot, || snapshot.decide(request)),
        Some(verifier) => {
            let ours = Box::pin(readings(verifier, snapshot, request)).await;
            changes.extend(ours.changes.headers);
            allowed.removed_parameters.extend(ours.changes.parameters);
            let proposed = match snapshot.candidate() {
                Some(candidate) => {
                    Box::pin(readings(verifier, candidate, request))
                        .await
                        .requests
                }
                None => ours.requests.clone(),
            };
            let decision = strictest(snapshot, &ours.requests, &proposed);
            if let Some(error) = ours.error {
                tracing::info!(%error, reason = decision.reason.as_str(), "a token is not valid");
            }
            // For whoever hears of the decision: what the token says.
            request.jwt = ours.requests.into_iter().next().and_then(|r| r.jwt);
            decision
        }
    };
    let mut answer = if decision.reason == Reason::TokenInvalid {
        invalid(decision)
    } else {
        Answer::from(decision)
    };
    answer.request_headers = settled(changes);
    answer.removed_parameters = allowed.removed_parameters;
    answer.response_headers = allowed.response_headers;
    answer
}

/// The last change of each header: a stage undoes what one before it did.
fn settled(changes: Vec<HeaderChange>) -> Vec<HeaderChange> {
    let mut settled: Vec<HeaderChange> = Vec::with_capacity(changes.len());
    for change in changes {
        settled.retain(|earlier| earlier.name() != change.name());
        settled.push(change);
    }
    settled
}

/// True for a check that we sent ourselves, as an HTTP provider gets it; over gRPC the service knows.
fn is_own_question(providers: &Providers, request: &Request) -> bool {
    let entries = request.http.iter().flat_map(|http| &http.headers.entries);
    let mut asked_by = entries.filter(|(name, _)| name == custom::ASKED_BY);
    asked_by.any(|(_, value)| providers.is_own(value.as_bytes()))
}

/// A denial with the challenge of RFC 6750 section 3.1.
fn invalid(decision: Decision) -> Answer {
    let challenge = r#"Bearer error="invalid_token""#.to_owned();
    Answer {
        denied_headers: vec![("www-authenticate".to_owned(), challenge)],
        ..Answer::from(decision)
    }
}

/// A request as each of its tokens makes it.
struct Readings {
    /// At least one.
    requests: Vec<Request>,
    changes: token::output::Changes,
    error: Option<TokenError>,
}

async fn readings(verifier: &Verifier, snapshot: &Arc<Snapshot>, request: &Request) -> Readings {
    let mut request = request.clone();
    request.checked.tokens = Tokens::Verified;
    let mut readings = Readings {
        requests: Vec::new(),
        changes: token::output::Changes::default(),
        error: None,
    };
    // The engine does not panic; should it ever, the request is decided with every token unverified.
    let slice = catch_unwind(AssertUnwindSafe(|| snapshot.token_rules(&request)));
    let Ok(slice) = slice else {
        request.checked.tokens = Tokens::Invalid;
        readings.requests.push(request);
        return readings;
    };
    let rules = slice.as_ref().and_then(|slice| slice.tokens.as_ref());
    let (Some(rules), Some(http)) = (rules, &mut request.http) else {
        readings.requests.push(request);
        return readings;
    };
    let valid = match verifier.verify(rules, http).await {
        Outcome::Absent => Vec::new(),
        Outcome::Valid(valid) => valid,
        Outcome::Invalid(error) => {
            request.checked.tokens = Tokens::Invalid;
            readings.error = Some(error);
            Vec::new()
        }
    };
    readings.changes = token::output::apply(rules, &valid, http);
    if valid.is_empty() {
        readings.requests.push(request);
        return readings;
    }
    for verified in valid {
        let reading = Request {
            jwt: Some(verified.payload),
            ..request.clone()
        };
        if !readings
            .requests
            .iter()
            .any(|known| known.jwt == reading.jwt)
        {
            readings.requests.push(reading);
        }
    }
    readings
}

/// The decision that denies, where the readings of a request come to different ones.
fn strictest(snapshot: &Arc<Snapshot>, enforced: &[Request], proposed: &[Request]) -> Decision {
    let mut decision: Option<Decision> = None;
    for index in 0..enforced.len().max(proposed.len()) {
        let pick = |list: &'_ [Request]| list.get(index).or(list.first()).cloned();
        let (Some(now), Some(then)) = (pick(enforced), pick(proposed)) else {
            break;
        };
        let one = guarded(snapshot, || snapshot.decide_each(&now, &then));
        decision = Some(match decision {
            None => one,
            Some(other) => other.or_stricter(one),
        });
    }
    decision.unwrap_or_else(|| Decision::closed(Reason::EvaluationError, snapshot.revision()))
}

/// Asks every provider whose rule matches, in name order, and gathers what they give the proxy to do
/// beside changes to headers. `Err` is the answer to the request.
async fn ask(
    stages: &Stages,
    observer: &Observer,
    snapshot: &Arc<Snapshot>,
    request: &mut Request,
    changes: &mut Vec<HeaderChange>,
) -> Result<Allowed, Box<Answer>> {
    let matches = |request: &Request| {
        catch_unwind(AssertUnwindSafe(|| snapshot.custom_matches(request)))
            .map_err(|_| Box::new(failed(snapshot)))
    };
    let mut gathered = Allowed::default();
    let mut asked: BTreeSet<String> = BTreeSet::new();
    loop {
        // Anew after each answer: it may have changed what the next provider's rules look at.
        let matches = matches(request)?;
        let unavailable = |m: &&CustomMatch| {
            m.way == Way::Unavailable || (m.way == Way::Ask && stages.providers.is_none())
        };
        if matches.iter().any(|m| unavailable(&m)) {
            // The engine's denial names it, and everything else that speaks against the request.
            return Err(Box::new(
                guarded(snapshot, || snapshot.decide(request)).into(),
            ));
        }
        let next = matches
            .iter()
            .find(|m| m.way == Way::Ask && !asked.contains(m.provider.as_ref()));
        let (Some(next), Some(providers)) = (next, &stages.providers) else {
            break;
        };
        let name = next.provider.to_string();
        let Some(question) = as_rules_see(snapshot, request) else {
            // The engine refuses such a path, too, and says why.
            return Err(Box::new(
                guarded(snapshot, || snapshot.decide(request)).into(),
            ));
        };
        let verdict = providers.ask(provider(snapshot, &name), &question).await;
        observer.metrics().custom(&name, verdict.kind());
        match verdict {
            custom::Verdict::Allowed(allowed) => {
                allowed.apply(request, changes);
                gathered.response_headers.extend(allowed.response_headers);
                gathered
                    .removed_parameters
                    .extend(allowed.removed_parameters);
            }
            custom::Verdict::Denied(denied) => {
                return Err(Box::new(denial(
                    snapshot,
                    next,
                    Reason::CustomDenied,
                    Some(denied),
                )));
            }
            custom::Verdict::Unavailable(why) if why.fail_open => {
                tracing::warn!(
                    provider = name,
                    error = why.error,
                    "provider not asked: it fails open"
                );
            }
            custom::Verdict::Unavailable(why) => {
                tracing::warn!(
                    provider = name,
                    error = why.error,
                    "provider not asked: denied"
                );
                let denied = why.status.map(|status| Denied {
                    status,
                    headers: Vec::new(),
                    body: String::new(),
                });
                let reason = Reason::CustomProviderUnavailable;
                return Err(Box::new(denial(snapshot, next, reason, denied)));
            }
        }
        asked.insert(name);
    }
    if let Some(candidate) = snapshot.candidate() {
        // What a provider would say about a request that it is not asked about, nobody knows: the
        // verdict on trial is that of the other policies.
        let proposed = catch_unwind(AssertUnwindSafe(|| candidate.custom_matches(request)));
        let proposed = proposed.unwrap_or_default().into_iter();
        asked.extend(
            proposed
                .filter(|m| m.way == Way::Ask)
                .map(|m| m.provider.to_string()),
        );
    }
    request.checked.providers = Some(asked);
    Ok(gathered)
}

/// The request with the path that the rules match, where it arrived as the client wrote it: a provider
/// that compares the text must not be told another. `None`: there is no such path.
fn as_rules_see<'r>(snapshot: &Snapshot, request: &'r Request) -> Option<Cow<'r, Request>> {
    let Some(http) = request
        .http
        .as_ref()
        .filter(|_| request.path_form == PathForm::Raw)
    else {
        return Some(Cow::Borrowed(request));
    };
    let path = path::normalise(&http.path, snapshot.mesh().path_normalization).ok()?;
    if path == http.path.as_str() {
        return Some(Cow::Borrowed(request));
    }
    let mut seen = request.clone();
    if let Some(http) = &mut seen.http {
        http.path = path.into_owned();
    }
    Some(Cow::Owned(seen))
}

fn provider<'s>(snapshot: &'s Snapshot, name: &str) -> Option<&'s ExtensionProvider> {
    let providers = &snapshot.mesh().extension_providers;
    providers.iter().find(|provider| provider.name == name)
}

fn denial(
    snapshot: &Snapshot,
    matched: &CustomMatch,
    reason: Reason,
    denied: Option<Denied>,
) -> Answer {
    let decision = Decision {
        policies: matched.policies.clone(),
        provider: Some(matched.provider.to_string()),
        ..Decision::closed(reason, snapshot.revision())
    };
    Answer {
        denied,
        ..Answer::from(decision)
    }
}

fn failed(snapshot: &Snapshot) -> Answer {
    tracing::error!("request denied: the engine panicked");
    Decision::closed(Reason::EvaluationError, snapshot.revision()).into()
}

/// The engine does not panic. Should it ever, one request is denied and the others go on: a reset
/// stream would leave the answer to the proxy's failure mode.
pub(super) fn guarded(snapshot: &Snapshot, decide: impl FnOnce() -> Decision) -> Decision {
    catch_unwind(AssertUnwindSafe(decide)).unwrap_or_else(|_| failed(snapshot).decision)
}
