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
    key(
        "ca.refresh_hint",
        "lifetime",
        "`5m`, at most a twelfth of `ca.authority_ttl`",
        "How often those who poll our bundle should look. Where it is served, a new authority is published for three of these before it signs",
    ),
    key(
        "ca.bundle_endpoint",
        "mapping",
        "none",
        "Serves our bundle to other trust domains over https (SPIFFE Federation). Without `certificate` and `key` in the profile https_spiffe: the listener shows the X.509-SVID `spiffe://TD/spire/server`; with them in https_web",
    ),
    key(
        "ca.bundle_endpoint.listen",
        "`IP:PORT` or `unix:PATH`",
        "required",
        "Where",
    ),
    key(
        "ca.bundle_endpoint.certificate",
        "path",
        "none",
        "Certificate for the host name, PEM, leaf first; a changed file is taken over",
    ),
    key(
        "ca.bundle_endpoint.key",
        "path",
        "none",
        "Its private key, PEM, not encrypted",
    ),
    key(
        "ca.oidc",
        "mapping",
        "none",
        "Serves `/.well-known/openid-configuration` and `/keys`, so that OpenID Connect clients (clouds, Vault) accept our JWT-SVIDs",
    ),
    key(
        "ca.oidc.issuer",
        "URL",
        "`ca.jwt_issuer`",
        "URL that clients look it up by, `https://...`; it is `iss` of every JWT-SVID",
    ),
    key(
        "ca.oidc.listen",
        "`IP:PORT` or `unix:PATH`",
        "required",
        "Where. Without `certificate` and `key` on this machine only, for a proxy in front",
    ),
    key(
        "ca.oidc.certificate",
        "path",
        "none",
        "Certificate for the host name, PEM, leaf first; a changed file is taken over",
    ),
    key(
        "ca.oidc.key",
        "path",
        "none",
        "Its private key, PEM, not encrypted",
    ),
    key(
        "ca.revocation",
        "boolean",
        "`false`",
        "Whether single X.509-SVIDs can be revoked: each X.509 authority then has a revocation list, which workloads get with their SVIDs and `ca crl` shows",
    ),
    key(
        "ca.management",
        "mapping",
        "none",
        "The listener for operators and their tools: plain HTTP with `/metrics`, `/livez` and `/readyz`, so on this machine or in a network that may know",
    ),
    key(
        "ca.management.address",
        "`IP:PORT` or `unix:PATH`",
        "none",
        "Address of the socket; not that of `management`, which is the authorization service's",
    ),
    key(
        "ca.federation",
        "mapping",
        "empty",
        "How bundles of other trust domains are fetched; `ca federation create` says which",
    ),
    key(
        "ca.federation.authorities",
        "path",
        "none",
        "Certificate authorities for endpoints of the profile https_web, PEM, beside those of the operating system",
    ),
    key(
        "ca.federation.interval",
        "lifetime",
        "`30s`",
        "No bundle is fetched more often, whatever its refresh hint says",
    ),
];
