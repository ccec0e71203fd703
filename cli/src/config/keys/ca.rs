//! The certificate authority.

use super::{Key, key};

/// The keys, parents before children.
pub const KEYS: &[Key] = &[
    key(
        "ca",
        "mapping",
        "empty",
        "The certificate authority: `ca serve` and `ca init`",
    ),
    key(
        "ca.trust_domain",
        "trust domain",
        "that of the data folder, else `example.org`",
        "Trust domain, with or without `spiffe://`. `--trust-domain` and PORTCULLIS_CA_TRUST_DOMAIN win",
    ),
    key(
        "ca.data",
        "path",
        "`/var/lib/portcullis/ca` for root, `~/.local/state/portcullis/ca` for others",
        "Folder of database, keys, journal and admin socket, relative to this file. `--data` and PORTCULLIS_CA_DATA win",
    ),
    key(
        "ca.socket",
        "path",
        "`workload.sock` in the data folder",
        "Socket for workloads, relative to this file. `--socket` and PORTCULLIS_CA_SOCKET win",
    ),
    key(
        "ca.x509_ttl",
        "lifetime",
        "`1h`",
        "Lifetime of X.509-SVIDs whose entry says nothing",
    ),
    key(
        "ca.jwt_ttl",
        "lifetime",
        "`5m`",
        "Lifetime of JWT-SVIDs whose entry says nothing",
    ),
    key(
        "ca.authority_ttl",
        "lifetime",
        "`24h`",
        "Lifetime of signing authorities; successors take over by themselves. An intermediate ends with its upstream authority",
    ),
    key(
        "ca.x509_key",
        "`ec-p256`, `ec-p384` or `ed25519`",
        "`ec-p256`",
        "Kind of key of new X.509 authorities",
    ),
    key(
        "ca.jwt_key",
        "`ec-p256` or `ec-p384`",
        "`ec-p256`",
        "Kind of key of new JWT authorities: ES256 or ES384",
    ),
    key(
        "ca.jwt_issuer",
        "URL",
        "none",
        "`iss` of JWT-SVIDs, for validators that ask for one",
    ),
    key(
        "ca.keys",
        "`disk` or `memory`",
        "`disk`",
        "Where private keys of authorities are: in encrypted files below the data folder, or in memory, where they end with the process",
    ),
    key(
        "ca.passphrase_file",
        "path",
        "none",
        "File with the passphrase that keys on disk are encrypted with. Without one, and without PORTCULLIS_CA_PASSPHRASE, a random key in `keys/secret` encrypts them",
    ),
    key(
        "ca.upstream",
        "mapping",
        "none",
        "The authority that signs ours; without one ours are roots",
    ),
    key(
        "ca.upstream.certificate",
        "path",
        "none",
        "Its certificate, PEM; the chain up to the root may follow, and what comes last stands in the bundle",
    ),
    key(
        "ca.upstream.key",
        "path",
        "none",
        "Its private key, PEM, not encrypted",
    ),
];
