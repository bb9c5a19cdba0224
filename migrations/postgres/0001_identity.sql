-- What identifies the database, and where its ids come from.
-- The SQLite twin of every migration has the same number and leaves the same tables, columns, keys and rules.
-- Conventions: times are milliseconds since the Unix epoch (`_ms`); 64-bit hashes are stored as the signed number of the
-- same bits; every key begins with the tenant. Texts compare by their bytes (COLLATE "C"), as in SQLite and in the program,
-- whatever the database's own collation is.

CREATE TABLE meta (
    singleton  BIGINT NOT NULL PRIMARY KEY CHECK (singleton = 1),
    generation BIGINT NOT NULL,
    actor      BYTEA  NOT NULL CHECK (length(actor) = 16)
);

CREATE TABLE counters (
    tenant TEXT COLLATE "C" NOT NULL,
    kind   TEXT COLLATE "C" NOT NULL,
    -- The first number that nobody has been given.
    next   BIGINT NOT NULL,
    PRIMARY KEY (tenant, kind)
);
