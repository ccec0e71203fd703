//! `portcullis.ca.v1.Status`: everything at a glance.

use std::time::{Duration, SystemTime};

use tonic::{Request, Response, Status};

use super::Admin;
use crate::authority::Authority;
use crate::ca::{Ca, rotation_times};
use crate::clock::unix_seconds;
use crate::federation::{EndpointProfile, Relationship};
use crate::identities::Identities as _;
use crate::observe::cluster::ClusterStatus;
use crate::observe::health::alarms;
use crate::proto::status as api;
use crate::store::AuthorityState;

#[tonic::async_trait]
impl api::status_server::Status for Admin {
    async fn get_status(
        &self,
        _: Request<api::GetStatusRequest>,
    ) -> Result<Response<api::GetStatusResponse>, Status> {
        let ca = &self.ca;
        let set = ca.authorities();
        let (entries, revision) = {
            let index = ca.registry().index();
            (index.len(), index.revision())
        };
        let sequence = set.bundle().sequence;
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Ok(Response::new(api::GetStatusResponse {
            trust_domain: ca.trust_domain().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: unix_seconds(ca.started()),
            entries: count(entries),
            revision,
            bundle_sequence: sequence,
            streams: count(ca.deliveries().live()),
            streams_behind: count(ca.deliveries().behind(sequence)),
            federated_bundles: count(ca.registry().bundles().len()),
            authorities: set
                .all()
                .iter()
                .map(|authority| to_authority(authority))
                .collect(),
            now: unix_seconds(ca.clock().now()),
            federations: {
                let known = ca.registry().federations();
                known.values().map(|one| to_federation(ca, one)).collect()
            },
            alarms: alarms(ca),
            cluster: ca.observer().cluster().map(to_cluster),
        }))
    }
}

fn to_cluster(cluster: ClusterStatus) -> api::Cluster {
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let entries = cluster.entries.unwrap_or_default();
    let followed = cluster.followed.into_iter().map(|one| api::Followed {
        resource: one.resource.to_owned(),
        trouble: one.trouble.unwrap_or_default(),
        age: one
            .age
            .map_or(-1, |age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX)),
    });
    api::Cluster {
        node: cluster.node,
        pods: cluster.attestor.map_or(0, |attestor| count(attestor.pods)),
        followed: followed.collect(),
        cluster_spiffe_ids: count(entries.cluster_spiffe_ids),
        entries: count(entries.entries),
    }
}

fn to_federation(ca: &Ca, relationship: &Relationship) -> api::Federation {
    let name = &relationship.trust_domain;
    let status = ca.refresher().status(name);
    let seconds = |time: Option<SystemTime>| time.map_or(0, unix_seconds);
    api::Federation {
        trust_domain: name.to_string(),
        url: relationship.url.to_string(),
        profile: relationship.profile.as_str().to_owned(),
        endpoint_spiffe_id: match &relationship.profile {
            EndpointProfile::HttpsWeb => String::new(),
            EndpointProfile::HttpsSpiffe(id) => id.to_string(),
        },
        sequence: ca
            .registry()
            .bundle(name)
            .map_or(0, |bundle| bundle.sequence),
        refreshed_at: seconds(status.refreshed_at),
        next_at: seconds(status.next_at),
        failures: status.failures,
        error: status.error.unwrap_or_default(),
    }
}

fn to_authority(authority: &Authority) -> api::Authority {
    let row = &authority.row;
    let seconds = |time: Option<SystemTime>| time.map_or(0, unix_seconds);
    let mut message = api::Authority {
        id: row.id.clone(),
        kind: row.kind.as_str().to_owned(),
        state: row.state.as_str().to_owned(),
        algorithm: row.algorithm.clone(),
        not_before: unix_seconds(row.not_before),
        not_after: unix_seconds(row.not_after),
        prepared_at: unix_seconds(row.prepared_at),
        activated_at: seconds(row.activated_at),
        retired_at: seconds(row.retired_at),
        tainted_at: seconds(row.tainted_at),
        revoked_at: seconds(row.revoked_at),
        published: row.published,
        successor_prepared_at: 0,
        successor_activated_at: 0,
        has_key: authority.key.is_some(),
    };
    if row.state == AuthorityState::Active {
        let before_end = |left: Duration| seconds(row.not_after.checked_sub(left));
        let times = rotation_times(row);
        message.successor_prepared_at = before_end(times.prepare);
        message.successor_activated_at = before_end(times.activate);
    }
    message
}
