//! The policies of a snapshot, lowered once per dialect, with the index that attaches them.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use crate::attachment::{Attached, EnforcementPoint, Index, Scope, attaches};
use crate::closing::Closing;
use crate::inventory::{Candidate, Inventory};
use crate::lower::{self, Lowered};
use crate::mesh::Mesh;
use crate::model::Dialect;
use crate::order::{self, Order, Placed};
use crate::peer_authentication::PeerAuthentications;
use crate::resource::{Action, AuthorizationPolicy, PolicyTest, RequestAuthentication, Resource};
use crate::slice::{Contents, Slice};
use crate::slices::Slices;
use crate::user::UserPolicy;

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

    /// Whether it applies at `point`.
    #[must_use]
    pub fn attaches(&self, point: &EnforcementPoint<'_>) -> bool {
        let manifest = self.manifest();
        manifest.is_some_and(|manifest| attaches(&Scope::from(manifest), point))
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
///
/// The next one is a copy: it shares the policies, and the slices of destinations that no changed policy
/// can reach.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    root_namespace: String,
    policies: Vec<Placed<Arc<Policy>>>,
    tokens: Vec<Placed<Arc<Resource>>>,
    user: Vec<Placed<Arc<UserPolicy>>>,
    peers: Vec<Placed<Arc<Resource>>>,
    tests: Vec<Placed<Arc<Resource>>>,
    closings: Vec<Placed<Arc<Closing>>>,
    policies_by_scope: Index<Placed<Arc<Policy>>>,
    tokens_by_scope: Index<Placed<Arc<Resource>>>,
    peer_authentications: Arc<PeerAuthentications>,
    peer_authentication_ports: Arc<Vec<u16>>,
    slices: Slices,
    /// Namespaces whose policies changed since the slices were made; the root namespace is all.
    changed: FxHashSet<Arc<str>>,
}

/// What a policy set makes of one resource.
#[derive(Clone, Debug, Default)]
pub(crate) struct Piece {
    pub(crate) policy: Option<Arc<Policy>>,
    /// A RequestAuthentication or PeerAuthentication.
    pub(crate) authentication: Option<Arc<Resource>>,
    pub(crate) user: Vec<Arc<UserPolicy>>,
    pub(crate) closing: Option<Arc<Closing>>,
    /// A PolicyTest.
    pub(crate) test: Option<Arc<Resource>>,
}

impl Piece {
    /// The piece of a resource that has one without being lowered.
    pub(crate) fn of(resource: &Arc<Resource>) -> Self {
        let authenticates = matches!(
            resource.as_ref(),
            Resource::RequestAuthentication(_) | Resource::PeerAuthentication(_)
        );
        Self {
            authentication: authenticates.then(|| Arc::clone(resource)),
            test: matches!(resource.as_ref(), Resource::PolicyTest(_))
                .then(|| Arc::clone(resource)),
            ..Self::default()
        }
    }

    /// True for what the set takes no notice of.
    pub(crate) fn is_empty(&self) -> bool {
        self.policy.is_none()
            && self.authentication.is_none()
            && self.user.is_empty()
            && self.closing.is_none()
            && self.test.is_none()
    }
}

impl Attached for Placed<Arc<Policy>> {
    fn scope(&self) -> Option<Scope<'_>> {
        self.item.manifest().map(Scope::from)
    }
}

impl Attached for Placed<Arc<Resource>> {
    fn scope(&self) -> Option<Scope<'_>> {
        match self.item.as_ref() {
            Resource::RequestAuthentication(policy) => Some(Scope::from(policy)),
            _ => None,
        }
    }
}

impl PolicySet {
    /// Gathers the policies of `resources`, of which `policies` and `user` were made.
    #[must_use]
    pub fn new(
        policies: Vec<Arc<Policy>>,
        user: Vec<Arc<UserPolicy>>,
        resources: &[Arc<Resource>],
        mesh: &Mesh,
    ) -> Self {
        fn placed<T>(items: impl IntoIterator<Item = T>) -> Vec<Placed<T>> {
            let items = (0u32..).map(Order::Document).zip(items);
            items
                .map(|(order, item)| Placed::new(order, item))
                .collect()
        }
        let of = |is: fn(&Resource) -> bool| {
            let of_kind = resources.iter().filter(move |r| is(r));
            placed(of_kind.cloned())
        };
        let mut set = Self::empty(mesh);
        set.policies = placed(policies);
        set.user = placed(user);
        set.tokens = of(|r| matches!(r, Resource::RequestAuthentication(_)));
        set.peers = of(|r| matches!(r, Resource::PeerAuthentication(_)));
        set.tests = of(|r| matches!(r, Resource::PolicyTest(_)));
        set.policies_by_scope = Index::build(set.policies.iter().cloned());
        set.tokens_by_scope = Index::build(set.tokens.iter().cloned());
        set.gather_peers();
        set
    }

