-- What identifies the database, and where its ids come from.
-- The PostgreSQL twin of every migration has the same number and leaves the same tables, columns, keys and rules.
-- Conventions: times are milliseconds since the Unix epoch (`_ms`); 64-bit hashes are stored as the signed number of the
-- same bits; every key begins with the tenant.

CREATE TABLE meta (
    singleton  INTEGER NOT NULL PRIMARY KEY CHECK (singleton = 1),
    generation INTEGER NOT NULL,
    actor      BLOB    NOT NULL CHECK (length(actor) = 16)
) STRICT;

CREATE TABLE counters (
    tenant TEXT    NOT NULL,
    kind   TEXT    NOT NULL,
    -- The first number that nobody has been given.
    next   INTEGER NOT NULL,
    PRIMARY KEY (tenant, kind)
) STRICT, WITHOUT ROWID;
