//! The policies of a snapshot, lowered once per dialect, with the index that attaches them.

use std::sync::Arc;

use crate::attachment::{EnforcementPoint, Index, Scope, attaches};
use crate::closing::Closing;
use crate::lower::{self, Lowered};
use crate::mesh::Mesh;
use crate::model::Dialect;
use crate::peer_authentication::PeerAuthentications;
use crate::resource::{Action, AuthorizationPolicy, PolicyTest, RequestAuthentication, Resource};
use crate::user::UserPolicy;

/// A user policy of one policy set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserPolicyId(pub u32);

/// One AuthorizationPolicy, lowered.
#[derive(Clone, Debug)]
pub struct Policy {
    resource: Arc<Resource>,
    http: Lowered,
    tcp: Lowered,
    ztunnel: Lowered,
}

impl Policy {
    /// Lowers a policy; `None` for a resource of another kind.
    #[must_use]
    pub fn of(resource: &Arc<Resource>, mesh: &Mesh) -> Option<Self> {
        let Resource::AuthorizationPolicy(policy) = resource.as_ref() else {
            return None;
        };
        let lower = |dialect| lower::authorization_policy(policy, dialect, mesh);
        Some(Self {
            http: lower(Dialect::Http),
            tcp: lower(Dialect::Tcp),
            ztunnel: lower(Dialect::Ztunnel),
            resource: Arc::clone(resource),
        })
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> Option<&AuthorizationPolicy> {
        match self.resource.as_ref() {
            Resource::AuthorizationPolicy(policy) => Some(policy),
            _ => None,
        }
    }

    /// The resource it was lowered from.
    #[must_use]
    pub fn resource(&self) -> &Arc<Resource> {
        &self.resource
    }

    /// Its rules in one dialect.
    #[must_use]
    pub fn lowered(&self, dialect: Dialect) -> &Lowered {
        match dialect {
            Dialect::Http => &self.http,
            Dialect::Tcp => &self.tcp,
            Dialect::Ztunnel => &self.ztunnel,
        }
    }

    /// Its action.
    #[must_use]
    pub fn action(&self) -> Action {
        self.manifest().map_or(Action::Deny, |p| p.action)
    }

    /// On trial.
    #[must_use]
    pub fn dry_run(&self) -> bool {
        self.manifest().is_some_and(|p| p.dry_run == Some(true))
    }
}

/// Every policy of a snapshot.
#[derive(Debug)]
pub struct PolicySet {
    policies: Vec<Arc<Policy>>,
    tokens: Vec<Arc<Resource>>,
    user: Vec<Arc<UserPolicy>>,
    tests: Vec<Arc<Resource>>,
    peer_authentications: PeerAuthentications,
    peer_authentication_ports: Vec<u16>,
    closings: Vec<Arc<Closing>>,
}

impl PolicySet {
    /// Gathers the policies.
    #[must_use]
    pub fn new(
        policies: Vec<Arc<Policy>>,
        user: Vec<Arc<UserPolicy>>,
        resources: &[Arc<Resource>],
        mesh: &Mesh,
        closings: Vec<Arc<Closing>>,
    ) -> Self {
        let tokens: Vec<Arc<Resource>> = resources
            .iter()
            .filter(|r| matches!(r.as_ref(), Resource::RequestAuthentication(_)))
            .cloned()
            .collect();
        let mut ports: Vec<u16> = resources
            .iter()
            .filter_map(|r| match r.as_ref() {
                Resource::PeerAuthentication(p) => Some(p.port_level.keys().copied()),
                _ => None,
            })
            .flatten()
            .collect();
        ports.sort_unstable();
        ports.dedup();
        Self {
            policies,
            tokens,
            user,
            tests: resources
                .iter()
                .filter(|r| matches!(r.as_ref(), Resource::PolicyTest(_)))
                .cloned()
                .collect(),
            peer_authentications: PeerAuthentications::build(resources, &mesh.root_namespace),
            peer_authentication_ports: ports,
            closings,
        }
    }

    /// Number of AuthorizationPolicies and user policies.
    #[must_use]
    pub fn len(&self) -> usize {
        self.policies.len().saturating_add(self.user.len())
    }

    /// True without any policy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every AuthorizationPolicy, in document order.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.iter()
    }

    /// Every user policy, in document order.
    pub fn all_user_policies(&self) -> impl Iterator<Item = &Arc<UserPolicy>> {
        self.user.iter()
    }

