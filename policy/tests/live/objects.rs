//! Objects of every kind in small pools, so that names, labels and addresses meet; good ones and bad.

use portcullis_policy::live::{Change, ObjectKey};
use proptest::prelude::*;

use super::cluster::{SECURITY, change};

/// One version of one object.
#[derive(Clone, Debug)]
pub struct Version {
    pub key: ObjectKey,
    /// As JSON; `None`: it is deleted.
    pub text: Option<String>,
    /// True where the version by itself is in order.
    pub good: bool,
}

impl Version {
    pub fn change(&self) -> Change {
        match &self.text {
            Some(text) => change(self.key.clone(), text),
            None => Change::Delete(self.key.clone()),
        }
    }
}

pub const NAMESPACES: [&str; 3] = ["shop", "blog", "istio-system"];
pub const NAMES: [&str; 3] = ["a", "b", "c"];
pub const ADDRESSES: [&str; 4] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
const LABELS: [&str; 5] = [
    r#"{"app":"web"}"#,
    r#"{"app":"db"}"#,
    r#"{"app":"web","tier":"x"}"#,
    r#"{"gateway.networking.k8s.io/gateway-name":"a","app":"web"}"#,
    r#"{"gateway.networking.k8s.io/gateway-name":"b","gateway.networking.k8s.io/gateway-class-name":"istio-waypoint"}"#,
];
const ATTACHMENTS: [&str; 7] = [
    "",
    r#""selector":{"matchLabels":{"app":"web"}},"#,
    r#""selector":{"matchLabels":{"app":"db"}},"#,
    r#""selector":{"matchLabels":{"app":"web","tier":"x"}},"#,
    r#""targetRefs":[{"group":"gateway.networking.k8s.io","kind":"Gateway","name":"a"}],"#,
    r#""targetRefs":[{"group":"","kind":"Service","name":"a"}],"#,
    r#""targetRefs":[{"group":"networking.istio.io","kind":"ServiceEntry","name":"b"}],"#,
];
const RULES: [&str; 4] = [
    "[{}]",
    r#"[{"from":[{"source":{"principals":["cluster.local/ns/shop/sa/a"]}}]}]"#,
    r#"[{"to":[{"operation":{"methods":["GET"]}}]},{"from":[{"source":{"namespaces":["gone"]}}]}]"#,
    r#"[{"to":[{"operation":{"paths":["/a*"]}}]}]"#,
];

/// Any version of any object.
pub fn version() -> impl Strategy<Value = Version> {
    let pick = (
        0..NAMESPACES.len(),
        0..NAMES.len(),
        0..28usize,
        any::<[u8; 6]>(),
    );
    pick.prop_map(|(namespace, name, kind, dice)| {
        let (namespace, name) = (NAMESPACES[namespace], NAMES[name]);
        let deleted = dice[5] < 50;
        let bad = !deleted && dice[5] > 215;
        let (key, text) = object(kind, namespace, name, bad, dice);
        Version {
            key,
            text: (!deleted).then_some(text),
            good: !bad,
        }
    })
}

/// A pod for each name of each namespace, so that policies find workloads from the start.
pub fn pods() -> Vec<Version> {
    let places = (0..9u8).map(|i| (NAMESPACES[i as usize % 3], NAMES[i as usize / 3], i));
    let pods = places.map(|(namespace, name, i)| {
        let (key, text) = object(11, namespace, name, false, [i, i, i, 0, 0, 0]);
        Version {
            key,
            text: Some(text),
            good: true,
        }
    });
    pods.collect()
}

fn of<'a>(pool: &[&'a str], die: u8) -> &'a str {
    pool[die as usize % pool.len()]
}

