-- Feeds: what each technician's phones get to know, in order.

CREATE TABLE feed_heads (
    tenant     TEXT COLLATE "C" NOT NULL,
    technician TEXT COLLATE "C" NOT NULL,
    -- The feed's end: positions are 1, 2, 3, ... without gaps.
    seq        BIGINT NOT NULL,
    -- Of everything held at `seq`.
    digest     BIGINT NOT NULL,
    -- Entries up to here may have been pruned; a cursor before it is too old.
    floor      BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, technician)
) WITH (fillfactor = 50); -- Rewritten by every commit: room for new versions beside the old ones.

CREATE TABLE feed (
    tenant      TEXT COLLATE "C" NOT NULL,
    technician  TEXT COLLATE "C" NOT NULL,
    seq         BIGINT NOT NULL,
    dispatch_id TEXT COLLATE "C" NOT NULL,
    revision    BIGINT NOT NULL,
    epoch       BIGINT NOT NULL,
    kind        TEXT COLLATE "C" NOT NULL CHECK (kind IN ('held', 'gone')),
    digest      BIGINT NOT NULL,
    tombstone   TEXT,
    at_ms       BIGINT NOT NULL,
    PRIMARY KEY (tenant, technician, seq),
    CHECK ((kind = 'gone') = (tombstone IS NOT NULL))
);

CREATE INDEX feed_by_dispatch ON feed (tenant, dispatch_id, technician, seq);

CREATE TABLE held (
    tenant      TEXT COLLATE "C" NOT NULL,
    technician  TEXT COLLATE "C" NOT NULL,
    dispatch_id TEXT COLLATE "C" NOT NULL,
    revision    BIGINT NOT NULL,
    tag         BIGINT NOT NULL,
    -- The feed entry that said so.
    seq         BIGINT NOT NULL,
    -- When the visit ended or was scheduled to end, whichever is earlier.
    until_ms    BIGINT,
    PRIMARY KEY (tenant, technician, dispatch_id)
);

CREATE INDEX held_by_dispatch ON held (tenant, dispatch_id, technician);
CREATE INDEX held_until ON held (until_ms) WHERE until_ms IS NOT NULL;

CREATE TABLE devices (
    tenant            TEXT COLLATE "C" NOT NULL,
    device            TEXT COLLATE "C" NOT NULL,
    technician        TEXT COLLATE "C" NOT NULL,
    app               TEXT   NOT NULL,
    registered_ms     BIGINT NOT NULL,
    seen_ms           BIGINT NOT NULL,
    ledger            TEXT   NOT NULL,
    ledger_version    BIGINT NOT NULL,
    pending           BIGINT NOT NULL,
    oldest_pending_ms BIGINT,
    complete_ms       BIGINT,
    acknowledged      BIGINT NOT NULL,
    revoked_ms        BIGINT,
    wiped_ms          BIGINT,
    digest_mismatches BIGINT NOT NULL,
    PRIMARY KEY (tenant, device)
) WITH (fillfactor = 50);

CREATE INDEX devices_by_technician ON devices (tenant, technician, device);
