//! The registry of diagnostic codes. A code keeps its meaning for ever; docs/diagnostics has a page
//! for each.
//!
//! PC00xx: documents, schema and metadata. PC01xx: AuthorizationPolicy. PC02xx: PeerAuthentication.
//! PC03xx: RequestAuthentication. PC04xx: MeshConfig and inventory. PC05xx: documents seen together.
//! PC06xx: user-written Cedar. PC07xx: PolicyTest. PC09xx: defects of ours.

use super::{Diagnostic, Location, Severity};

/// One code: what it means wherever it appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// `PC` and four digits.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// A few words.
    pub title: &'static str,
    /// One or two sentences: what it means and why it matters.
    pub explanation: &'static str,
}

impl Code {
    /// A diagnostic with this code and its severity.
    #[must_use]
    pub fn at(&self, location: Location, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(self.id, self.severity, location, message)
    }
}

/// The code with this id.
#[must_use]
pub fn find(id: &str) -> Option<&'static Code> {
    ALL.iter().find(|code| code.id == id).copied()
}

macro_rules! codes {
    ($($name:ident = $id:literal, $severity:ident, $title:literal, $explanation:literal;)*) => {
        $(
            #[doc = concat!($id, ": ", $title, ".")]
            pub const $name: Code = Code {
                id: $id,
                severity: Severity::$severity,
                title: $title,
                explanation: $explanation,
            };
        )*

        /// Every code, in order.
        pub const ALL: &[&Code] = &[$(&$name),*];
    };
}

