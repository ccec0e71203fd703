//! The form in which an answer is what is new: DeltaSecrets.

use std::collections::{BTreeSet, HashMap};

use tonic::Status;

use super::conversation::{Dialect, Heard};
use super::name::{SecretNames, Validation, check_names};
use super::secret::{SECRET, Secrets, Subscription};
use super::state_of_the_world::{check_type, nonce};
use crate::proto::sds::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};

/// Everything, in the words of the protocol.
const WILDCARD: &str = "*";

/// One stream's side of it.
pub(super) struct Delta {
    names: SecretNames,
    asked: BTreeSet<String>,
    everything: bool,
    subscription: Option<Subscription>,
    validation: Validation,
    /// What the peer has: name to version.
    has: HashMap<String, String>,
    /// What it had before the last answer, which it may refuse.
    had: HashMap<String, String>,
    /// Names that it asked for again: it is told although it has them.
    again: BTreeSet<String>,
    answers: u32,
}

impl Delta {
    pub(super) fn new(names: SecretNames) -> Self {
        Self {
            names,
            asked: BTreeSet::new(),
            everything: false,
            subscription: None,
            validation: Validation::default(),
            has: HashMap::new(),
            had: HashMap::new(),
            again: BTreeSet::new(),
            answers: 0,
        }
    }
}

