//! Certificate revocation lists (RFC 5280 §5), written out as certificates are.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use super::certificate::{extension, time};
use crate::der;
use crate::key::KeyAlgorithm;

/// Why a certificate is revoked (RFC 5280 §5.3.1): those that make sense for a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not said; the list then says nothing, as §5.3.1 asks.
    Unspecified,
    /// Somebody else has its key.
    KeyCompromise,
    /// There is another one.
    Superseded,
    /// The workload is gone.
    CessationOfOperation,
    /// The workload is no longer entitled to it.
    PrivilegeWithdrawn,
}

/// A word that is no reason.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is no reason for a revocation: use unspecified, key-compromise, superseded, cessation-of-operation or privilege-withdrawn"
)]
pub struct UnknownReason(String);

impl Reason {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::PrivilegeWithdrawn,
    ];

    /// The word in tables, journal and commands.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "key-compromise",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessation-of-operation",
            Self::PrivilegeWithdrawn => "privilege-withdrawn",
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
            Self::PrivilegeWithdrawn => 9,
        }
    }
}

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(word: &str) -> Result<Self, UnknownReason> {
        let mut all = Self::ALL.into_iter();
        all.find(|reason| reason.as_str() == word)
            .ok_or_else(|| UnknownReason(crate::trust_domain::shorten(word)))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One revoked certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Its serial number, big-endian.
    pub serial: Vec<u8>,
    /// Since when; whole seconds.
    pub at: SystemTime,
    /// Why.
    pub reason: Reason,
}

/// What a list is to say, before it is signed.
#[derive(Clone, Debug)]
pub struct Template<'a> {
    /// Issuer's subject, DER.
    pub issuer: &'a [u8],
    /// Issuer's subject key identifier.
    pub issuer_key_id: &'a [u8],
    /// Greater than that of every list before it (§5.2.3).
    pub number: u64,
    /// When it was made; whole seconds.
    pub this_update: SystemTime,
    /// When there is a newer one at the latest; whole seconds.
    pub next_update: SystemTime,
    /// What it lists.
    pub revoked: &'a [Revoked],
}

impl Template<'_> {
    /// The `TBSCertList` (§5.1.2), to be signed by a key of `algorithm`.
    #[must_use]
    pub fn to_be_signed(&self, algorithm: KeyAlgorithm) -> Vec<u8> {
        let mut parts = vec![
            // version 2
            der::unsigned(&[1]),
            algorithm.signature_identifier(),
            self.issuer.to_vec(),
            time(self.this_update),
            time(self.next_update),
        ];
        let revoked: Vec<Vec<u8>> = self.revoked.iter().map(entry).collect();
        // Absent where there are none (§5.1.2.6).
        if !revoked.is_empty() {
            parts.push(der::sequence(&revoked));
        }
        let extensions = [
            // authorityKeyIdentifier (§5.2.1).
            extension(
                &[0x55, 0x1d, 0x23],
                false,
                &der::sequence(&[der::value(0x80, self.issuer_key_id)]),
            ),
            // cRLNumber (§5.2.3).
            extension(
                &[0x55, 0x1d, 0x14],
                false,
                &der::unsigned(&self.number.to_be_bytes()),
            ),
        ];
        parts.push(der::value(0xa0, &der::sequence(&extensions)));
        der::sequence(&parts)
    }
}

fn entry(revoked: &Revoked) -> Vec<u8> {
    let mut parts = vec![der::unsigned(&revoked.serial), time(revoked.at)];
    if revoked.reason != Reason::Unspecified {
        let code = der::value(0x0a, &[revoked.reason.code()]);
        // reasonCode (§5.3.1).
        parts.push(der::sequence(&[extension(
            &[0x55, 0x1d, 0x15],
            false,
            &code,
        )]));
    }
    der::sequence(&parts)
}