codes! {
    NOT_UTF8 = "PC0001", Error, "the file is not UTF-8",
        "Manifests are UTF-8. A file in another encoding is not guessed at.";
    SYNTAX = "PC0002", Error, "the file is neither YAML nor JSON",
        "Nothing of a file that cannot be read whole is used.";
    TOO_LARGE = "PC0003", Error, "the file is too large",
        "Files are bounded in octets and in the number of values, so that no input exhausts memory.";
    TOO_DEEP = "PC0004", Error, "values are nested too deep",
        "Nesting is bounded, so that no input exhausts the stack.";
    ALIAS = "PC0005", Error, "an alias that cannot be expanded",
        "Aliases must point back to a finished anchor of the same document, and what they expand to is bounded.";
    DUPLICATE_KEY = "PC0006", Error, "a key stands twice",
        "Readers disagree on which of two equal keys wins, so neither is chosen.";
    MERGE_KEY = "PC0007", Error, "a merge key that readers take differently",
        "`<<` must merge objects and stand before the keys that override it.";
    CONTROL_CHARACTER = "PC0008", Error, "a NUL character",
        "No manifest holds a NUL; readers stop at it or drop it.";
    TAG = "PC0009", Error, "a YAML tag that is not supported",
        "Only the tags of JSON's own types are read.";
    NOT_AN_OBJECT = "PC0010", Error, "not a Kubernetes object",
        "Every document needs `apiVersion` and `kind`.";
    PASSED_OVER = "PC0011", Note, "an unrelated kind",
        "The document is of a kind that decides nothing here.";
    UNKNOWN_KIND = "PC0012", Error, "a kind or version that the API does not have",
        "The API server would answer that it knows no such kind.";
    MISSING_NAME = "PC0013", Error, "no name",
        "Every object needs `metadata.name`.";
    BAD_NAME = "PC0014", Error, "a name that the API server refuses",
        "Names of objects follow RFC 1123: lower-case letters, digits, `-` and, in most kinds, `.`.";
    DEFAULT_NAMESPACE = "PC0015", Note, "no namespace",
        "A namespaced object without `metadata.namespace` is read as one of namespace `default`.";
    LOOKALIKE_KIND = "PC0016", Error, "the kind of a policy in a misspelt API group",
        "The kind is known, the API group is not: the API server refuses the document, and it decides nothing.";
    UNKNOWN_FIELD = "PC0020", Error, "a field that the kind does not have",
        "The API server drops or refuses unknown fields; a misspelt one silently changes what a policy means.";
    WRONG_TYPE = "PC0021", Error, "a value of the wrong type",
        "The API server refuses it. Unquoted `yes`, `on` or `1e3` are not strings in Kubernetes' YAML.";
    MISSING_FIELD = "PC0022", Error, "a required field is missing",
        "The API server refuses the object without it.";
    UNKNOWN_WORD = "PC0023", Error, "a word that the field does not know",
        "The field takes one of a few words, in exactly this spelling.";
    OUT_OF_BOUNDS = "PC0024", Error, "too many entries, or a value too long",
        "The schema of the kind bounds it.";
    NULL_ENTRY = "PC0025", Error, "a null entry in a list",
        "The API server refuses it; usually a dash with nothing behind it.";
    EMPTY_LIST = "PC0026", Warning, "an empty list reads as not set",
        "Istio decodes `[]` as if the field were absent, which usually matches more, not nothing.";
    CONVERTED_KEY = "PC0027", Warning, "an unquoted key that is read as another",
        "YAML 1.1 reads an unquoted `y`, `no` or `on` as a boolean, so the key becomes `true` or `false`.";
    UNKNOWN_METADATA = "PC0028", Error, "a field that metadata does not have",
        "The API server refuses or drops it; a misspelt `namespace` moves a policy to another one.";
    TOO_MANY = "PC0029", Error, "too many diagnostics",
        "The rest of the file's diagnostics is left out.";
    TWO_ATTACHMENTS = "PC0030", Error, "two ways to attach",
        "At most one of `selector`, `targetRefs` and `targetRef` may be set.";
    SELECTOR_LABEL = "PC0031", Error, "a label that a selector cannot hold",
        "Selectors compare labels exactly: no wildcards and no empty keys.";
    EMPTY_SELECTOR = "PC0032", Warning, "a selector without labels",
        "It selects every workload of the namespace (in the root namespace: of the mesh).";
    TARGET_KIND = "PC0033", Error, "a kind that no policy can target",
        "Targets are Service, ServiceEntry, Gateway and GatewayClass, each of its own group.";
    TARGET_NAMESPACE = "PC0034", Error, "a target in another namespace",
        "Istio does not support references across namespaces; such a target never matches.";
    EMPTY_VALUE = "PC0035", Error, "an empty string",
        "An empty value matches nothing and is refused.";
    DRY_RUN_VALUE = "PC0036", Error, "a dry-run annotation that is no boolean",
        "Istio refuses the policy; one that got past the webhook would be enforced.";
    DRY_RUN_UNSUPPORTED = "PC0037", Error, "dry-run on what has none",
        "Only ALLOW and DENY policies can be on trial.";
    RESERVED_ANNOTATION = "PC0038", Error, "an annotation that is Istio's own",
        "Istio's webhook refuses objects that carry it.";
    DRY_RUN_LOOKALIKE = "PC0039", Warning, "almost the dry-run annotation",
        "Only the annotation `istio.io/dry-run` puts a policy on trial; with any other spelling it is enforced.";
    SERVICE_ACCOUNTS_EXCLUSIVE = "PC0101", Error, "serviceAccounts beside principals or namespaces",
        "One source names its peers in one way: service accounts, or principals and namespaces.";
    NO_RULES = "PC0102", Error, "a DENY or CUSTOM policy without rules",
        "It would never be triggered; an empty rule `{}` matches every request.";
    PROVIDER_MISSING = "PC0103", Error, "a CUSTOM policy without a provider",
        "CUSTOM delegates to the extension provider that `provider.name` names.";
    PROVIDER_UNEXPECTED = "PC0104", Error, "a provider on a policy that is not CUSTOM",
        "Only CUSTOM policies have a provider.";
    CUSTOM_FIELD = "PC0105", Error, "a field that CUSTOM does not support",
        "A CUSTOM policy cannot look at identities or tokens: its provider does.";
    EMPTY_SOURCE = "PC0106", Error, "an entry of from without a source",
        "An entry of `from` needs a `source` with at least one field.";
    EMPTY_OPERATION = "PC0107", Error, "an entry of to without an operation",
        "An entry of `to` needs an `operation` with at least one field.";
    BAD_ADDRESS = "PC0108", Error, "not an address or block",
        "Addresses are IPv4 or IPv6, with an optional prefix length.";
    BAD_PORT = "PC0109", Error, "not a port",
        "Ports are whole numbers; 0 to 65535 in a rule, 1 to 65535 elsewhere.";
    BAD_SERVICE_ACCOUNT = "PC0110", Error, "not a service account",
        "A service account is `name` or `namespace/name`, without wildcards.";
    BAD_TRUST_DOMAIN = "PC0111", Error, "not a trust domain",
        "A trust domain has no `/` and at most one `*`, at one of its ends.";
    BAD_TEMPLATE = "PC0112", Error, "a path template that Istio refuses",
        "`{*}` and `{**}` are whole segments, `{**}` is the last of them, and the rest is what a path can hold.";
    ABORTS_ENVOY = "PC0113", Error, "a path template that Envoy cannot load",
        "Istio accepts it, and every Envoy that receives it refuses its configuration or aborts.";
    EMPTY_KEY = "PC0114", Error, "a condition without a key",
        "A condition names the attribute that it looks at.";
    UNKNOWN_KEY = "PC0115", Error, "an attribute that does not exist",
        "Istio refuses it; in a policy that got past the webhook the whole rule is dropped, even of a DENY.";
    BAD_KEY = "PC0116", Error, "an attribute without its bracketed name",
        "`request.headers`, `request.auth.claims` and `experimental.envoy.filters.` take a name in brackets.";
    NO_VALUES = "PC0117", Error, "a condition without values",
        "A condition needs `values` or `notValues`.";
    SPIFFE_PREFIX = "PC0120", Warning, "a principal with spiffe://",
        "Istio puts the scheme in front itself, so a value that has it matches nobody.";
    STRAY_STAR = "PC0121", Warning, "a star that is no wildcard",
        "`*` is a wildcard at the start or at the end of a value; anywhere else it is a literal star.";
    PRINCIPAL_SHAPE = "PC0122", Warning, "a principal that is no identity",
        "Identities of workloads have a path: `cluster.local/ns/foo/sa/bar`.";
    DENY_WITHOUT_PORTS = "PC0123", Warning, "a DENY rule of HTTP fields without ports",
        "On TCP the HTTP fields are dropped and the rest denies, which closes TCP ports; ztunnel skips a rule with nothing left.";
    ALLOWS_NOTHING = "PC0124", Note, "an ALLOW policy without rules",
        "It matches no request and so closes the workloads that it selects.";
    ONLY_NEGATED = "PC0125", Warning, "only a not-field in an ALLOW rule",
        "A negated field also matches requests that do not have the attribute at all.";
    TEMPLATE_BYPASS = "PC0126", Warning, "a template where a miss opens",
        "Envoy's path templates match a limited set of characters; a path with `[` or `]` escapes them.";
    MAPPED_ADDRESS = "PC0127", Warning, "an IPv4-mapped IPv6 block",
        "Envoy compares IPv4 peers with IPv4 blocks only.";
    HOST_BITS = "PC0128", Warning, "bits beyond the prefix of a block",
        "The block is masked: it holds more addresses than the one that was written.";
    METHOD_CASE = "PC0129", Warning, "a method in lower case",
        "Methods are compared with case, and clients send them in upper case.";
    PATH_NEVER = "PC0130", Warning, "a path that hardly ever matches",
        "Paths are compared without query and fragment, normalised, from the leading `/`.";
    HOST_PORT = "PC0131", Note, "a host without its form with a port",
        "The port is part of the value: `example.com` is not `example.com:8080`. Where a miss opens, this is a warning.";
    HEADER_NEVER = "PC0132", Warning, "a header name that no request has",
        "HTTP does not allow the character in a name.";
    HOST_NEVER = "PC0133", Warning, "a host that no request has",
        "Hosts are compared with `:authority`, which has neither scheme nor path.";
    NEVER_MATCHES = "PC0134", Warning, "a field whose `not` excludes all that it names",
        "The two are ANDed, so nothing matches: an ALLOW rule lets nobody in, a DENY rule stops nobody.";
    PORTS_WITHOUT_SELECTOR = "PC0201", Error, "ports on a PeerAuthentication without a selector",
        "Ports are those of workloads, so a policy for a namespace or the mesh has none.";
    NO_PORTS = "PC0202", Error, "portLevelMtls without a port",
        "The schema wants at least one entry.";
    SELECTOR_IN_ROOT = "PC0203", Warning, "a PeerAuthentication for workloads in the root namespace",
        "Istio ignores it: in the root namespace only a policy without a selector counts, for the mesh.";
    OLDER_POLICY = "PC0204", Warning, "an older PeerAuthentication in its place",
        "One policy counts for the mesh, one for each namespace and one for each workload: the oldest, and of the same age, or without a time, the first by name.";
    OPEN_IN_AMBIENT = "PC0205", Warning, "ports that ztunnel leaves open",
        "istiod points ztunnel to a converted policy that it does not make, so no port demands an identity although a sidecar's would.";
    TWO_KEY_SOURCES = "PC0301", Error, "two sources of keys",
        "At most one of `jwks` and `jwksUri` may be set.";
    JWKS_URI = "PC0302", Error, "not the address of a key set",
        "Istio fetches keys over http or https only.";
    JWKS = "PC0303", Error, "not a key set",
        "`jwks` holds a JSON Web Key Set (RFC 7517) as text.";
    PRIVATE_KEY = "PC0304", Warning, "a private key in a key set",
        "Verification needs public keys only; whoever reads the policy can sign tokens.";
    HEADER_NAME = "PC0305", Error, "not a header name",
        "Names of headers are letters, digits, `-` and `_`.";
    DURATION = "PC0306", Error, "not a duration",
        "A duration is a number of seconds, such as `5s`, at least 1 ms.";
    PRESENCE_IGNORED = "PC0307", Warning, "presence is not enforced",
        "Istio's schema has the field, istiod does not act on it yet.";
    UNKNOWN_MESH_KEY = "PC0401", Warning, "a MeshConfig key that was never published",
        "It is ignored; a misspelt key is an error instead.";
    SHARED_ADDRESS = "PC0402", Warning, "one address, several workloads",
        "A request to that address is denied, `destination_ambiguous`, unless all of them have the same policies.";
    UNKNOWN_DEFAULT = "PC0403", Warning, "a default workload that does not exist",
        "Requests that name no destination are denied, `unknown_destination`.";
    SERVICE_BY_HOST = "PC0404", Note, "a service that only the request's host tells apart",
        "Without a cluster address a waypoint's request is for the service that its host names, and the client chooses the host: it can escape the policies of one service by naming another.";
    MESH_FIELD_OVERRIDDEN = "PC0501", Note, "a MeshConfig field that the configuration overrides",
        "`mesh` of the configuration wins over MeshConfig documents, field by field.";
    MESH_CONFIG_REPEATED = "PC0502", Warning, "a second MeshConfig",
        "A mesh has one. Where several set a field the last one read wins.";
    DUPLICATE_RESOURCE = "PC0503", Error, "an object stands twice",
        "A cluster holds one object of a kind, namespace and name; which of two documents wins would be chance.";
    SELECTS_NOTHING = "PC0504", Warning, "a selector that selects nothing",
        "The set has workloads, but none where the policy looks has all its labels.";
    TARGET_NOT_FOUND = "PC0505", Warning, "a target that does not exist",
        "The set has objects of the kind, but none of that name in the policy's namespace.";
    CLASS_OUTSIDE_ROOT = "PC0506", Warning, "a GatewayClass targeted from outside the root namespace",
        "Such a target never matches.";
    UNKNOWN_NAMESPACE = "PC0507", Warning, "a namespace that does not exist",
        "The set lists namespaces, and this is none of them.";
    UNKNOWN_ACCOUNT = "PC0508", Warning, "a service account that does not exist",
        "The set lists service accounts, and this is none of them.";
    FOREIGN_TRUST_DOMAIN = "PC0509", Warning, "a foreign trust domain",
        "The principal belongs to no trust domain of the mesh: right for a federated mesh, else it matches nobody.";
    IDENTITY_WITHOUT_MTLS = "PC0510", Note, "identities where plaintext is taken",
        "Without STRICT mTLS clients come without identity: an ALLOW rule does not let them in, a DENY rule does not stop them. A warning where they get more than meant.";
    UNKNOWN_PROVIDER = "PC0511", Warning, "a provider that MeshConfig does not have",
        "Istio denies whatever matches a CUSTOM policy whose provider is unknown.";
    RULE_IN_VAIN = "PC0512", Warning, "a rule that adds nothing",
        "Another rule of the same policy matches everything that it matches.";
    RULE_SHADOWED = "PC0513", Warning, "an ALLOW rule that a DENY rule covers",
        "DENY comes before ALLOW: whatever the rule would let in, the DENY rule has stopped.";
    HTTP_ON_TCP = "PC0514", Warning, "HTTP fields on a TCP port",
        "On TCP an ALLOW rule with HTTP fields is left out, and a DENY rule loses them and denies what is left.";
    BEYOND_ZTUNNEL = "PC0515", Warning, "more than ztunnel can enforce",
        "In ambient mode a selector attaches the policy to ztunnel, which sees connections alone: ALLOW rules with HTTP fields are left out, DENY rules lose them, other actions do nothing.";
    NO_WAYPOINT = "PC0516", Warning, "a target that no waypoint serves",
        "A policy attached to a Service or ServiceEntry is enforced by its waypoint alone; without one it does nothing.";
    NO_TOKENS = "PC0517", Warning, "claims where no token is verified",
        "Only a RequestAuthentication verifies tokens: without one for these workloads no request has claims or a request principal.";
    SERVICE_PORT = "PC0518", Warning, "the port of a Service where the workload's is meant",
        "Policies match the port that the workload listens on; the Service maps its own to that one.";
    OPENS = "PC0520", Warning, "a change that opens workloads",
        "After it no ALLOW policy limits what is allowed there, so whatever no DENY policy denies is allowed.";
    CLOSES = "PC0521", Note, "a change that closes workloads",
        "Until it all was allowed there that no DENY policy denies; after it whatever no ALLOW policy allows is denied.";
    WAIVES_IDENTITY = "PC0522", Warning, "a change that lets clients without identity in",
        "Until it every client had to have an identity (STRICT); after it plaintext is taken.";
    UNDENIES = "PC0523", Warning, "a change that takes away what a DENY rule denied",
        "Until it a DENY rule stopped these requests; after it none does, so ALLOW policies decide.";
    DENIES_ALL = "PC0524", Warning, "a change that denies every request",
        "After it a DENY rule without conditions stops every request to these workloads, whatever ALLOW policies allow.";
    CEDAR_SYNTAX = "PC0601", Error, "Cedar that cannot be read",
        "The file is not Cedar; nothing of it is used.";
    CEDAR_INVALID = "PC0602", Error, "a Cedar policy that strict validation refuses",
        "A policy that could fail while it is evaluated would be skipped, so it is refused before.";
    CEDAR_TEMPLATE = "PC0603", Error, "a Cedar template",
        "Templates have slots, and nothing here links them.";
    CEDAR_SCOPE = "PC0604", Error, "a scope or selector that selects nothing",
        "A user policy selects its workloads by scope or by `@selector`.";
    CEDAR_UNSCOPED = "PC0605", Warning, "a Cedar policy for the whole mesh",
        "Without scope, selector or namespace a policy applies to every workload.";
    CEDAR_FACT = "PC0606", Error, "a fact that cannot be computed",
        "Facts are computed for the texts that policies name, so a policy names them as literals.";
    CEDAR_DUPLICATE = "PC0607", Error, "two Cedar policies of one name",
        "Decisions report policies by namespace and `@id`.";
    CEDAR_NOWHERE = "PC0608", Warning, "a Cedar policy that reaches no workload",
        "The set has workloads, but none that the policy's scope, namespace and selector name.";
    CEDAR_EMPTY = "PC0609", Warning, "a CedarPolicy without a policy",
        "It selects workloads and changes nothing for them: only comments, or nothing at all.";
    CEDAR_PRINCIPAL = "PC0610", Warning, "a principal without spiffe://",
        "In Cedar the id of a principal is its whole SPIFFE ID, so without `spiffe://` it is nobody's.";
    CASE_SHAPE = "PC0701", Error, "a case without a request of its own or another's",
        "A case writes its `request`, or is `like` an earlier one with a `change`.";
    CASE_NAME = "PC0702", Error, "a case without a name of its own",
        "`like` and the report of a failed case name cases, so each has a name that no other has.";
    CASE_LIKE = "PC0703", Error, "a case that is like none, or changes nothing",
        "`like` names a case above, and `change` makes its request another.";
    CASE_REASON = "PC0704", Error, "a reason that does not go with the decision",
        "Each reason belongs to allow or to deny, never to both.";
    CASE_REQUEST = "PC0705", Error, "a case whose request is no CheckRequest",
        "Requests are Envoy's CheckRequest in protobuf JSON; another value cannot be decided.";
    CASE_FAILS = "PC0706", Error, "a case that does not hold",
        "The policies decide the request otherwise than the PolicyTest says they must.";
    INTERNAL = "PC0900", Error, "a generated policy that Cedar refuses",
        "A defect of Portcullis: please report it with the manifest.";
}