impl Dialect for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn hear(&mut self, request: DeltaDiscoveryRequest) -> Result<Heard, Status> {
        check_type(&request.type_url)?;
        check_names(&request.resource_names_subscribe)?;
        if let Some(node) = &request.node {
            self.validation = Validation::of(node);
        }
        if self.subscription.is_none() {
            // A first request without names asks for everything.
            self.everything = request.resource_names_subscribe.is_empty();
            self.has = request.initial_resource_versions;
        }
        for name in request.resource_names_subscribe {
            if name == WILDCARD {
                self.everything = true;
                continue;
            }
            if self.has.contains_key(&name) && self.subscription.is_some() {
                self.again.insert(name.clone());
            }
            self.asked.insert(name);
        }
        for name in request.resource_names_unsubscribe {
            if name == WILDCARD {
                self.everything = false;
            }
            self.asked.remove(&name);
            self.again.remove(&name);
            self.has.remove(&name);
        }
        let names: Vec<String> = if self.everything {
            Vec::new()
        } else {
            self.asked.iter().cloned().collect()
        };
        check_names(&names)?;
        // Nothing is asked for any more, which is not everything.
        let nothing = names.is_empty() && !self.everything;
        self.subscription = (!nothing).then_some(Subscription {
            names,
            validation: self.validation,
        });
        if request.response_nonce.is_empty() || request.response_nonce != nonce(self.answers) {
            return Ok(Heard::Stale);
        }
        Ok(match request.error_detail {
            Some(error) => {
                self.has = std::mem::take(&mut self.had);
                Heard::Refused(error.message)
            }
            None => Heard::Acknowledged,
        })
    }

    fn subscription(&self) -> Option<&Subscription> {
        self.subscription.as_ref()
    }

    fn names(&self) -> &SecretNames {
        &self.names
    }

    fn answer(&mut self, secrets: &Secrets) -> Option<DeltaDiscoveryResponse> {
        let is_first = self.answers == 0;
        let again = std::mem::take(&mut self.again);
        let now: HashMap<String, String> = secrets
            .all
            .iter()
            .map(|secret| (secret.name.clone(), secret.version.clone()))
            .collect();
        let resources: Vec<Resource> = secrets
            .all
            .iter()
            .filter(|secret| {
                again.contains(&secret.name) || self.has.get(&secret.name) != Some(&secret.version)
            })
            .map(|secret| Resource {
                name: secret.name.clone(),
                version: secret.version.clone(),
                resource: Some(secret.resource.clone()),
            })
            .collect();
        let removed: Vec<String> = self
            .has
            .keys()
            .filter(|name| !now.contains_key(*name))
            .cloned()
            .collect();
        self.had = std::mem::replace(&mut self.has, now);
        // The first answer is given even where nothing is new: a peer may wait for it.
        if !is_first && resources.is_empty() && removed.is_empty() {
            return None;
        }
        self.answers += 1;
        Some(DeltaDiscoveryResponse {
            system_version_info: self.answers.to_string(),
            resources,
            type_url: SECRET.to_owned(),
            removed_resources: removed,
            nonce: nonce(self.answers),
        })
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Any;

    use super::super::secret::VersionedSecret;
    use super::*;

    fn secrets(all: &[(&str, &str)]) -> Secrets {
        let all = all.iter().map(|(name, version)| VersionedSecret {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            resource: Any::default(),
        });
        Secrets {
            all: all.collect(),
            sequence: None,
        }
    }

    fn asks(delta: &mut Delta, more: &[&str], less: &[&str], nonce: &str) -> Heard {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        delta
            .hear(DeltaDiscoveryRequest {
                resource_names_subscribe: owned(more),
                resource_names_unsubscribe: owned(less),
                response_nonce: nonce.to_owned(),
                ..DeltaDiscoveryRequest::default()
            })
            .unwrap()
    }

    fn told(response: Option<DeltaDiscoveryResponse>) -> (Vec<String>, Vec<String>) {
        let response = response.unwrap();
        let names = response.resources.into_iter().map(|one| one.name).collect();
        (names, response.removed_resources)
    }

    #[test]
    fn only_what_is_new_is_told() {
        let mut delta = Delta::new(SecretNames::default());
        asks(&mut delta, &["a", "b"], &[], "");
        assert_eq!(
            told(delta.answer(&secrets(&[("a", "1"), ("b", "1")]))).0,
            ["a", "b"]
        );
        assert_eq!(asks(&mut delta, &[], &[], "00000001"), Heard::Acknowledged);
        assert!(delta.answer(&secrets(&[("a", "1"), ("b", "1")])).is_none());
        assert_eq!(
            told(delta.answer(&secrets(&[("a", "1"), ("b", "2")]))).0,
            ["b"]
        );
        // Asked for again, it is told again.
        asks(&mut delta, &["a"], &[], "");
        assert_eq!(
            told(delta.answer(&secrets(&[("a", "1"), ("b", "2")]))).0,
            ["a"]
        );
        let (new, gone) = told(delta.answer(&secrets(&[("b", "2")])));
        assert_eq!((new.len(), gone), (0, vec!["a".to_owned()]));
    }

    #[test]
    fn what_was_refused_is_not_had() {
        let mut delta = Delta::new(SecretNames::default());
        asks(&mut delta, &["a"], &[], "");
        delta.answer(&secrets(&[("a", "1")]));
        let heard = delta.hear(DeltaDiscoveryRequest {
            response_nonce: "00000001".into(),
            error_detail: Some(crate::proto::sds::Status {
                message: "no".into(),
                ..Default::default()
            }),
            ..DeltaDiscoveryRequest::default()
        });
        assert_eq!(heard.unwrap(), Heard::Refused("no".into()));
        assert_eq!(told(delta.answer(&secrets(&[("a", "1")]))).0, ["a"]);
    }

    #[test]
    fn no_names_are_everything_at_first_and_nothing_later() {
        let mut delta = Delta::new(SecretNames::default());
        asks(&mut delta, &[], &[], "");
        assert_eq!(delta.subscription().map(|all| all.names.len()), Some(0));
        let mut delta = Delta::new(SecretNames::default());
        asks(&mut delta, &["a"], &[], "");
        asks(&mut delta, &[], &["a"], "");
        assert!(delta.subscription().is_none());
        asks(&mut delta, &["*"], &[], "");
        assert_eq!(delta.subscription().map(|all| all.names.len()), Some(0));
    }

    #[test]
    fn what_the_peer_has_from_before_is_not_told_again() {
        let mut delta = Delta::new(SecretNames::default());
        delta
            .hear(DeltaDiscoveryRequest {
                resource_names_subscribe: vec!["a".into(), "b".into()],
                initial_resource_versions: HashMap::from([("a".into(), "1".into())]),
                ..DeltaDiscoveryRequest::default()
            })
            .unwrap();
        assert_eq!(
            told(delta.answer(&secrets(&[("a", "1"), ("b", "1")]))).0,
            ["b"]
        );
    }
}
