//! Trust-domain migration: a name in one of the mesh's trust domains stands for all of them.
//!
//! Facts from istio:pilot/pkg/security/trustdomain (bundle.go, util.go) at 86c9f01f.

use super::{DEFAULT_TRUST_DOMAIN, Mesh};

impl Mesh {
    /// Expands values of `principals` and `source.principal`, without `spiffe://`.
    ///
    /// Only a value of exactly five `/`-segments that does not start with the segment `*` is touched:
    /// if its first segment meets one of the mesh's trust domains, by name or by a wildcard on either
    /// side, or is `cluster.local`, the value comes back once for each of them. A first segment
    /// `*suffix` stays as it is for the domains it already covers. Everything else, a foreign domain
    /// included, is kept as written. Not for ztunnel, which knows no aliases.
    #[must_use]
    pub fn expand_principals(&self, principals: &[String]) -> Vec<String> {
        let mut expanded = Vec::with_capacity(principals.len());
        for principal in principals {
            match self.migrating(principal) {
                None => push_new(&mut expanded, principal.clone()),
                Some((written, path)) => {
                    for own in self.trust_domains() {
                        let value = if suffix_match(own, written) {
                            principal.clone()
                        } else {
                            format!("{own}/{path}")
                        };
                        push_new(&mut expanded, value);
                    }
                }
            }
        }
        expanded
    }

    /// Expands values of `trustDomains` and `source.trustDomain`: one that equals a trust domain of
    /// the mesh stands for all of them. Wildcards and foreign domains are kept as written.
    #[must_use]
    pub fn expand_trust_domains(&self, values: &[String]) -> Vec<String> {
        let mut expanded = Vec::with_capacity(values.len());
        for value in values {
            if self.is_own_trust_domain(value) {
                for own in self.trust_domains() {
                    push_new(&mut expanded, own.to_owned());
                }
            } else {
                push_new(&mut expanded, value.clone());
            }
        }
        expanded
    }

    /// Trust domain and rest of a principal that belongs to this mesh; `None` for one kept as written.
    fn migrating<'a>(&self, principal: &'a str) -> Option<(&'a str, &'a str)> {
        let (written, path) = principal.split_once('/')?;
        let five_segments = path.bytes().filter(|byte| *byte == b'/').count() == 3;
        let ours = written == DEFAULT_TRUST_DOMAIN
            || self
                .trust_domains()
                .any(|own| either_way_match(written, own));
        (five_segments && written != "*" && ours).then_some((written, path))
    }
}

fn push_new(values: &mut Vec<String>, value: String) {
    if !values.contains(&value) {
        values.push(value);
    }
}

/// Equal, or one is a wildcard pattern that covers the other.
fn either_way_match(written: &str, own: &str) -> bool {
    written == own
        || own == "*"
        || prefix_match(written, own)
        || prefix_match(own, written)
        || suffix_match(written, own)
        || suffix_match(own, written)
}

fn prefix_match(value: &str, pattern: &str) -> bool {
    pattern
        .strip_suffix('*')
        .is_some_and(|prefix| value.starts_with(prefix))
}

