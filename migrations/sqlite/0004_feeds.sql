-- Feeds: what each technician's phones get to know, in order.

CREATE TABLE feed_heads (
    tenant     TEXT    NOT NULL,
    technician TEXT    NOT NULL,
    -- The feed's end: positions are 1, 2, 3, ... without gaps.
    seq        INTEGER NOT NULL,
    -- Of everything held at `seq`.
    digest     INTEGER NOT NULL,
    -- Entries up to here may have been pruned; a cursor before it is too old.
    floor      INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, technician)
) STRICT, WITHOUT ROWID;

CREATE TABLE feed (
    tenant      TEXT    NOT NULL,
    technician  TEXT    NOT NULL,
    seq         INTEGER NOT NULL,
    dispatch_id TEXT    NOT NULL,
    revision    INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    kind        TEXT    NOT NULL CHECK (kind IN ('held', 'gone')),
    digest      INTEGER NOT NULL,
    tombstone   TEXT,
    at_ms       INTEGER NOT NULL,
    PRIMARY KEY (tenant, technician, seq),
    CHECK ((kind = 'gone') = (tombstone IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX feed_by_dispatch ON feed (tenant, dispatch_id, technician, seq);

CREATE TABLE held (
    tenant      TEXT    NOT NULL,
    technician  TEXT    NOT NULL,
    dispatch_id TEXT    NOT NULL,
    revision    INTEGER NOT NULL,
    tag         INTEGER NOT NULL,
    -- The feed entry that said so.
    seq         INTEGER NOT NULL,
    -- When the visit ended or was scheduled to end, whichever is earlier.
    until_ms    INTEGER,
    PRIMARY KEY (tenant, technician, dispatch_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX held_by_dispatch ON held (tenant, dispatch_id, technician);
CREATE INDEX held_until ON held (until_ms) WHERE until_ms IS NOT NULL;

CREATE TABLE devices (
    tenant            TEXT    NOT NULL,
    device            TEXT    NOT NULL,
    technician        TEXT    NOT NULL,
    app               TEXT    NOT NULL,
    registered_ms     INTEGER NOT NULL,
    seen_ms           INTEGER NOT NULL,
    ledger            TEXT    NOT NULL,
    ledger_version    INTEGER NOT NULL,
    pending           INTEGER NOT NULL,
    oldest_pending_ms INTEGER,
    complete_ms       INTEGER,
    acknowledged      INTEGER NOT NULL,
    revoked_ms        INTEGER,
    wiped_ms          INTEGER,
    digest_mismatches INTEGER NOT NULL,
    PRIMARY KEY (tenant, device)
) STRICT, WITHOUT ROWID;

CREATE INDEX devices_by_technician ON devices (tenant, technician, device);
