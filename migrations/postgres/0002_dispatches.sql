-- Dispatches: the projection that lists and searches read, the documents, and the changes that led to them.
--
-- Rows of a few kilobytes stay in their page, uncompressed (toast_tuple_target): every commit rewrites them, and
-- compressing them again each time costs more than it saves.

CREATE TABLE dispatches (
    tenant           TEXT COLLATE "C" NOT NULL,
    dispatch_id      TEXT COLLATE "C" NOT NULL,
    service_order_id TEXT COLLATE "C" NOT NULL,
    location_id      TEXT COLLATE "C" NOT NULL,
    revision         BIGINT NOT NULL,
    status           TEXT COLLATE "C" NOT NULL,
    priority         BIGINT NOT NULL,
    technician       TEXT COLLATE "C",
    epoch            BIGINT NOT NULL,
    -- Unscheduled visits have the largest number there is, so that they come last.
    start_ms         BIGINT NOT NULL,
    end_ms           BIGINT,
    sla_deadline_ms  BIGINT,
    created_ms       BIGINT NOT NULL,
    updated_ms       BIGINT NOT NULL,
    -- The service-level deadline, while the visit has neither ended nor been arrived at.
    watch_ms         BIGINT,
    tag              BIGINT NOT NULL,
    delivered_epoch  BIGINT,
    delivered_ms     BIGINT,
    office_status    TEXT COLLATE "C" NOT NULL GENERATED ALWAYS AS
        (CASE WHEN status = 'ASSIGNED' AND delivered_epoch = epoch THEN 'DISPATCHED' ELSE status END) STORED,
    card             BYTEA  NOT NULL,
    plan             TEXT   NOT NULL,
    state            TEXT   NOT NULL,
    PRIMARY KEY (tenant, dispatch_id),
    UNIQUE (tenant, service_order_id)
) WITH (toast_tuple_target = 8160);

CREATE INDEX dispatches_by_start ON dispatches (tenant, start_ms, dispatch_id);
CREATE INDEX dispatches_by_status ON dispatches (tenant, office_status, start_ms, dispatch_id);
CREATE INDEX dispatches_by_technician ON dispatches (tenant, technician, start_ms, dispatch_id) WHERE technician IS NOT NULL;
CREATE INDEX dispatches_by_location ON dispatches (tenant, location_id, start_ms, dispatch_id);
CREATE INDEX dispatches_watched ON dispatches (watch_ms) WHERE watch_ms IS NOT NULL;

CREATE TABLE documents (
    tenant      TEXT COLLATE "C" NOT NULL,
    dispatch_id TEXT COLLATE "C" NOT NULL,
    document    BYTEA NOT NULL,
    PRIMARY KEY (tenant, dispatch_id)
) WITH (toast_tuple_target = 8160);

CREATE TABLE changes (
    tenant      TEXT COLLATE "C" NOT NULL,
    dispatch_id TEXT COLLATE "C" NOT NULL,
    -- The revision that the change became part of, and its place there: causal order.
    revision    BIGINT NOT NULL,
    idx         BIGINT NOT NULL,
    hash        BYTEA  NOT NULL CHECK (length(hash) = 32),
    actor       BYTEA  NOT NULL CHECK (length(actor) = 16),
    -- NULL for the server's own.
    device      TEXT COLLATE "C",
    bytes       BYTEA  NOT NULL,
    PRIMARY KEY (tenant, dispatch_id, revision, idx),
    UNIQUE (tenant, dispatch_id, hash)
) WITH (toast_tuple_target = 8160);

CREATE TABLE facts (
    tenant         TEXT COLLATE "C" NOT NULL,
    fact_id        TEXT COLLATE "C" NOT NULL,
    dispatch_id    TEXT COLLATE "C" NOT NULL,
    device         TEXT COLLATE "C" NOT NULL,
    seq            BIGINT NOT NULL,
    -- 1 where the ruling says that the device had used the number before.
    seq_reused     BIGINT NOT NULL CHECK (seq_reused IN (0, 1)),
    -- The plan revision that its author had seen.
    knew_revision  BIGINT NOT NULL,
    kind           TEXT COLLATE "C" NOT NULL,
    occurred_ms    BIGINT NOT NULL,
    serial         TEXT COLLATE "C",
    verdict        TEXT COLLATE "C",
    reason         TEXT COLLATE "C",
    recorded_ms    BIGINT,
    -- Set while the fact waits for its predecessors.
    held_since_ms  BIGINT,
    PRIMARY KEY (tenant, fact_id),
    CHECK ((verdict IS NULL) = (held_since_ms IS NOT NULL))
);

CREATE UNIQUE INDEX facts_sequence ON facts (tenant, device, seq) WHERE seq_reused = 0;
CREATE UNIQUE INDEX facts_serial_accepted ON facts (tenant, serial) WHERE serial IS NOT NULL AND verdict = 'accepted';
CREATE INDEX facts_serial ON facts (tenant, serial) WHERE serial IS NOT NULL;
CREATE INDEX facts_held ON facts (held_since_ms) WHERE held_since_ms IS NOT NULL;
CREATE INDEX facts_held_by_device ON facts (tenant, device, seq) WHERE held_since_ms IS NOT NULL;
CREATE INDEX facts_held_by_dispatch ON facts (tenant, dispatch_id, seq) WHERE held_since_ms IS NOT NULL;

CREATE TABLE exceptions (
    tenant       TEXT COLLATE "C" NOT NULL,
    exception_id TEXT COLLATE "C" NOT NULL,
    dispatch_id  TEXT COLLATE "C" NOT NULL,
    raised_ms    BIGINT NOT NULL,
    resolved_ms  BIGINT,
    json         TEXT   NOT NULL,
    PRIMARY KEY (tenant, exception_id)
);

CREATE INDEX exceptions_by_time ON exceptions (tenant, raised_ms, exception_id);
CREATE INDEX exceptions_by_dispatch ON exceptions (tenant, dispatch_id, raised_ms, exception_id);
CREATE INDEX exceptions_open ON exceptions (tenant, raised_ms, exception_id) WHERE resolved_ms IS NULL;
CREATE INDEX exceptions_open_by_dispatch ON exceptions (tenant, dispatch_id, raised_ms, exception_id)
    WHERE resolved_ms IS NULL;

CREATE TABLE sla (
    tenant       TEXT COLLATE "C" NOT NULL,
    dispatch_id  TEXT COLLATE "C" NOT NULL,
    deadline_ms  BIGINT NOT NULL,
    status       TEXT COLLATE "C" NOT NULL,
    announced_ms BIGINT NOT NULL,
    decided_ms   BIGINT,
    arrived_ms   BIGINT,
    PRIMARY KEY (tenant, dispatch_id)
);

CREATE INDEX sla_by_time ON sla (tenant, announced_ms, dispatch_id);
CREATE INDEX sla_provisional ON sla (deadline_ms) WHERE status = 'PROVISIONAL';