fn suffix_match(value: &str, pattern: &str) -> bool {
    pattern
        .strip_prefix('*')
        .is_some_and(|suffix| value.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh(trust_domain: &str, aliases: &[&str]) -> Mesh {
        Mesh {
            trust_domain: trust_domain.to_owned(),
            trust_domain_aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            ..Mesh::default()
        }
    }

    fn check(mesh: &Mesh, principals: &[&str], expected: &[&str]) {
        let principals: Vec<String> = principals.iter().map(|p| (*p).to_owned()).collect();
        assert_eq!(
            mesh.expand_principals(&principals),
            expected,
            "{principals:?}"
        );
    }

    #[test]
    fn an_own_principal_stands_for_every_own_domain() {
        let mesh = mesh("td1", &["td2", "td3"]);
        let all = ["td1/ns/foo/sa/a", "td2/ns/foo/sa/a", "td3/ns/foo/sa/a"];
        check(&mesh, &["td1/ns/foo/sa/a"], &all);
        check(&mesh, &["td2/ns/foo/sa/a"], &all);
        check(&mesh, &["cluster.local/ns/foo/sa/a"], &all);
        check(&mesh, &["td1/ns/foo/sa/a", "td3/ns/foo/sa/a"], &all);
    }

    #[test]
    fn a_foreign_domain_is_kept() {
        let mesh = mesh("td1", &["td2"]);
        check(&mesh, &["other/ns/foo/sa/a"], &["other/ns/foo/sa/a"]);
        check(&mesh, &["TD1/ns/foo/sa/a"], &["TD1/ns/foo/sa/a"]);
        check(&mesh, &["td11/ns/foo/sa/a"], &["td11/ns/foo/sa/a"]);
        check(&mesh, &["/ns/foo/sa/a"], &["/ns/foo/sa/a"]);
    }

    #[test]
    fn only_five_segments_are_touched() {
        let mesh = mesh("td1", &["td2"]);
        for kept in [
            "*",
            "td1",
            "td1/*",
            "td1/ns/foo",
            "td1/ns/foo/sa",
            "td1/ns/foo/sa/a/b",
            "*/ns/foo/sa/a",
            "sa/a",
            "spiffe://td1/ns/foo/sa/a",
            "",
        ] {
            check(&mesh, &[kept], &[kept]);
        }
        // any five segments will do, Istio does not look at their words
        check(&mesh, &["td1/a/b/c/d"], &["td1/a/b/c/d", "td2/a/b/c/d"]);
        check(
            &mesh,
            &["td1/ns/foo/sa/*"],
            &["td1/ns/foo/sa/*", "td2/ns/foo/sa/*"],
        );
        check(
            &mesh,
            &["td1/ns/foo/sa/"],
            &["td1/ns/foo/sa/", "td2/ns/foo/sa/"],
        );
    }

    #[test]
    fn a_leading_star_stays_for_the_domains_it_covers() {
        let mesh = mesh("new-td", &["old-td", "some-trustdomain"]);
        check(
            &mesh,
            &["*-td/ns/foo/sa/a"],
            &["*-td/ns/foo/sa/a", "some-trustdomain/ns/foo/sa/a"],
        );
        check(&mesh, &["*-other/ns/foo/sa/a"], &["*-other/ns/foo/sa/a"]);
    }

    #[test]
    fn a_trailing_star_expands_to_every_own_domain_and_loses_its_reach() {
        let mesh = mesh("td1", &["cluster.local"]);
        let all = ["td1/ns/foo/sa/a", "cluster.local/ns/foo/sa/a"];
        check(&mesh, &["cl*/ns/foo/sa/a"], &all);
        check(&mesh, &["td*/ns/foo/sa/a"], &all);
        check(&mesh, &["clx*/ns/foo/sa/a"], &["clx*/ns/foo/sa/a"]);
        // `cl*` does not point to the mesh where no own domain starts so
        check(
            &self::mesh("td1", &[]),
            &["cl*/ns/foo/sa/a"],
            &["cl*/ns/foo/sa/a"],
        );
    }

    #[test]
    fn cluster_local_is_a_pointer_even_where_it_is_no_own_domain() {
        check(
            &mesh("td1", &["old-td"]),
            &["cluster.local/ns/foo/sa/a"],
            &["td1/ns/foo/sa/a", "old-td/ns/foo/sa/a"],
        );
        check(
            &mesh("cluster.local", &[]),
            &["cluster.local/ns/foo/sa/a"],
            &["cluster.local/ns/foo/sa/a"],
        );
    }

    #[test]
    fn a_wildcard_alias_matches_from_its_side() {
        // aliases are meant to be plain, but Istio compares both ways
        check(
            &mesh("td1", &["old*"]),
            &["old-td/ns/foo/sa/a"],
            &["td1/ns/foo/sa/a", "old*/ns/foo/sa/a"],
        );
        check(
            &mesh("td1", &["*"]),
            &["x/ns/foo/sa/a"],
            &["td1/ns/foo/sa/a", "*/ns/foo/sa/a"],
        );
    }

    #[test]
    fn trust_domains_expand_only_when_equal() {
        let mesh = mesh("td1", &["td2", "cluster.local"]);
        let expand = |values: &[&str]| {
            let values: Vec<String> = values.iter().map(|v| (*v).to_owned()).collect();
            mesh.expand_trust_domains(&values)
        };
        assert_eq!(expand(&["td2"]), ["td1", "td2", "cluster.local"]);
        assert_eq!(expand(&["cluster.local"]), ["td1", "td2", "cluster.local"]);
        assert_eq!(
            expand(&["other", "td1"]),
            ["other", "td1", "td2", "cluster.local"]
        );
        assert_eq!(expand(&["td*", "*", "*2"]), ["td*", "*", "*2"]);
        assert_eq!(expand(&["x", "x"]), ["x"]);
        // unlike principals, `cluster.local` is no pointer here
        let values = ["cluster.local".to_owned()];
        assert_eq!(
            self::mesh("td1", &["td2"]).expand_trust_domains(&values),
            ["cluster.local"]
        );
    }
}
