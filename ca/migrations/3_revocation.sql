-- X.509-SVIDs that are revoked before their end.
CREATE TABLE revocations (
    serial     TEXT PRIMARY KEY,
    authority  TEXT NOT NULL,
    reason     TEXT NOT NULL,
    revoked_at INTEGER NOT NULL,
    not_after  INTEGER NOT NULL
) STRICT;

-- The newest revocation list of each authority: its number never goes back.
CREATE TABLE revocation_lists (
    authority   TEXT PRIMARY KEY,
    number      INTEGER NOT NULL,
    this_update INTEGER NOT NULL,
    next_update INTEGER NOT NULL,
    entries     INTEGER NOT NULL,
    der         BLOB NOT NULL
) STRICT;
