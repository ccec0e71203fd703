-- Where other trust domains publish their bundles.
CREATE TABLE federations (
    trust_domain TEXT PRIMARY KEY,
    url          TEXT NOT NULL,
    -- The SPIFFE ID of the endpoint; NULL is the profile https_web.
    endpoint_id  TEXT,
    created_at   INTEGER NOT NULL
) STRICT;
