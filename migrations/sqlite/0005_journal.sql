-- The event journal, what was consumed, remembered answers, and the audit trail.

CREATE TABLE events (
    position     INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    tenant       TEXT    NOT NULL,
    event_id     TEXT    NOT NULL,
    topic        TEXT    NOT NULL,
    aggregate_id TEXT    NOT NULL,
    json         TEXT    NOT NULL,
    published_ms INTEGER,
    UNIQUE (tenant, event_id)
) STRICT;

CREATE INDEX events_by_tenant ON events (tenant, position);
CREATE INDEX events_by_topic ON events (tenant, topic, position);
CREATE INDEX events_by_aggregate ON events (tenant, aggregate_id, position);

-- For ever: an event that comes again years later is still known.
CREATE TABLE consumed_events (
    tenant   TEXT    NOT NULL,
    event_id TEXT    NOT NULL,
    at_ms    INTEGER NOT NULL,
    PRIMARY KEY (tenant, event_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency_keys (
    tenant       TEXT    NOT NULL,
    key          TEXT    NOT NULL,
    request_hash TEXT    NOT NULL,
    status       INTEGER NOT NULL,
    etag         TEXT,
    body         TEXT    NOT NULL,
    at_ms        INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT;

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (at_ms);

CREATE TABLE audit_heads (
    tenant    TEXT    NOT NULL,
    aggregate TEXT    NOT NULL,
    seq       INTEGER NOT NULL,
    hash      BLOB    NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (tenant, aggregate)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    tenant        TEXT    NOT NULL,
    aggregate     TEXT    NOT NULL,
    seq           INTEGER NOT NULL,
    at_ms         INTEGER NOT NULL,
    actor         TEXT    NOT NULL,
    action        TEXT    NOT NULL,
    detail        TEXT    NOT NULL,
    previous_hash BLOB    NOT NULL CHECK (length(previous_hash) = 32),
    hash          BLOB    NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (tenant, aggregate, seq)
) STRICT;

-- Each line follows the last one; this also stops REPLACE, which asks no delete trigger.
CREATE TRIGGER audit_is_one_chain BEFORE INSERT ON audit
WHEN NEW.seq <> 1 + coalesce((SELECT max(a.seq) FROM audit a
                              WHERE a.tenant = NEW.tenant AND a.aggregate = NEW.aggregate), 0)
BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append-only');
END;

CREATE TRIGGER audit_is_final_update BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append-only');
END;

CREATE TRIGGER audit_is_final_delete BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append-only');
END;