    /// One AuthorizationPolicy.
    #[must_use]
    pub fn policy(&self, place: u32) -> Option<&Arc<Policy>> {
        self.policies.get(place as usize)
    }

    /// One user policy.
    #[must_use]
    pub fn user_policy(&self, id: UserPolicyId) -> Option<&Arc<UserPolicy>> {
        self.user.get(id.0 as usize)
    }

    /// Every RequestAuthentication, in document order.
    pub fn request_authentications(&self) -> impl Iterator<Item = &RequestAuthentication> {
        self.tokens.iter().filter_map(|token| match token.as_ref() {
            Resource::RequestAuthentication(policy) => Some(policy),
            _ => None,
        })
    }

    /// Every PolicyTest, in document order. They decide nothing: their cases must hold.
    pub fn tests(&self) -> impl Iterator<Item = &PolicyTest> {
        self.tests.iter().filter_map(|test| match test.as_ref() {
            Resource::PolicyTest(test) => Some(test),
            _ => None,
        })
    }

    /// One RequestAuthentication.
    #[must_use]
    pub fn request_authentication(&self, place: u32) -> Option<&RequestAuthentication> {
        match self.tokens.get(place as usize)?.as_ref() {
            Resource::RequestAuthentication(r) => Some(r),
            _ => None,
        }
    }

    /// The PeerAuthentications.
    #[must_use]
    pub fn peer_authentications(&self) -> &PeerAuthentications {
        &self.peer_authentications
    }

    /// Every port that some PeerAuthentication names, ascending.
    #[must_use]
    pub fn peer_authentication_ports(&self) -> &[u16] {
        &self.peer_authentication_ports
    }

    /// Policies that were never seen good, and close what they select.
    #[must_use]
    pub fn closings(&self) -> &[Arc<Closing>] {
        &self.closings
    }

    /// Places of the AuthorizationPolicies that apply at `point`, asking each of them; for many
    /// points an [`Attacher`] is faster.
    #[must_use]
    pub fn attached_policies(&self, point: &EnforcementPoint<'_>) -> Vec<u32> {
        (0u32..)
            .zip(&self.policies)
            .filter(|(_, p)| {
                p.manifest()
                    .is_some_and(|m| attaches(&Scope::from(m), point))
            })
            .map(|(place, _)| place)
            .collect()
    }

    /// Places of the RequestAuthentications that apply at `point`.
    #[must_use]
    pub fn attached_tokens(&self, point: &EnforcementPoint<'_>) -> Vec<u32> {
        (0u32..)
            .zip(&self.tokens)
            .filter(|(_, t)| match t.as_ref() {
                Resource::RequestAuthentication(r) => attaches(&Scope::from(r), point),
                _ => false,
            })
            .map(|(place, _)| place)
            .collect()
    }

    /// User policies whose scope can hold at `point`.
    #[must_use]
    pub fn user_policies(&self, point: &EnforcementPoint<'_>) -> Vec<UserPolicyId> {
        (0u32..)
            .zip(&self.user)
            .filter(|(_, user)| user.selects(point))
            .map(|(place, _)| UserPolicyId(place))
            .collect()
    }
}

/// Finds what applies where; borrows the policy set, so it is made for a batch of look-ups.
#[derive(Debug)]
pub struct Attacher<'a> {
    policies: Index<'a>,
    tokens: Index<'a>,
}

impl<'a> Attacher<'a> {
    /// Indexes a policy set.
    #[must_use]
    pub fn new(set: &'a PolicySet) -> Self {
        // Every entry keeps its place, so a manifest of the wrong kind would shift the rest: there
        // is none, by construction.
        Self {
            policies: Index::build(
                set.policies
                    .iter()
                    .filter_map(|p| p.manifest())
                    .map(Scope::from),
            ),
            tokens: Index::build(
                set.tokens
                    .iter()
                    .filter_map(|t| match t.as_ref() {
                        Resource::RequestAuthentication(r) => Some(r),
                        _ => None,
                    })
                    .map(Scope::from),
            ),
        }
    }

    /// Places of the AuthorizationPolicies that apply at `point`.
    #[must_use]
    pub fn policies(&self, point: &EnforcementPoint<'_>) -> Vec<u32> {
        self.policies.attached(point)
    }

    /// Places of the RequestAuthentications that apply at `point`.
    #[must_use]
    pub fn tokens(&self, point: &EnforcementPoint<'_>) -> Vec<u32> {
        self.tokens.attached(point)
    }
}
