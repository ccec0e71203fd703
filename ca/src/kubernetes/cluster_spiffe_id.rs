//! One `ClusterSPIFFEID` as it was applied: which pods it means, and what entry each of them gets.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::entry::{Entry, MAX_HINT};
use crate::template::{EntryTemplate, Facts, LabelSelector, Text};
use crate::trust_domain::TrustDomain;

/// A `ClusterSPIFFEID` that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterSpiffeId {
    /// Which pods, and the texts.
    pub(crate) template: EntryTemplate,
    x509_ttl: Option<Duration>,
    jwt_ttl: Option<Duration>,
    federates_with: Vec<TrustDomain>,
    hint: String,
    admin: bool,
    downstream: bool,
    /// Names of the services that lead to a pod are DNS names of its certificate.
    pub(crate) auto_populates_dns_names: bool,
    /// Only for pods that no other one means.
    pub(crate) is_fallback: bool,
}

/// `spec`, with SPIRE's names. An unknown field may say that fewer pods are meant, so none is passed over.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "spiffeIDTemplate")]
    spiffe_id_template: String,
    #[serde(default)]
    dns_name_templates: Vec<String>,
    #[serde(default)]
    workload_selector_templates: Vec<String>,
    #[serde(default)]
    pod_selector: Option<LabelSelector>,
    #[serde(default)]
    namespace_selector: Option<LabelSelector>,
    #[serde(default)]
    ttl: Option<String>,
    #[serde(default)]
    jwt_ttl: Option<String>,
    #[serde(default)]
    federates_with: Vec<String>,
    #[serde(default)]
    hint: String,
    #[serde(default)]
    admin: bool,
    #[serde(default)]
    downstream: bool,
    #[serde(default, rename = "autoPopulateDNSNames")]
    auto_populate_dns_names: bool,
    #[serde(default)]
    fallback: bool,
    #[serde(default, rename = "className")]
    _class_name: String,
}

impl ClusterSpiffeId {
    /// Reads a `spec`.
    ///
    /// # Errors
    /// What is wrong, with the field.
    pub(crate) fn read(spec: &Value) -> Result<Self, String> {
        let spec: Spec = Spec::deserialize(spec).map_err(|error| format!("`spec`: {error}"))?;
        let template = |field: &str, text: &str| {
            Text::parse(text).map_err(|error| {
                format!(
                    "`spec.{field}`: at byte {} of `{text}`: {error}",
                    error.offset
                )
            })
        };
        let templates = |field: &str, texts: &[String]| {
            let texts = texts.iter().map(|text| template(field, text));
            texts.collect::<Result<Vec<_>, _>>()
        };
        let selector = |field: &str, selector: Option<LabelSelector>| {
            let valid = selector.unwrap_or_default().validated();
            valid.map_err(|error| format!("`spec.{field}`: {error}"))
        };
        let trust_domain = |name: &String| {
            TrustDomain::from_input(name).map_err(|error| format!("`spec.federatesWith`: {error}"))
        };
        if spec.hint.len() > MAX_HINT {
            return Err(format!("`spec.hint` has more than {MAX_HINT} bytes"));
        }
        Ok(Self {
            template: EntryTemplate {
                spiffe_id: template("spiffeIDTemplate", &spec.spiffe_id_template)?,
                dns_names: templates("dnsNameTemplates", &spec.dns_name_templates)?,
                selectors: templates(
                    "workloadSelectorTemplates",
                    &spec.workload_selector_templates,
                )?,
                pods: selector("podSelector", spec.pod_selector)?,
                namespaces: selector("namespaceSelector", spec.namespace_selector)?,
            },
            x509_ttl: lifetime("ttl", spec.ttl.as_deref())?,
            jwt_ttl: lifetime("jwtTtl", spec.jwt_ttl.as_deref())?,
            federates_with: spec
                .federates_with
                .iter()
                .map(trust_domain)
                .collect::<Result<_, _>>()?,
            hint: spec.hint,
            admin: spec.admin,
            downstream: spec.downstream,
            auto_populates_dns_names: spec.auto_populate_dns_names,
            is_fallback: spec.fallback,
        })
    }

    /// The entry of a pod, without identifier; `parent` as in [`super::entries::Settings`].
    ///
    /// # Errors
    /// What the pod has not, or what is no entry.
    pub(crate) fn render(
        &self,
        facts: &Facts<'_>,
        services: &[String],
        parent: &str,
    ) -> Result<Entry, String> {
        let rendered = self.template.render(facts).map_err(|e| e.to_string())?;
        let mut dns_names = rendered.dns_names;
        if self.auto_populates_dns_names {
            for name in services {
                if !dns_names.iter().any(|one| one.eq_ignore_ascii_case(name)) {
                    dns_names.push(name.clone());
                }
            }
        }
        let id = |text: &str| {
            crate::spiffe_id::SpiffeId::parse(text)
                .map_err(|error| format!("`{text}` is no SPIFFE ID: {error}"))
        };
        let selectors = rendered.selectors.iter().map(|text| {
            text.parse::<crate::selector::Selector>()
                .map_err(|error| error.to_string())
        });
        Ok(Entry {
            id: String::new(),
            spiffe_id: id(&rendered.spiffe_id)?,
            parent_id: id(parent)?,
            selectors: selectors.collect::<Result<_, _>>()?,
            x509_ttl: self.x509_ttl,
            jwt_ttl: self.jwt_ttl,
            dns_names,
            federates_with: self.federates_with.clone(),
            hint: self.hint.clone(),
            admin: self.admin,
            downstream: self.downstream,
            store_svid: false,
            expires_at: None,
            revision_number: 0,
            created_at: std::time::SystemTime::UNIX_EPOCH,
        })
    }
}

