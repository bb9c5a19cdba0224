-- Dispatches: the projection that lists and searches read, the documents, and the changes that led to them.

CREATE TABLE dispatches (
    tenant           TEXT    NOT NULL,
    dispatch_id      TEXT    NOT NULL,
    service_order_id TEXT    NOT NULL,
    location_id      TEXT    NOT NULL,
    revision         INTEGER NOT NULL,
    status           TEXT    NOT NULL,
    priority         INTEGER NOT NULL,
    technician       TEXT,
    epoch            INTEGER NOT NULL,
    -- Unscheduled visits have the largest number there is, so that they come last.
    start_ms         INTEGER NOT NULL,
    end_ms           INTEGER,
    sla_deadline_ms  INTEGER,
    created_ms       INTEGER NOT NULL,
    updated_ms       INTEGER NOT NULL,
    -- The service-level deadline, while the visit has neither ended nor been arrived at.
    watch_ms         INTEGER,
    tag              INTEGER NOT NULL,
    delivered_epoch  INTEGER,
    delivered_ms     INTEGER,
    office_status    TEXT    NOT NULL GENERATED ALWAYS AS
        (CASE WHEN status = 'ASSIGNED' AND delivered_epoch = epoch THEN 'DISPATCHED' ELSE status END) STORED,
    card             BLOB    NOT NULL,
    plan             TEXT    NOT NULL,
    state            TEXT    NOT NULL,
    PRIMARY KEY (tenant, dispatch_id),
    UNIQUE (tenant, service_order_id)
) STRICT;

CREATE INDEX dispatches_by_start ON dispatches (tenant, start_ms, dispatch_id);
CREATE INDEX dispatches_by_status ON dispatches (tenant, office_status, start_ms, dispatch_id);
CREATE INDEX dispatches_by_technician ON dispatches (tenant, technician, start_ms, dispatch_id) WHERE technician IS NOT NULL;
CREATE INDEX dispatches_by_location ON dispatches (tenant, location_id, start_ms, dispatch_id);
CREATE INDEX dispatches_watched ON dispatches (watch_ms) WHERE watch_ms IS NOT NULL;

CREATE TABLE documents (
    tenant      TEXT NOT NULL,
    dispatch_id TEXT NOT NULL,
    document    BLOB NOT NULL,
    PRIMARY KEY (tenant, dispatch_id)
) STRICT;

CREATE TABLE changes (
    tenant      TEXT    NOT NULL,
    dispatch_id TEXT    NOT NULL,
    -- The revision that the change became part of, and its place there: causal order.
    revision    INTEGER NOT NULL,
    idx         INTEGER NOT NULL,
    hash        BLOB    NOT NULL CHECK (length(hash) = 32),
    actor       BLOB    NOT NULL CHECK (length(actor) = 16),
    -- NULL for the server's own.
    device      TEXT,
    bytes       BLOB    NOT NULL,
    PRIMARY KEY (tenant, dispatch_id, revision, idx),
    UNIQUE (tenant, dispatch_id, hash)
) STRICT, WITHOUT ROWID;

CREATE TABLE facts (
    tenant         TEXT    NOT NULL,
    fact_id        TEXT    NOT NULL,
    dispatch_id    TEXT    NOT NULL,
    device         TEXT    NOT NULL,
    seq            INTEGER NOT NULL,
    -- 1 where the ruling says that the device had used the number before.
    seq_reused     INTEGER NOT NULL CHECK (seq_reused IN (0, 1)),
    -- The plan revision that its author had seen.
    knew_revision  INTEGER NOT NULL,
    kind           TEXT    NOT NULL,
    occurred_ms    INTEGER NOT NULL,
    serial         TEXT,
    verdict        TEXT,
    reason         TEXT,
    recorded_ms    INTEGER,
    -- Set while the fact waits for its predecessors.
    held_since_ms  INTEGER,
    PRIMARY KEY (tenant, fact_id),
    CHECK ((verdict IS NULL) = (held_since_ms IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX facts_sequence ON facts (tenant, device, seq) WHERE seq_reused = 0;
CREATE UNIQUE INDEX facts_serial_accepted ON facts (tenant, serial) WHERE serial IS NOT NULL AND verdict = 'accepted';
CREATE INDEX facts_serial ON facts (tenant, serial) WHERE serial IS NOT NULL;
CREATE INDEX facts_held ON facts (held_since_ms) WHERE held_since_ms IS NOT NULL;
CREATE INDEX facts_held_by_device ON facts (tenant, device, seq) WHERE held_since_ms IS NOT NULL;
CREATE INDEX facts_held_by_dispatch ON facts (tenant, dispatch_id, seq) WHERE held_since_ms IS NOT NULL;

CREATE TABLE exceptions (
    tenant       TEXT    NOT NULL,
    exception_id TEXT    NOT NULL,
    dispatch_id  TEXT    NOT NULL,
    raised_ms    INTEGER NOT NULL,
    resolved_ms  INTEGER,
    json         TEXT    NOT NULL,
    PRIMARY KEY (tenant, exception_id)
) STRICT;

CREATE INDEX exceptions_by_time ON exceptions (tenant, raised_ms, exception_id);
CREATE INDEX exceptions_by_dispatch ON exceptions (tenant, dispatch_id, raised_ms, exception_id);
CREATE INDEX exceptions_open ON exceptions (tenant, raised_ms, exception_id) WHERE resolved_ms IS NULL;
CREATE INDEX exceptions_open_by_dispatch ON exceptions (tenant, dispatch_id, raised_ms, exception_id)
    WHERE resolved_ms IS NULL;

CREATE TABLE sla (
    tenant       TEXT    NOT NULL,
    dispatch_id  TEXT    NOT NULL,
    deadline_ms  INTEGER NOT NULL,
    status       TEXT    NOT NULL,
    announced_ms INTEGER NOT NULL,
    decided_ms   INTEGER,
    arrived_ms   INTEGER,
    PRIMARY KEY (tenant, dispatch_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX sla_by_time ON sla (tenant, announced_ms, dispatch_id);
CREATE INDEX sla_provisional ON sla (deadline_ms) WHERE status = 'PROVISIONAL';
