-- The phone's store. Blobs are CBOR or Automerge; a `sum` is the first 8 bytes of a SHA-256 over the columns it guards.

-- What this install knows about itself; exactly one row.
CREATE TABLE phone (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    body BLOB NOT NULL,
    sum  BLOB NOT NULL
) STRICT;

-- Visits. Small columns first: a list reads the card and never reaches the document's overflow pages.
CREATE TABLE visits (
    visit              INTEGER PRIMARY KEY,
    dispatch_id        TEXT    NOT NULL UNIQUE,
    status             TEXT    NOT NULL,
    scheduled_start_ms INTEGER,
    held               INTEGER NOT NULL,  -- 0: has left the phone, kept for its unsent work
    run                INTEGER NOT NULL,  -- the last full answer that named it
    tag                INTEGER NOT NULL,  -- of the server's copy
    local_tag          INTEGER NOT NULL,  -- of the document here
    card               BLOB    NOT NULL,
    card_sum           BLOB    NOT NULL,
    document_sum       BLOB    NOT NULL,
    document           BLOB    NOT NULL
) STRICT;
CREATE INDEX visits_by_start ON visits (scheduled_start_ms, dispatch_id) WHERE held = 1;

-- Local edits, one change each. state: queued, acknowledged (kept for a while), or parked. In words, because it changes
-- and no sum guards it: one flipped bit must not make a receipt of an unsent change.
CREATE TABLE outbox (
    id                 INTEGER PRIMARY KEY AUTOINCREMENT,
    dispatch_id        TEXT    NOT NULL,
    state              TEXT    NOT NULL,
    hash               BLOB    NOT NULL,
    actor              BLOB    NOT NULL,
    made_at_ms         INTEGER NOT NULL,
    fact_id            TEXT,
    acknowledged_at_ms INTEGER,
    error_code         TEXT,
    error_message      TEXT,
    edit               BLOB    NOT NULL,
    change             BLOB    NOT NULL,
    sum                BLOB    NOT NULL
) STRICT;
CREATE INDEX outbox_unsent ON outbox (state, id, dispatch_id, made_at_ms) WHERE state <> 'acknowledged';
CREATE INDEX outbox_by_visit ON outbox (dispatch_id, id);
CREATE INDEX outbox_receipts ON outbox (acknowledged_at_ms) WHERE state = 'acknowledged';

-- What is out of the ordinary about a visit's lane.
CREATE TABLE lanes (
    dispatch_id TEXT    PRIMARY KEY,
    needs_fetch INTEGER NOT NULL DEFAULT 0,
    rebase      INTEGER NOT NULL DEFAULT 0,  -- 1: its edits must be re-made on the server's copy; 2: if there is one
    parked      INTEGER NOT NULL DEFAULT 0,
    resent      INTEGER NOT NULL DEFAULT 0,  -- its receipts were queued again since it last was empty
    attempts    INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE tombstones (
    dispatch_id TEXT    PRIMARY KEY,
    at_ms       INTEGER NOT NULL,
    seen_at_ms  INTEGER,
    body        BLOB    NOT NULL,
    sum         BLOB    NOT NULL
) STRICT;

-- Other technicians' outboxes, and the identity that each had here.
CREATE TABLE sealed_outbox (
    id                 INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant_id          TEXT    NOT NULL,
    technician_id      TEXT    NOT NULL,
    dispatch_id        TEXT    NOT NULL,
    state              TEXT    NOT NULL,
    hash               BLOB    NOT NULL,
    actor              BLOB    NOT NULL,
    made_at_ms         INTEGER NOT NULL,
    fact_id            TEXT,
    acknowledged_at_ms INTEGER,
    error_code         TEXT,
    error_message      TEXT,
    edit               BLOB    NOT NULL,
    change             BLOB    NOT NULL,
    sum                BLOB    NOT NULL
) STRICT;
CREATE INDEX sealed_by_user ON sealed_outbox (tenant_id, technician_id, id);
CREATE TABLE sealed_identities (
    tenant_id     TEXT NOT NULL,
    technician_id TEXT NOT NULL,
    body          BLOB NOT NULL,
    sum           BLOB NOT NULL,
    PRIMARY KEY (tenant_id, technician_id)
) STRICT;

-- Rows whose checksum is wrong, as they were found. Never read by the engine, never deleted by it: what is in here may
-- be the only copy of somebody's work.
CREATE TABLE damaged (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    kind        TEXT NOT NULL,
    dispatch_id TEXT NOT NULL,
    edit        BLOB,
    change      BLOB,
    card        BLOB,
    document    BLOB,
    sum         BLOB
) STRICT;