    /// Without any policy.
    pub(crate) fn empty(mesh: &Mesh) -> Self {
        Self {
            root_namespace: mesh.root_namespace.clone(),
            ..Self::default()
        }
    }

    /// Takes out the piece that stands at `order`. What follows from it is right after [`Self::settle`].
    pub(crate) fn remove(&mut self, order: &Order, piece: &Piece) {
        if piece.policy.is_some() {
            order::take(&mut self.policies, order);
        }
        match piece.authentication.as_deref() {
            Some(Resource::RequestAuthentication(_)) => order::take(&mut self.tokens, order),
            Some(Resource::PeerAuthentication(_)) => order::take(&mut self.peers, order),
            _ => {}
        }
        if !piece.user.is_empty() {
            order::take(&mut self.user, order);
        }
        if piece.closing.is_some() {
            order::take(&mut self.closings, order);
        }
        if piece.test.is_some() {
            order::take(&mut self.tests, order);
        }
        self.touch(piece);
    }

    /// Takes in a piece that stands at `order`. What follows from it is right after [`Self::settle`].
    pub(crate) fn insert(&mut self, order: &Order, piece: &Piece) {
        fn put<T>(list: &mut Vec<Placed<Arc<T>>>, order: &Order, item: &Arc<T>) {
            order::put(list, Placed::new(order.clone(), Arc::clone(item)));
        }
        if let Some(policy) = &piece.policy {
            put(&mut self.policies, order, policy);
        }
        if let Some(resource) = &piece.authentication {
            match resource.as_ref() {
                Resource::RequestAuthentication(_) => put(&mut self.tokens, order, resource),
                Resource::PeerAuthentication(_) => put(&mut self.peers, order, resource),
                _ => {}
            }
        }
        for user in &piece.user {
            put(&mut self.user, order, user);
        }
        if let Some(closing) = &piece.closing {
            put(&mut self.closings, order, closing);
        }
        if let Some(test) = &piece.test {
            put(&mut self.tests, order, test);
        }
        self.touch(piece);
    }

    /// Brings the indexes up to date, and leaves behind the slices that changed policies may have been
    /// part of.
    pub(crate) fn settle(&mut self) {
        const MANY: usize = 32;
        if self.changed.is_empty() {
            return;
        }
        let changed = std::mem::take(&mut self.changed);
        if changed.len() > MANY {
            self.policies_by_scope = Index::build(self.policies.iter().cloned());
            self.tokens_by_scope = Index::build(self.tokens.iter().cloned());
        } else {
            for namespace in &changed {
                self.policies_by_scope.replace(namespace, &self.policies);
                self.tokens_by_scope.replace(namespace, &self.tokens);
            }
        }
        self.gather_peers();
        let all = changed.contains(self.root_namespace.as_str());
        let keep = |namespace: &str| !all && !changed.contains(namespace);
        self.slices = self.slices.keeping(keep);
    }

    /// True while what follows from changes is not up to date.
    pub(crate) fn is_unsettled(&self) -> bool {
        !self.changed.is_empty()
    }

    fn touch(&mut self, piece: &Piece) {
        let policy = piece.policy.as_ref().and_then(|policy| policy.manifest());
        let of_policy = policy.map(|policy| policy.meta.namespace.as_str());
        let of_authentication = match piece.authentication.as_deref() {
            Some(Resource::RequestAuthentication(policy)) => Some(policy.meta.namespace.as_str()),
            Some(Resource::PeerAuthentication(policy)) => Some(policy.meta.namespace.as_str()),
            _ => None,
        };
        let of_closing = piece.closing.as_ref().map(|c| c.key.namespace.as_ref());
        let root = self.root_namespace.as_str();
        // A user policy without a namespace lives in the root namespace.
        let of_user = piece.user.iter();
        let of_user = of_user.map(|user| user.namespace.as_deref().unwrap_or(root));
        let namespaces = [of_policy, of_authentication, of_closing];
        for namespace in namespaces.into_iter().flatten().chain(of_user) {
            if !self.changed.contains(namespace) {
                self.changed.insert(Arc::from(namespace));
            }
        }
    }

