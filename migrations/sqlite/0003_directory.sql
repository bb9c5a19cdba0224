-- Technicians, sites, and the technicians' calendars.

CREATE TABLE technicians (
    tenant     TEXT    NOT NULL,
    technician TEXT    NOT NULL,
    revision   INTEGER NOT NULL,
    json       TEXT    NOT NULL,
    PRIMARY KEY (tenant, technician)
) STRICT;

CREATE TABLE locations (
    tenant      TEXT    NOT NULL,
    location_id TEXT    NOT NULL,
    revision    INTEGER NOT NULL,
    json        TEXT    NOT NULL,
    PRIMARY KEY (tenant, location_id)
) STRICT;

CREATE TABLE bookings (
    tenant      TEXT    NOT NULL,
    dispatch_id TEXT    NOT NULL,
    technician  TEXT    NOT NULL,
    start_ms    INTEGER NOT NULL,
    end_ms      INTEGER NOT NULL,
    PRIMARY KEY (tenant, dispatch_id, technician),
    CHECK (start_ms < end_ms)
) STRICT, WITHOUT ROWID;

CREATE INDEX bookings_by_technician ON bookings (tenant, technician, start_ms, end_ms);

-- No technician is booked twice at one time; two dispatchers at the same moment cannot both win. (PostgreSQL says the
-- same with an exclusion constraint.) Because no two bookings overlap, their ends are in the order of their starts, and
-- only the last one that starts before the new one's end can overlap it: one look, however long the calendar is.
CREATE TRIGGER bookings_overlap_insert BEFORE INSERT ON bookings
WHEN (SELECT b.end_ms FROM bookings b
      WHERE b.tenant = NEW.tenant AND b.technician = NEW.technician AND b.start_ms < NEW.end_ms
        AND b.dispatch_id <> NEW.dispatch_id
      ORDER BY b.start_ms DESC LIMIT 1) > NEW.start_ms
BEGIN
    SELECT RAISE(ABORT, 'booking overlap');
END;

CREATE TRIGGER bookings_overlap_update BEFORE UPDATE ON bookings
WHEN (SELECT b.end_ms FROM bookings b
      WHERE b.tenant = NEW.tenant AND b.technician = NEW.technician AND b.start_ms < NEW.end_ms
        AND b.dispatch_id <> NEW.dispatch_id
      ORDER BY b.start_ms DESC LIMIT 1) > NEW.start_ms
BEGIN
    SELECT RAISE(ABORT, 'booking overlap');
END;
