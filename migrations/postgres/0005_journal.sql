-- The event journal, what was consumed, remembered answers, and the audit trail.

CREATE TABLE events (
    position     BIGINT NOT NULL PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    tenant       TEXT COLLATE "C" NOT NULL,
    event_id     TEXT COLLATE "C" NOT NULL,
    topic        TEXT COLLATE "C" NOT NULL,
    aggregate_id TEXT COLLATE "C" NOT NULL,
    json         TEXT   NOT NULL,
    published_ms BIGINT,
    UNIQUE (tenant, event_id)
);

CREATE INDEX events_by_tenant ON events (tenant, position);
CREATE INDEX events_by_topic ON events (tenant, topic, position);
CREATE INDEX events_by_aggregate ON events (tenant, aggregate_id, position);

-- For ever: an event that comes again years later is still known.
CREATE TABLE consumed_events (
    tenant   TEXT COLLATE "C" NOT NULL,
    event_id TEXT COLLATE "C" NOT NULL,
    at_ms    BIGINT NOT NULL,
    PRIMARY KEY (tenant, event_id)
);

CREATE TABLE idempotency_keys (
    tenant       TEXT COLLATE "C" NOT NULL,
    key          TEXT COLLATE "C" NOT NULL,
    request_hash TEXT   NOT NULL,
    status       BIGINT NOT NULL,
    etag         TEXT,
    body         TEXT   NOT NULL,
    at_ms        BIGINT NOT NULL,
    PRIMARY KEY (tenant, key)
);

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (at_ms);

CREATE TABLE audit_heads (
    tenant    TEXT COLLATE "C" NOT NULL,
    aggregate TEXT COLLATE "C" NOT NULL,
    seq       BIGINT NOT NULL,
    hash      BYTEA  NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (tenant, aggregate)
);

CREATE TABLE audit (
    tenant        TEXT COLLATE "C" NOT NULL,
    aggregate     TEXT COLLATE "C" NOT NULL,
    seq           BIGINT NOT NULL,
    at_ms         BIGINT NOT NULL,
    actor         TEXT   NOT NULL,
    action        TEXT   NOT NULL,
    detail        TEXT   NOT NULL,
    previous_hash BYTEA  NOT NULL CHECK (length(previous_hash) = 32),
    hash          BYTEA  NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (tenant, aggregate, seq),
    CHECK (seq >= 1)
);

CREATE FUNCTION audit_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is append-only';
END $$;

-- Each line follows the last one. One look a statement, not one a line; with the primary key, a line whose predecessor is
-- there can only be the chain's next.
CREATE FUNCTION audit_is_one_chain() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM added n WHERE n.seq > 1 AND NOT EXISTS
        (SELECT 1 FROM audit a WHERE a.tenant = n.tenant AND a.aggregate = n.aggregate AND a.seq = n.seq - 1)) THEN
        RAISE EXCEPTION 'the audit trail is append-only';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER audit_is_one_chain AFTER INSERT ON audit REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_one_chain();
CREATE TRIGGER audit_is_final_update BEFORE UPDATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_is_final();
CREATE TRIGGER audit_is_final_delete BEFORE DELETE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_is_final();
CREATE TRIGGER audit_is_final_truncate BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_is_final();
