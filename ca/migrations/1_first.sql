-- What the process cannot do without: names, numbers that only grow.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- Signing authorities and their lives. Private keys are elsewhere.
CREATE TABLE authorities (
    id           TEXT PRIMARY KEY,
    kind         TEXT NOT NULL CHECK (kind IN ('x509', 'jwt')),
    state        TEXT NOT NULL CHECK (state IN ('prepared', 'active', 'old', 'tainted', 'revoked')),
    algorithm    TEXT NOT NULL,
    public_key   BLOB NOT NULL,
    certificate  BLOB,
    root         BLOB,
    not_before   INTEGER NOT NULL,
    not_after    INTEGER NOT NULL,
    published    INTEGER NOT NULL,
    prepared_at  INTEGER NOT NULL,
    activated_at INTEGER,
    retired_at   INTEGER,
    tainted_at   INTEGER,
    revoked_at   INTEGER
) STRICT;

-- Never two active authorities of a kind, whatever races.
CREATE UNIQUE INDEX one_active ON authorities (kind) WHERE state = 'active';

-- Registration entries. Lists are JSON arrays: they are read whole, and looked up in memory.
CREATE TABLE entries (
    id              TEXT PRIMARY KEY,
    spiffe_id       TEXT NOT NULL,
    parent_id       TEXT NOT NULL,
    selectors       TEXT NOT NULL,
    x509_ttl        INTEGER,
    jwt_ttl         INTEGER,
    dns_names       TEXT NOT NULL,
    federates_with  TEXT NOT NULL,
    hint            TEXT NOT NULL,
    admin           INTEGER NOT NULL,
    downstream      INTEGER NOT NULL,
    store_svid      INTEGER NOT NULL,
    expires_at      INTEGER,
    revision_number INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    revision        INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX similar_entry ON entries (spiffe_id, parent_id, selectors);

-- Bundles of other trust domains, as SPIFFE documents.
CREATE TABLE bundles (
    trust_domain TEXT PRIMARY KEY,
    document     TEXT NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT;
