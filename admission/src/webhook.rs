//! The ValidatingWebhookConfiguration that has an API server ask us.

use std::fmt::Write as _;

/// A kind that is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// API group.
    pub group: &'static str,
    /// Versions that there are.
    pub versions: &'static [&'static str],
    /// Kind.
    pub kind: &'static str,
    /// As URLs write it.
    pub plural: &'static str,
}

const SECURITY: &str = "security.istio.io";
const OWN: &str = "portcullis.dev";

/// The kinds that are judged.
pub const KINDS: &[Kind] = &[
    Kind {
        group: SECURITY,
        versions: &["v1", "v1beta1"],
        kind: "AuthorizationPolicy",
        plural: "authorizationpolicies",
    },
    Kind {
        group: SECURITY,
        versions: &["v1", "v1beta1"],
        kind: "PeerAuthentication",
        plural: "peerauthentications",
    },
    Kind {
        group: SECURITY,
        versions: &["v1", "v1beta1"],
        kind: "RequestAuthentication",
        plural: "requestauthentications",
    },
    Kind {
        group: OWN,
        versions: &["v1alpha1"],
        kind: "CedarPolicy",
        plural: "cedarpolicies",
    },
    Kind {
        group: OWN,
        versions: &["v1alpha1"],
        kind: "PolicyTest",
        plural: "policytests",
    },
];

/// Path that reviews are sent to.
pub const PATH: &str = "/validate";
/// Name of the webhook; audit annotations stand under it.
pub const WEBHOOK: &str = "policies.portcullis.dev";
/// Usual name of the configuration.
pub const CONFIGURATION: &str = "portcullis-admission";

/// What the API server does when nobody decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailurePolicy {
    /// The change is refused.
    #[default]
    Fail,
    /// The change is made unseen.
    Ignore,
}

/// Where reviews go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A Service, port 443.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A URL without path, `https://HOST:PORT`: outside the cluster.
    Url(String),
}

/// What of the configuration is not the same everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `metadata.name`.
    pub name: String,
    /// Where reviews go.
    pub destination: Destination,
    /// Our own namespace: its policies are not sent to us.
    pub namespace: String,
    /// Our own service account; `None` where there is none.
    pub service_account: Option<String>,
    /// When nobody decides.
    pub failure_policy: FailurePolicy,
    /// How long the API server waits, 1 to 30 seconds.
    pub timeout_seconds: u8,
}

impl Default for Options {
    fn default() -> Self {
        let own = "portcullis".to_owned();
        Self {
            name: CONFIGURATION.to_owned(),
            destination: Destination::Service {
                namespace: own.clone(),
                name: CONFIGURATION.to_owned(),
            },
            namespace: own,
            service_account: Some(CONFIGURATION.to_owned()),
            failure_policy: FailurePolicy::Fail,
            timeout_seconds: 5,
        }
    }
}

/// The configuration as YAML, without `caBundle`: that is the server's to put in.
#[must_use]
pub fn yaml(options: &Options) -> String {
    let mut out = String::new();
    let (failure_policy, wait) = match options.failure_policy {
        FailurePolicy::Fail => ("Fail", options.timeout_seconds),
        FailurePolicy::Ignore => ("Ignore", options.timeout_seconds),
    };
    let client = match &options.destination {
        Destination::Service { namespace, name } => {
            let (namespace, name) = (quoted(namespace), quoted(name));
            format!("service: {{namespace: {namespace}, name: {name}, path: {PATH}, port: 443}}")
        }
        Destination::Url(url) => {
            format!(
                "url: {}",
                quoted(&format!("{}{PATH}", url.trim_end_matches('/')))
            )
        }
    };
    let _ = write!(
        out,
        "apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata:
  name: {name}
webhooks:
  - name: {WEBHOOK}
    admissionReviewVersions: [v1]
    clientConfig:
      {client}
    # Fail: without a verdict a policy is not changed, and the policies in force stay. Traffic is not concerned.
    failurePolicy: {failure_policy}
    timeoutSeconds: {wait}
    # A request for v1beta1 is sent as v1.
    matchPolicy: Equivalent
    sideEffects: None
    # Never our own namespace or that of the cluster: they must be repairable while nobody decides.
    namespaceSelector:
      matchExpressions:
        - {{key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system, {own}]}}
    matchConditions:
      # What is written there decides nothing.
      - name: not-a-subresource
        expression: '!has(request.subResource) || request.subResource == \"\"'
",
        name = quoted(&options.name),
        own = quoted(&options.namespace),
    );
    if let Some(account) = &options.service_account {
        let user = format!("system:serviceaccount:{}:{account}", options.namespace);
        let user = user.replace(['\'', '"', '\\'], "");
        let _ = write!(
            out,
            "      # What we write ourselves needs no opinion of ours.
      - name: not-by-ourselves
        expression: 'request.userInfo.username != \"{user}\"'
"
        );
    }
    out.push_str("    rules:\n");
    let mut groups: Vec<(&str, &[&str])> = KINDS.iter().map(|k| (k.group, k.versions)).collect();
    groups.dedup();
    for (group, versions) in groups {
        let plurals = KINDS.iter().filter(|kind| kind.group == group);
        let plurals: Vec<&str> = plurals.map(|kind| kind.plural).collect();
        let _ = write!(
            out,
            "      - apiGroups: [{group}]
        apiVersions: [{}]
        operations: [CREATE, UPDATE, DELETE]
        resources: [{}]
        scope: Namespaced
",
            versions.join(", "),
            plurals.join(", ")
        );
    }
    out
}

/// A double-quoted YAML scalar.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
