//! What is told of the Kubernetes cluster that workloads run in.
//!
//! Plain data: who follows the cluster fills it, metrics, health and status read it, and neither knows the other.

use std::fmt;
use std::time::Duration;

/// Knows how the cluster is followed.
pub trait ClusterView: fmt::Debug + Send + Sync {
    /// How it goes now.
    fn status(&self) -> ClusterStatus;
}

/// How the cluster is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterStatus {
    /// The node whose pods are attested; empty where none are.
    pub node: String,
    /// Attestation of pods.
    pub attestor: Option<AttestorStatus>,
    /// Entries from ClusterSPIFFEIDs.
    pub entries: Option<EntriesStatus>,
    /// Each resource that is followed.
    pub followed: Vec<Followed>,
}

/// Attestation of pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttestorStatus {
    /// Pods of the node that are known.
    pub pods: usize,
    /// How attestations ended: word and count.
    pub attested: Vec<(&'static str, u64)>,
    /// How often the API server was asked past the watch.
    pub looks: u64,
}

/// Entries from ClusterSPIFFEIDs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntriesStatus {
    /// ClusterSPIFFEIDs that are ours to render.
    pub cluster_spiffe_ids: usize,
    /// Entries that they make.
    pub entries: usize,
    /// Pods for which one could not be rendered.
    pub render_failures: usize,
    /// Entries that the registry refused.
    pub entry_failures: usize,
    /// Entries that were created, updated and deleted since the start.
    pub changes: [u64; 3],
    /// What is wrong, one sentence each.
    pub troubles: Vec<String>,
}

/// One resource that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// As roles name it, `pods`; `pods of this node` for those that are attested.
    pub resource: &'static str,
    /// All of them were known once.
    pub is_synced: bool,
    /// The service account may not.
    pub is_forbidden: bool,
    /// The kind is not defined in the cluster: nobody waits for it.
    pub is_absent: bool,
    /// What is wrong; `None`: changes come.
    pub trouble: Option<String>,
    /// How long ago the server last said anything of it.
    pub age: Option<Duration>,
}

impl ClusterStatus {
    /// Reasons for which pods get no identities.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let all = self.followed.iter();
        let missing = all.filter(|one| one.is_forbidden || !(one.is_synced || one.is_absent));
        missing.filter_map(|one| one.trouble.clone()).collect()
    }

    /// What an operator has to look at, while everything works.
    #[must_use]
    pub fn alarms(&self) -> Vec<String> {
        let all = self.followed.iter();
        let stale = all.filter(|one| (one.is_synced || one.is_absent) && !one.is_forbidden);
        let mut alarms: Vec<String> = stale
            .filter_map(|one| {
                let trouble = one.trouble.as_ref()?;
                Some(match one.age {
                    Some(age) => format!("{trouble}; what is known is {} s old", age.as_secs()),
                    None => trouble.clone(),
                })
            })
            .collect();
        if let Some(entries) = &self.entries {
            alarms.extend(entries.troubles.iter().cloned());
        }
        alarms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_known_is_a_reason_and_what_is_old_an_alarm() {
        let followed = |is_synced, is_forbidden, trouble: Option<&str>| Followed {
            resource: "pods",
            is_synced,
            is_forbidden,
            is_absent: false,
            trouble: trouble.map(str::to_owned),
            age: Some(Duration::from_secs(7)),
        };
        for (one, reasons, alarms) in [
            (followed(true, false, None), 0, 0),
            (followed(false, false, Some("unknown")), 1, 0),
            (followed(true, false, Some("lost")), 0, 1),
            (followed(true, true, Some("may not `watch`")), 1, 0),
        ] {
            let status = ClusterStatus {
                followed: vec![one.clone()],
                ..ClusterStatus::default()
            };
            assert_eq!(status.reasons().len(), reasons, "{one:?}");
            assert_eq!(status.alarms().len(), alarms, "{one:?}");
        }
        let status = ClusterStatus {
            followed: vec![followed(true, false, Some("lost"))],
            ..ClusterStatus::default()
        };
        assert_eq!(status.alarms(), ["lost; what is known is 7 s old"]);
        let mut absent = followed(false, false, Some("not defined"));
        (absent.is_absent, absent.age) = (true, None);
        let status = ClusterStatus {
            followed: vec![absent],
            ..ClusterStatus::default()
        };
        assert_eq!(status.reasons(), [""; 0]);
        assert_eq!(status.alarms(), ["not defined"]);
    }
}
