//! X.509 authorities: a root of our own, or an intermediate under one from disk.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::upstream::Upstream;
use super::{Authority, AuthorityError, X509Parts};
use crate::key::{self, KeyAlgorithm, MemoryKey, SigningKey};
use crate::spiffe_id::SpiffeId;
use crate::store::{AuthorityKind, AuthorityRow, AuthorityState};
use crate::trust_domain::TrustDomain;
use crate::x509::certificate::{
    self, Attribute, KeyUsage, Serial, Template, hex, key_id, whole_seconds,
};
use crate::x509::conform;
use crate::x509::csr::ProvenKey;
use crate::x509::profile::{Issuer, LeafRequest, ORGANIZATION, X509Profile};

/// How an X.509 authority is made.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    /// For whom.
    pub trust_domain: &'a TrustDomain,
    /// How long it lives; not longer than the upstream authority.
    pub ttl: Duration,
    /// How far its start lies back.
    pub backdate: Duration,
    /// Who signs it; `None`: itself.
    pub upstream: Option<&'a Upstream>,
}

/// Makes an authority, prepared. Its subject has its serial number in it: roots that share a subject run into
/// verifiers' limits.
///
/// # Errors
/// When a key fails, or the upstream authority's time is over.
pub async fn make(
    plan: Plan<'_>,
    key: Arc<dyn SigningKey>,
    now: SystemTime,
) -> Result<Authority, AuthorityError> {
    let now = whole_seconds(now);
    let public = ProvenKey::made_here(key.public_key())
        .map_err(|error| AuthorityError::Store(error.to_string()))?;
    let serial = Serial::random()?;
    let subject = certificate::name(&[
        (Attribute::Organization, ORGANIZATION),
        (Attribute::SerialNumber, &serial.to_hex()),
    ]);
    let own_id = key_id(public.bits());
    let end = now.checked_add(plan.ttl).unwrap_or(now);
    let start = now.checked_sub(plan.backdate).unwrap_or(now);
    let (issuer, issuer_key_id, not_after) = match plan.upstream {
        None => (&subject[..], &own_id[..], end),
        Some(upstream) if upstream.not_after() <= now => {
            return Err(AuthorityError::Upstream(
                "its certificate has expired".to_owned(),
            ));
        }
        Some(upstream) => (
            upstream.subject(),
            upstream.key_id(),
            end.min(upstream.not_after()),
        ),
    };
    let spiffe_id = SpiffeId::of_trust_domain(plan.trust_domain);
    let template = Template {
        serial,
        issuer,
        subject: &subject,
        not_before: start,
        not_after,
        public_key: key.public_key(),
        spiffe_id: &spiffe_id,
        dns_names: &[],
        is_ca: true,
        key_usage: KeyUsage::CA,
        issuer_key_id,
    };
    let signer = plan.upstream.map_or(&*key, Upstream::key);
    let der = Bytes::from(certificate::sign(&template, public.bits(), signer).await?);
    conform::authority(&der, plan.trust_domain).map_err(|refusal| AuthorityError::Rehearsal {
        id: hex(&own_id),
        cause: refusal.to_string(),
    })?;
    let (stored, root) = match plan.upstream {
        None => (der.clone(), der),
        // What goes with every leaf: ours, then those up to the root, without it.
        Some(upstream) => {
            let chain = [&[der][..], upstream.intermediates()].concat();
            (Bytes::from(chain.concat()), upstream.root().clone())
        }
    };
    let row = AuthorityRow {
        id: hex(&own_id),
        kind: AuthorityKind::X509,
        state: AuthorityState::Prepared,
        algorithm: key.algorithm().as_str().to_owned(),
        public_key: key.public_key().clone(),
        certificate: Some(stored),
        root: Some(root),
        not_before: start,
        not_after,
        published: 0,
        prepared_at: now,
        activated_at: None,
        retired_at: None,
        tainted_at: None,
        revoked_at: None,
    };
    from_row(row, Some(key))
}

/// An authority from what is stored of it.
///
/// # Errors
/// When its certificate is unreadable.
pub fn from_row(
    row: AuthorityRow,
    key: Option<Arc<dyn SigningKey>>,
) -> Result<Authority, AuthorityError> {
    let unreadable = || {
        AuthorityError::Store(format!(
            "the certificate of authority `{}` is unreadable",
            row.id
        ))
    };
    let all = row.certificate.clone().unwrap_or_default();
    let mut chain = Vec::new();
    let mut rest = &all[..];
    while !rest.is_empty() {
        let (after, _) = X509Certificate::from_der(rest).map_err(|_| unreadable())?;
        let length = rest.len() - after.len();
        chain.push(Bytes::copy_from_slice(
            rest.get(..length).unwrap_or_default(),
        ));
        rest = after;
    }
    let first = chain.first().ok_or_else(unreadable)?;
    let (_, parsed) = X509Certificate::from_der(first).map_err(|_| unreadable())?;
    let parts = X509Parts {
        subject: Bytes::copy_from_slice(parsed.subject().as_raw()),
        key_id: key_id(&parsed.public_key().subject_public_key.data).into(),
        // A root stands in the bundle: it is not sent.
        chain: match row.root.as_ref() == chain.first() {
            true => Vec::new(),
            false => chain,
        },
    };
    Ok(Authority {
        row,
        key,
        x509: Some(parts),
    })
}

impl Authority {
    /// What it is to those it signs for; `None` for a JWT authority.
    #[must_use]
    pub fn issuer(&self) -> Option<Issuer<'_>> {
        let parts = self.x509.as_ref()?;
        Some(Issuer {
            subject: &parts.subject,
            key_id: &parts.key_id,
            algorithm: self.key.as_ref()?.algorithm(),
            not_before: self.row.not_before,
            not_after: self.row.not_after,
        })
    }
}

/// Signs a throwaway SVID and checks it, and its signature, before anybody depends on the authority.
///
/// # Errors
/// With what was wrong.
pub async fn rehearse(
    authority: &Authority,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<(), AuthorityError> {
    let failed = |cause: String| AuthorityError::Rehearsal {
        id: authority.row.id.clone(),
        cause,
    };
    let (Some(issuer), Some(key)) = (authority.issuer(), &authority.key) else {
        return Err(AuthorityError::KeyGone(authority.row.id.clone()));
    };
    let throwaway = MemoryKey::generate(KeyAlgorithm::P256)?;
    let second = Duration::from_secs(1);
    let profile = X509Profile::new(trust_domain.clone(), second, second, second);
    let request = LeafRequest {
        spiffe_id: SpiffeId::new(trust_domain, "/spire/throwaway")
            .map_err(|error| failed(error.to_string()))?,
        dns_names: Vec::new(),
        ttl: None,
        key: ProvenKey::made_here(throwaway.public_key())
            .map_err(|error| failed(error.to_string()))?,
    };
    let prepared = profile
        .prepare(request, issuer, now)
        .map_err(|error| failed(error.to_string()))?;
    let signature = key.sign(prepared.to_be_signed()).await?;
    let public = ProvenKey::made_here(&authority.row.public_key)
        .map_err(|error| failed(error.to_string()))?;
    if !key::verify(
        issuer.algorithm,
        public.bits(),
        prepared.to_be_signed(),
        &signature,
    ) {
        return Err(failed(
            "its signature does not verify with its public key".to_owned(),
        ));
    }
    let leaf = prepared.clone().with_signature(&signature);
    conform::leaf(&leaf, &prepared, issuer).map_err(|refusal| failed(refusal.to_string()))
}