fn object(
    kind: usize,
    namespace: &str,
    name: &str,
    bad: bool,
    dice: [u8; 6],
) -> (ObjectKey, String) {
    let attachment = of(&ATTACHMENTS, dice[0]);
    let selector = of(&ATTACHMENTS[..4], dice[0]);
    let address = of(&ADDRESSES, dice[1]);
    let labels = of(&LABELS, dice[2]);
    let wrong = if bad { r#""misspelt":1,"# } else { "" };
    // What is not a policy bears an unknown field.
    let broken = if bad { r#","labels":5"# } else { "" };
    let (group, version, kind, namespace, meta, rest) = match kind {
        0..=7 => {
            let action = of(&["ALLOW", "ALLOW", "DENY", "AUDIT"], dice[3]);
            let dry_run = if dice[4] > 200 && action != "AUDIT" {
                r#","annotations":{"istio.io/dry-run":"true"}"#
            } else {
                ""
            };
            let rules = of(&RULES, dice[4]);
            let spec =
                format!(r#""spec":{{{wrong}{attachment}"action":"{action}","rules":{rules}}}"#);
            (
                SECURITY,
                "v1",
                "AuthorizationPolicy",
                namespace,
                dry_run.to_owned(),
                spec,
            )
        }
        8..=9 => {
            let mode = of(&["STRICT", "PERMISSIVE", "DISABLE"], dice[3]);
            let ports = if selector.is_empty() || dice[4] < 128 {
                ""
            } else {
                r#""portLevelMtls":{"8080":{"mode":"DISABLE"}},"#
            };
            let spec = format!(r#""spec":{{{wrong}{selector}{ports}"mtls":{{"mode":"{mode}"}}}}"#);
            let age = format!(
                r#","creationTimestamp":"2024-01-0{}T00:00:00Z""#,
                dice[4] % 3 + 1
            );
            (SECURITY, "v1", "PeerAuthentication", namespace, age, spec)
        }
        10 => {
            let issuer = of(&["one", "two"], dice[3]);
            let spec =
                format!(r#""spec":{{{wrong}{attachment}"jwtRules":[{{"issuer":"{issuer}"}}]}}"#);
            (
                SECURITY,
                "v1",
                "RequestAuthentication",
                namespace,
                String::new(),
                spec,
            )
        }
        11..=18 => {
            let phase = of(&["Running", "Running", "Running", "Succeeded"], dice[3]);
            let host = if dice[4] > 230 {
                r#""hostNetwork":true,"#
            } else {
                ""
            };
            let account = of(&NAMES, dice[0]);
            let meta = if bad {
                broken.to_owned()
            } else {
                format!(r#","labels":{labels}"#)
            };
            let rest = format!(
                r#""spec":{{{host}"serviceAccountName":"{account}"}},"status":{{"phase":"{phase}","podIP":"{address}"}}"#
            );
            ("", "v1", "Pod", namespace, meta, rest)
        }
        19 => {
            let meta = if bad { broken } else { "" };
            let rest = format!(
                r#""spec":{{"template":{{"metadata":{{"labels":{labels}}},"spec":{{}}}}}}"#
            );
            ("apps", "v1", "Deployment", namespace, meta.to_owned(), rest)
        }
        20..=21 => {
            let selector = of(&[r#"{"app":"web"}"#, r#"{"app":"db"}"#, "{}"], dice[0]);
            let ip = of(&["172.16.0.1", "172.16.0.2", "None"], dice[1]);
            let rest = format!(r#""spec":{{"selector":{selector},"clusterIP":"{ip}"}}"#);
            ("", "v1", "Service", namespace, broken.to_owned(), rest)
        }
        22..=23 => {
            let service = of(&NAMES, dice[0]);
            let meta = if bad {
                broken.to_owned()
            } else {
                format!(r#","labels":{{"kubernetes.io/service-name":"{service}"}}"#)
            };
            let named = |pod: &str| {
                format!(r#","targetRef":{{"kind":"Pod","name":"{pod}","namespace":"{namespace}"}}"#)
            };
            let first = match dice[2] % 3 {
                0 => String::new(),
                1 => named(of(&NAMES, dice[3])),
                _ => named(&format!("{}-x", of(&NAMES, dice[3]))),
            };
            let second = named(of(&NAMES, dice[4]));
            let other = of(&ADDRESSES, dice[4]);
            let rest = format!(
                r#""addressType":"IPv4","endpoints":[{{"addresses":["{address}"]{first}}},{{"addresses":["{other}"]{second}}}]"#
            );
            (
                "discovery.k8s.io",
                "v1",
                "EndpointSlice",
                namespace,
                meta,
                rest,
            )
        }
        24 => {
            let host = of(&["api.example.com", "*.example.com", "shop.svc"], dice[0]);
            let rest = format!(r#""spec":{{"hosts":["{host}"],"addresses":["172.16.0.9"]}}"#);
            (
                "networking.istio.io",
                "v1",
                "ServiceEntry",
                namespace,
                broken.to_owned(),
                rest,
            )
        }
        25 => match dice[0] % 3 {
            0 => {
                let class = of(&["istio", "istio-waypoint", "own"], dice[1]);
                let rest = format!(r#""spec":{{"gatewayClassName":"{class}"}}"#);
                (
                    "gateway.networking.k8s.io",
                    "v1",
                    "Gateway",
                    namespace,
                    broken.to_owned(),
                    rest,
                )
            }
            1 => {
                let controller = of(&["istio.io/mesh-controller", "other"], dice[1]);
                let rest = format!(r#""spec":{{"controllerName":"{controller}"}}"#);
                (
                    "gateway.networking.k8s.io",
                    "v1",
                    "GatewayClass",
                    "",
                    broken.to_owned(),
                    rest,
                )
            }
            _ => {
                let rest = format!(r#""spec":{{"selector":{labels}}}"#);
                (
                    "networking.istio.io",
                    "v1",
                    "Gateway",
                    namespace,
                    broken.to_owned(),
                    rest,
                )
            }
        },
        26 => match dice[0] % 2 {
            0 => (
                "",
                "v1",
                "Namespace",
                "",
                broken.to_owned(),
                r#""spec":{}"#.to_owned(),
            ),
            _ => (
                "",
                "v1",
                "ServiceAccount",
                namespace,
                broken.to_owned(),
                r#""secrets":[]"#.to_owned(),
            ),
        },
        _ => return mesh(bad, dice),
    };
    // Namespaces are called like those of the rest.
    let name = if kind == "Namespace" {
        of(&NAMESPACES, dice[3])
    } else {
        name
    };
    let key = ObjectKey::new(group, kind, namespace, name);
    let api = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    let place = if namespace.is_empty() {
        String::new()
    } else {
        format!(r#","namespace":"{namespace}""#)
    };
    let text = format!(
        r#"{{"apiVersion":"{api}","kind":"{kind}","metadata":{{"name":"{name}"{place}{meta}}},{rest}}}"#
    );
    (key, text)
}

fn mesh(bad: bool, dice: [u8; 6]) -> (ObjectKey, String) {
    let mesh = if bad {
        "trustDomain: ["
    } else {
        of(
            &[
                "{}",
                "{}",
                "trustDomain: td",
                "rootNamespace: blog",
                "{trustDomain: td, trustDomainAliases: [cluster.local]}",
            ],
            dice[0],
        )
    };
    let key = ObjectKey::new("", "ConfigMap", "istio-system", "istio");
    let text = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"istio","namespace":"istio-system"}},"data":{{"mesh":"{mesh}"}}}}"#
    );
    (key, text)
}
