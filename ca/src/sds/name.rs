//! What an Envoy asks for by name.

use tonic::Status;

use crate::proto::sds::Node;
use crate::spiffe_id::SpiffeId;
use crate::trust_domain::TrustDomain;

/// Names in one request.
const MAX_NAMES: usize = 1000;
/// Set in an Envoy's node metadata by those who verify with plain CA certificates.
const NO_SPIFFE_VALIDATION: &str = "disable_spiffe_cert_validation";

/// Names of secrets that are no SPIFFE IDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretNames {
    /// The caller's first X.509-SVID.
    pub svid: String,
    /// The bundle of our own trust domain.
    pub bundle: String,
    /// The bundles of our own and all federated trust domains, for the SPIFFE validator.
    pub all_bundles: String,
}

impl Default for SecretNames {
    /// `default`, `ROOTCA`, `ALL`: the names that Envoy, Istio and SPIRE use.
    fn default() -> Self {
        Self {
            svid: "default".to_owned(),
            bundle: "ROOTCA".to_owned(),
            all_bundles: "ALL".to_owned(),
        }
    }
}

/// One secret that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    FirstSvid,
    Svid(SpiffeId),
    OwnBundle,
    BundleOf(TrustDomain),
    AllBundles,
}

impl SecretNames {
    /// What `name` stands for.
    pub(super) fn wanted(&self, name: &str) -> Result<Wanted, Status> {
        if name == self.svid {
            return Ok(Wanted::FirstSvid);
        }
        if name == self.bundle {
            return Ok(Wanted::OwnBundle);
        }
        if name == self.all_bundles {
            return Ok(Wanted::AllBundles);
        }
        let id = SpiffeId::parse(name).map_err(|error| {
            Status::invalid_argument(format!(
                "there is no secret of this name: {error}; ask for `{}`, `{}`, `{}`, a SPIFFE ID, or a trust domain as `spiffe://name`",
                self.svid, self.bundle, self.all_bundles
            ))
        })?;
        Ok(if id.path().is_empty() {
            Wanted::BundleOf(id.trust_domain().clone())
        } else {
            Wanted::Svid(id)
        })
    }
}

/// How an Envoy verifies its peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Validation {
    /// By its validator `envoy.tls.cert_validator.spiffe`: each trust domain by its own bundle.
    #[default]
    Spiffe,
    /// By plain CA certificates.
    PlainCa,
}

impl Validation {
    /// As the Envoy's node metadata says.
    pub(super) fn of(node: &Node) -> Self {
        use prost_types::value::Kind;
        let told = node
            .metadata
            .as_ref()
            .and_then(|metadata| metadata.fields.get(NO_SPIFFE_VALIDATION))
            .and_then(|value| value.kind.as_ref());
        match told {
            Some(Kind::BoolValue(true)) => Self::PlainCa,
            Some(Kind::StringValue(text)) if text == "true" => Self::PlainCa,
            _ => Self::Spiffe,
        }
    }
}

/// Refuses what no honest Envoy sends.
pub(super) fn check_names(names: &[String]) -> Result<(), Status> {
    if names.len() > MAX_NAMES {
        return Err(Status::invalid_argument(format!(
            "{} secrets are asked for, at most {MAX_NAMES} are allowed on one stream",
            names.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_name_is_told() {
        let names = SecretNames::default();
        for (name, expected) in [
            ("default", Wanted::FirstSvid),
            ("ROOTCA", Wanted::OwnBundle),
            ("ALL", Wanted::AllBundles),
            (
                "spiffe://a.org",
                Wanted::BundleOf(TrustDomain::new("a.org").unwrap()),
            ),
            (
                "spiffe://a.org/x",
                Wanted::Svid(SpiffeId::parse("spiffe://a.org/x").unwrap()),
            ),
        ] {
            assert_eq!(names.wanted(name).unwrap(), expected);
        }
        for name in [
            "",
            "Default",
            "rootca",
            "spiffe://",
            "spiffe://a.org/",
            "https://a.org",
        ] {
            let status = names.wanted(name).unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument, "{name}");
            assert!(
                status
                    .message()
                    .contains("ask for `default`, `ROOTCA`, `ALL`"),
                "{status}"
            );
        }
    }

    #[test]
    fn plain_ca_certificates_are_asked_for_by_a_bool_or_a_string() {
        use prost_types::value::Kind;
        let of = |kind: Kind| {
            let fields = [(
                NO_SPIFFE_VALIDATION.to_owned(),
                prost_types::Value { kind: Some(kind) },
            )];
            Validation::of(&Node {
                metadata: Some(prost_types::Struct {
                    fields: fields.into(),
                }),
                ..Node::default()
            })
        };
        assert_eq!(of(Kind::BoolValue(true)), Validation::PlainCa);
        assert_eq!(of(Kind::StringValue("true".into())), Validation::PlainCa);
        assert_eq!(of(Kind::BoolValue(false)), Validation::Spiffe);
        assert_eq!(of(Kind::StringValue("no".into())), Validation::Spiffe);
        assert_eq!(Validation::of(&Node::default()), Validation::Spiffe);
    }
}
