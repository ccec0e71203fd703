-- Authorities of WIT-SVIDs: a third kind. SQLite changes no CHECK, so the table is made anew.
CREATE TABLE authorities_anew (
    id           TEXT PRIMARY KEY,
    kind         TEXT NOT NULL CHECK (kind IN ('x509', 'jwt', 'wit')),
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

INSERT INTO authorities_anew SELECT * FROM authorities ORDER BY rowid;
DROP TABLE authorities;
ALTER TABLE authorities_anew RENAME TO authorities;

CREATE UNIQUE INDEX one_active ON authorities (kind) WHERE state = 'active';