    fn gather_peers(&mut self) {
        let peers = self.peers.iter().map(|placed| Arc::clone(&placed.item));
        let resources: Vec<Arc<Resource>> = peers.collect();
        let ports = resources.iter().filter_map(|r| match r.as_ref() {
            Resource::PeerAuthentication(p) => Some(p.port_level.keys().copied()),
            _ => None,
        });
        let mut ports: Vec<u16> = ports.flatten().collect();
        ports.sort_unstable();
        ports.dedup();
        self.peer_authentication_ports = Arc::new(ports);
        let peers = PeerAuthentications::build(&resources, &self.root_namespace);
        self.peer_authentications = Arc::new(peers);
    }

    /// The mesh's root namespace.
    pub(crate) fn root_namespace(&self) -> &str {
        &self.root_namespace
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
        self.policies.iter().map(|placed| &placed.item)
    }

    /// Every user policy, in document order.
    pub fn all_user_policies(&self) -> impl Iterator<Item = &Arc<UserPolicy>> {
        self.user.iter().map(|placed| &placed.item)
    }

    /// Every RequestAuthentication, in document order.
    pub fn request_authentications(&self) -> impl Iterator<Item = &RequestAuthentication> {
        self.tokens
            .iter()
            .filter_map(|token| match token.item.as_ref() {
                Resource::RequestAuthentication(policy) => Some(policy),
                _ => None,
            })
    }

    /// Every PolicyTest, in document order. They decide nothing: their cases must hold.
    pub fn tests(&self) -> impl Iterator<Item = &PolicyTest> {
        self.tests
            .iter()
            .filter_map(|test| match test.item.as_ref() {
                Resource::PolicyTest(test) => Some(test),
                _ => None,
            })
    }

    /// Policies that were never seen good, and close what they select, by name.
    pub fn closings(&self) -> impl Iterator<Item = &Arc<Closing>> {
        self.closings.iter().map(|placed| &placed.item)
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

    /// The AuthorizationPolicies that apply at `point`, asking each of them: what is attached by the
    /// index is held against this.
    #[must_use]
    pub fn attached_policies(&self, point: &EnforcementPoint<'_>) -> Vec<&Arc<Policy>> {
        let policies = self.policies();
        policies.filter(|policy| policy.attaches(point)).collect()
    }

    /// The AuthorizationPolicies that apply at `point`, in document order.
    #[must_use]
    pub fn policies_at(&self, point: &EnforcementPoint<'_>) -> Vec<Arc<Policy>> {
        in_order(self.policies_by_scope.attached(point))
    }

    /// The RequestAuthentications that apply at `point`, in document order.
    #[must_use]
    pub fn tokens_at(&self, point: &EnforcementPoint<'_>) -> Vec<Arc<Resource>> {
        in_order(self.tokens_by_scope.attached(point))
    }

    /// User policies whose scope can hold at `point`.
    #[must_use]
    pub fn user_policies_at(&self, point: &EnforcementPoint<'_>) -> Vec<Arc<UserPolicy>> {
        let user = self.all_user_policies();
        user.filter(|user| user.selects(point)).cloned().collect()
    }

    /// What closes `point`.
    #[must_use]
    pub fn closings_at(&self, point: &EnforcementPoint<'_>) -> Vec<Arc<Closing>> {
        let closings = self.closings();
        closings.filter(|c| c.closes(point)).cloned().collect()
    }

    /// The slice of one place; `None` for a workload of another inventory.
    pub(crate) fn slice(
        &self,
        candidate: Candidate,
        dialect: Dialect,
        inventory: &Inventory,
    ) -> Option<Arc<Slice>> {
        let workload = inventory.workload_resource(candidate.workload)?;
        let service = candidate
            .service
            .and_then(|service| inventory.service_resource(service));
        let point = EnforcementPoint {
            workload: inventory.workload(candidate.workload)?,
            target: candidate.target,
            service: candidate.service.and_then(|s| inventory.service(s)),
            root_namespace: &self.root_namespace,
        };
        let contents = || Contents::at(&point, dialect, self);
        let place = (workload, service, candidate.target, dialect);
        Some(self.slices.at(place, &point, contents))
    }

    /// Makes the slices of every workload on its own target.
    pub(crate) fn make_ahead(&self, inventory: &Inventory) {
        self.slices.ahead(inventory, |candidate, dialect| {
            self.slice(candidate, dialect, inventory)
        });
    }
}

fn in_order<T: Clone>(mut found: Vec<&Placed<T>>) -> Vec<T> {
    found.sort_by(|a, b| a.order.cmp(&b.order));
    found
        .into_iter()
        .map(|placed| placed.item.clone())
        .collect()
}
