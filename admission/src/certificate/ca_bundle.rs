//! The `caBundle` of our webhook configuration: what is in it, and changes of that field alone.

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;

use super::{Error, Root};

/// As whom we change fields.
pub(crate) const FIELD_MANAGER: &str = "portcullis";

/// Where roots are told to API servers. A fake one in tests.
pub trait CaBundle: Send {
    /// What is there now; `None` when the configuration does not exist.
    fn read(&self) -> impl Future<Output = Result<Option<Told>, Error>> + Send;

    /// Puts `roots` in the place of what `told` was read; `false` when somebody else was faster.
    fn write(
        &self,
        told: &Told,
        roots: &[Root],
    ) -> impl Future<Output = Result<bool, Error>> + Send;
}

/// What API servers are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Of the configuration.
    pub version: String,
    /// By webhook, with its name.
    pub webhooks: Vec<(String, Vec<Root>)>,
    /// Webhooks that hold what is no list of certificates.
    pub unreadable: bool,
}

impl Told {
    /// Roots that every webhook has.
    #[must_use]
    pub fn everywhere(&self) -> Vec<Root> {
        let Some((first, rest)) = self.webhooks.split_first() else {
            return Vec::new();
        };
        let known = |root: &&Root| rest.iter().all(|(_, roots)| roots.contains(*root));
        first.1.iter().filter(known).cloned().collect()
    }

    /// Roots that any webhook has, each once.
    #[must_use]
    pub fn anywhere(&self) -> Vec<Root> {
        let mut all: Vec<Root> = Vec::new();
        for root in self.webhooks.iter().flat_map(|(_, roots)| roots) {
            if !all.contains(root) {
                all.push(root.clone());
            }
        }
        all
    }
}

/// That of a ValidatingWebhookConfiguration.
#[derive(Clone)]
pub struct OfConfiguration {
    api: Api<ValidatingWebhookConfiguration>,
    name: String,
}

impl OfConfiguration {
    /// The configuration called `name`; all its webhooks are ours.
    #[must_use]
    pub fn new(client: Client, name: &str) -> Self {
        Self {
            api: Api::all(client),
            name: name.to_owned(),
        }
    }

    fn failed(&self, verb: &str, cause: &kube::Error) -> Error {
        Error::Cluster {
            what: format!(
                "cannot {verb} the validatingwebhookconfiguration `{}`",
                self.name
            ),
            cause: cause.to_string(),
        }
    }
}

impl CaBundle for OfConfiguration {
    async fn read(&self) -> Result<Option<Told>, Error> {
        let found = self.api.get_opt(&self.name).await;
        let Some(found) = found.map_err(|e| self.failed("get", &e))? else {
            return Ok(None);
        };
        let mut told = Told {
            version: found.metadata.resource_version.unwrap_or_default(),
            ..Told::default()
        };
        for webhook in found.webhooks.unwrap_or_default() {
            let pem = webhook
                .client_config
                .ca_bundle
                .map(|pem| pem.0)
                .unwrap_or_default();
            let roots = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
            told.unreadable |= roots.is_err();
            told.webhooks
                .push((webhook.name, roots.unwrap_or_default()));
        }
        Ok(Some(told))
    }

    async fn write(&self, told: &Told, roots: &[Root]) -> Result<bool, Error> {
        use base64::Engine as _;
        let pem: String = roots.iter().map(|root| pem(root)).collect();
        let encoded = base64::prelude::BASE64_STANDARD.encode(pem);
        let webhooks = told
            .webhooks
            .iter()
            .map(|(name, _)| json!({ "name": name, "clientConfig": { "caBundle": encoded } }));
        // The version makes it a change of what was read, and of nothing later; no other field is named, so no other is
        // ours.
        let change = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": { "name": self.name, "resourceVersion": told.version },
            "webhooks": webhooks.collect::<Vec<_>>(),
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match self
            .api
            .patch(&self.name, &params, &Patch::Apply(change))
            .await
        {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(self.failed("patch", &error)),
        }
    }
}

/// A certificate as text.
#[must_use]
pub fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::prelude::BASE64_STANDARD.encode(certificate);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}
