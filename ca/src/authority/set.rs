//! All authorities at one moment, and the bundle that follows from them.

use std::sync::Arc;
use std::time::Duration;

use super::Authority;
use crate::bundle::{Bundle, JwtAuthority, JwtKey, X509Authority};
use crate::store::{AuthorityKind, AuthorityState};
use crate::trust_domain::TrustDomain;

/// All authorities, oldest first, and our bundle. Immutable: a change is a new set, swapped whole.
#[derive(Clone, Debug)]
pub struct AuthoritySet {
    authorities: Vec<Arc<Authority>>,
    bundle: Arc<Bundle>,
}

impl AuthoritySet {
    /// A set, whose bundle has `sequence`.
    #[must_use]
    pub fn new(
        authorities: Vec<Arc<Authority>>,
        trust_domain: &TrustDomain,
        sequence: u64,
        refresh_hint: Duration,
    ) -> Self {
        let mut bundle = Bundle::empty(trust_domain.clone());
        bundle.sequence = sequence;
        bundle.refresh_hint = Some(refresh_hint);
        for authority in authorities
            .iter()
            .filter(|authority| authority.is_published())
        {
            add(&mut bundle, authority);
        }
        Self {
            authorities,
            bundle: Arc::new(bundle),
        }
    }

    /// Every authority, oldest first.
    #[must_use]
    pub fn all(&self) -> &[Arc<Authority>] {
        &self.authorities
    }

    /// Our bundle.
    #[must_use]
    pub fn bundle(&self) -> &Arc<Bundle> {
        &self.bundle
    }

    /// The authority that signs.
    #[must_use]
    pub fn active(&self, kind: AuthorityKind) -> Option<&Arc<Authority>> {
        self.newest(kind, AuthorityState::Active)
    }

    /// The newest authority in a state.
    #[must_use]
    pub fn newest(&self, kind: AuthorityKind, state: AuthorityState) -> Option<&Arc<Authority>> {
        let mut newest_first = self.authorities.iter().rev();
        newest_first.find(|authority| authority.row.kind == kind && authority.row.state == state)
    }

    /// The authority with an identifier.
    #[must_use]
    pub fn with_id(&self, kind: AuthorityKind, id: &str) -> Option<&Arc<Authority>> {
        let mut all = self.authorities.iter();
        all.find(|authority| authority.row.kind == kind && authority.row.id == id)
    }
}

fn add(bundle: &mut Bundle, authority: &Authority) {
    let tainted = authority.row.state == AuthorityState::Tainted;
    match authority.row.kind {
        AuthorityKind::X509 => {
            let Some(root) = &authority.row.root else {
                return;
            };
            // Intermediates under the same root have one place in the bundle.
            if !bundle
                .x509_authorities
                .iter()
                .any(|known| known.der == *root)
            {
                let is_own = authority
                    .x509
                    .as_ref()
                    .is_some_and(|parts| parts.chain.is_empty());
                bundle.x509_authorities.push(X509Authority {
                    der: root.clone(),
                    // A tainted intermediate says nothing of its root.
                    tainted: tainted && is_own,
                });
            }
        }
        AuthorityKind::Jwt | AuthorityKind::Wit => {
            if let Ok(key) = JwtKey::from_spki(&authority.row.public_key) {
                let authorities = match authority.row.kind {
                    AuthorityKind::Wit => &mut bundle.wit_authorities,
                    _ => &mut bundle.jwt_authorities,
                };
                authorities.push(JwtAuthority {
                    key_id: authority.row.id.clone(),
                    key,
                    expires_at: Some(authority.row.not_after),
                    tainted,
                });
            }
        }
    }
}