/// A Go duration of whole seconds: `1h`, `90s`, `1h30m0s`. Zero, as SPIRE's controller writes it, is none.
fn lifetime(field: &str, text: Option<&str>) -> Result<Option<Duration>, String> {
    let Some(text) = text.filter(|text| !matches!(*text, "" | "0")) else {
        return Ok(None);
    };
    let refused =
        || format!("`spec.{field}`: `{text}` is no lifetime: write `90s`, `30m`, `1h` or `1h30m`");
    let mut all = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .ok_or_else(refused)?;
        let (number, after) = rest.split_at_checked(digits).ok_or_else(refused)?;
        let unit = match after.as_bytes() {
            [b'm', b's', ..] => return Err(refused()),
            [b'h', ..] => 3600,
            [b'm', ..] => 60,
            [b's', ..] => 1,
            _ => return Err(refused()),
        };
        let number: u64 = number.parse().map_err(|_| refused())?;
        let part = number.checked_mul(unit).ok_or_else(refused)?;
        all = all.checked_add(part).ok_or_else(refused)?;
        rest = after.get(1..).unwrap_or_default();
    }
    // What the API can say of an entry.
    if all > i32::MAX.unsigned_abs().into() {
        return Err(refused());
    }
    Ok((all > 0).then(|| Duration::from_secs(all)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_of_spire_s_is_read() {
        let read = ClusterSpiffeId::read(&json!({
            "spiffeIDTemplate": "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}",
            "podSelector": {"matchLabels": {"spiffe.io/spiffe-id": "true"}},
            "namespaceSelector": {"matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]},
            ]},
            "dnsNameTemplates": ["{{ .PodMeta.Name }}"],
            "workloadSelectorTemplates": ["k8s:ns:{{ .PodMeta.Namespace }}"],
            "ttl": "1h0m0s", "jwtTtl": "0s",
            "federatesWith": ["other.org"],
            "hint": "internal", "admin": true, "downstream": true,
            "autoPopulateDNSNames": true, "className": "spire", "fallback": true,
        }))
        .unwrap();
        assert_eq!(read.x509_ttl, Some(Duration::from_secs(3600)));
        assert_eq!(read.jwt_ttl, None);
        assert!(read.admin && read.downstream && read.is_fallback);
        assert!(read.auto_populates_dns_names);
        assert_eq!(
            (read.hint.as_str(), read.federates_with.len()),
            ("internal", 1)
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_field() {
        let id = "spiffe://{{ .TrustDomain }}/x";
        for (spec, told) in [
            (json!({}), "spiffeIDTemplate"),
            (json!({"spiffeIDTemplate": "{{ .Pod }}"}), "at byte 0"),
            (
                json!({"spiffeIDTemplate": id, "dnsNameTemplates": ["a", "{{ if }}"]}),
                "dnsNameTemplates",
            ),
            (
                json!({"spiffeIDTemplate": id, "ttl": "5 minutes"}),
                "spec.ttl",
            ),
            (
                json!({"spiffeIDTemplate": id, "onlyOn": "mondays"}),
                "onlyOn",
            ),
            (
                json!({"spiffeIDTemplate": id, "federatesWith": ["a b"]}),
                "federatesWith",
            ),
            (
                json!({"spiffeIDTemplate": id, "podSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}),
                "Like",
            ),
            (
                json!({"spiffeIDTemplate": id, "podSelector": {"matchExpressions": [{"key": "a", "operator": "NotIn"}]}}),
                "`spec.podSelector`: `NotIn` of the label `a` needs `values`",
            ),
            (
                json!({"spiffeIDTemplate": id, "namespaceSelector": {"matchExpressions": [
                    {"key": "a", "operator": "Exists", "values": ["b"]},
                ]}}),
                "`Exists` of the label `a` has no `values`",
            ),
            (json!(null), "spec"),
        ] {
            let error = ClusterSpiffeId::read(&spec).unwrap_err();
            assert!(error.contains(told), "{spec}: {error}");
        }
    }

    #[test]
    fn lifetimes_are_go_s() {
        for (text, seconds) in [
            ("90s", 90),
            ("1h30m", 5400),
            ("1h0m0s", 3600),
            ("0s", 0),
            ("0", 0),
            ("", 0),
        ] {
            let expected = (seconds > 0).then(|| Duration::from_secs(seconds));
            assert_eq!(lifetime("ttl", Some(text)), Ok(expected), "{text}");
        }
        for text in ["5", "1d", "100ms", "1.5h", "-1h", "h", "99999999999h", "é"] {
            assert!(lifetime("ttl", Some(text)).is_err(), "{text}");
        }
    }
}
