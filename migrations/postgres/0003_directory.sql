-- Technicians, sites, and the technicians' calendars.

-- Text and ranges in one exclusion constraint. The extension comes with PostgreSQL (on Debian in the server's package, elsewhere
-- sometimes as "contrib"), and whoever may create tables in the database may create it.
CREATE EXTENSION IF NOT EXISTS btree_gist;

CREATE TABLE technicians (
    tenant     TEXT COLLATE "C" NOT NULL,
    technician TEXT COLLATE "C" NOT NULL,
    revision   BIGINT NOT NULL,
    json       TEXT   NOT NULL,
    PRIMARY KEY (tenant, technician)
);

CREATE TABLE locations (
    tenant      TEXT COLLATE "C" NOT NULL,
    location_id TEXT COLLATE "C" NOT NULL,
    revision    BIGINT NOT NULL,
    json        TEXT   NOT NULL,
    PRIMARY KEY (tenant, location_id)
);

-- No technician is booked twice at one time; two dispatchers at the same moment cannot both win. (SQLite says the same with
-- triggers.) Checked at once, not at the end of the transaction: a moved visit's old bookings are removed before its new ones are
-- made, and only so is it known whose commit to refuse.
CREATE TABLE bookings (
    tenant      TEXT COLLATE "C" NOT NULL,
    dispatch_id TEXT COLLATE "C" NOT NULL,
    technician  TEXT COLLATE "C" NOT NULL,
    start_ms    BIGINT NOT NULL,
    end_ms      BIGINT NOT NULL,
    PRIMARY KEY (tenant, dispatch_id, technician),
    CHECK (start_ms < end_ms),
    CONSTRAINT bookings_overlap EXCLUDE USING gist
        (tenant WITH =, technician WITH =, int8range(start_ms, end_ms) WITH &&)
);

CREATE INDEX bookings_by_technician ON bookings (tenant, technician, start_ms, end_ms);
