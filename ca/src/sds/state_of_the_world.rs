//! The form in which every answer is all of it: StreamSecrets and FetchSecrets.

use tonic::Status;

use super::conversation::{Dialect, Heard};
use super::name::{SecretNames, Validation, check_names};
use super::secret::{SECRET, Secrets, Subscription};
use crate::proto::sds::{DiscoveryRequest, DiscoveryResponse};

/// One stream's side of it.
pub(super) struct StateOfTheWorld {
    names: SecretNames,
    subscription: Option<Subscription>,
    validation: Validation,
    /// Number of the last answer: its version and, in hexadecimal, its nonce.
    answers: u32,
}

impl StateOfTheWorld {
    pub(super) fn new(names: SecretNames) -> Self {
        Self {
            names,
            subscription: None,
            validation: Validation::default(),
            answers: 0,
        }
    }

    /// The only request there is.
    pub(super) fn first(&mut self, request: DiscoveryRequest) -> Result<Subscription, Status> {
        self.hear(request)?;
        self.subscription
            .clone()
            .ok_or_else(|| Status::invalid_argument("nothing is asked for"))
    }

    /// The next answer.
    pub(super) fn response(&mut self, secrets: &Secrets) -> DiscoveryResponse {
        self.answers += 1;
        DiscoveryResponse {
            version_info: self.answers.to_string(),
            resources: secrets.all.iter().map(|one| one.resource.clone()).collect(),
            type_url: SECRET.to_owned(),
            nonce: nonce(self.answers),
        }
    }
}

/// Eight hexadecimal digits.
pub(super) fn nonce(answer: u32) -> String {
    format!("{answer:08x}")
}

/// Only one type of resource is served here; an empty one means it.
pub(super) fn check_type(type_url: &str) -> Result<(), Status> {
    if type_url.is_empty() || type_url == SECRET {
        return Ok(());
    }
    Err(Status::invalid_argument(format!(
        "only resources of type `{SECRET}` are served here, not `{}`",
        type_url.chars().take(200).collect::<String>()
    )))
}

impl Dialect for StateOfTheWorld {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn hear(&mut self, request: DiscoveryRequest) -> Result<Heard, Status> {
        check_type(&request.type_url)?;
        check_names(&request.resource_names)?;
        if let Some(node) = &request.node {
            self.validation = Validation::of(node);
        }
        let is_first = self.subscription.is_none();
        // A word about an older answer: a newer one is on its way, which will be answered, too. The first
        // request may carry a nonce of another stream.
        if !is_first
            && !request.response_nonce.is_empty()
            && request.response_nonce != nonce(self.answers)
        {
            return Ok(Heard::Stale);
        }
        let mut names: Vec<String> = Vec::with_capacity(request.resource_names.len());
        for name in request.resource_names {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        // The order means nothing: a request in another one is not a new question.
        names.sort_unstable();
        self.subscription = Some(Subscription {
            names,
            validation: self.validation,
        });
        if is_first || request.response_nonce.is_empty() {
            return Ok(Heard::Stale);
        }
        Ok(match request.error_detail {
            Some(error) => Heard::Refused(error.message),
            None if request.version_info == self.answers.to_string() => Heard::Acknowledged,
            None => Heard::Refused(format!("it stays with version `{}`", request.version_info)),
        })
    }

    fn subscription(&self) -> Option<&Subscription> {
        self.subscription.as_ref()
    }

    fn names(&self) -> &SecretNames {
        &self.names
    }

    fn answer(&mut self, secrets: &Secrets) -> Option<DiscoveryResponse> {
        Some(self.response(secrets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::sds::Status as Detail;

    fn request(version: &str, nonce: &str, names: &[&str]) -> DiscoveryRequest {
        DiscoveryRequest {
            version_info: version.to_owned(),
            response_nonce: nonce.to_owned(),
            resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..DiscoveryRequest::default()
        }
    }

    #[test]
    fn words_about_answers_are_told_apart() {
        let mut dialect = StateOfTheWorld::new(SecretNames::default());
        let nothing = Secrets {
            all: Vec::new(),
            sequence: None,
        };
        // A nonce of another stream in the first request means nothing.
        dialect
            .hear(request("7", "0000000a", &["default"]))
            .unwrap();
        let first = dialect.answer(&nothing).unwrap();
        let second = dialect.answer(&nothing).unwrap();
        let mut hear = |version: &str, nonce: &str| {
            dialect.hear(request(version, nonce, &["default"])).unwrap()
        };
        assert_eq!(hear(&first.version_info, &first.nonce), Heard::Stale);
        assert_eq!(
            hear(&second.version_info, &second.nonce),
            Heard::Acknowledged
        );
        assert!(matches!(
            hear(&first.version_info, &second.nonce),
            Heard::Refused(_)
        ));
        let refused = DiscoveryRequest {
            error_detail: Some(Detail {
                message: "bad PEM".into(),
                ..Detail::default()
            }),
            ..request(&first.version_info, &second.nonce, &["default"])
        };
        assert_eq!(
            dialect.hear(refused).unwrap(),
            Heard::Refused("bad PEM".into())
        );
    }

    #[test]
    fn the_order_and_repetition_of_names_mean_nothing() {
        let mut dialect = StateOfTheWorld::new(SecretNames::default());
        dialect.hear(request("", "", &["b", "a", "b"])).unwrap();
        let before = dialect.subscription().cloned();
        dialect.hear(request("", "", &["a", "b"])).unwrap();
        assert_eq!(dialect.subscription().cloned(), before);
        dialect.hear(request("", "", &["a"])).unwrap();
        assert_ne!(dialect.subscription().cloned(), before);
    }

    #[test]
    fn other_resources_are_refused_by_name() {
        let mut dialect = StateOfTheWorld::new(SecretNames::default());
        let mut wrong = request("", "", &[]);
        wrong.type_url = "type.googleapis.com/envoy.config.cluster.v3.Cluster".into();
        let status = dialect.hear(wrong).unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().contains("Cluster"), "{status}");
    }
}
