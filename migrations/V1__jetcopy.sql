-- The daemon's own tables. The schema itself is there already: the history of migrations lies in it.

-- The truth about position: rows of sequences up to last_sequence are in the tables, rows above it are not.
CREATE TABLE jetcopy.checkpoints (
    shard text PRIMARY KEY,
    pipeline text NOT NULL,
    stream text NOT NULL,
    -- When the stream was created: another time is another stream of the same name.
    stream_created timestamptz,
    last_sequence bigint NOT NULL DEFAULT 0 CHECK (last_sequence >= 0),
    last_timestamp timestamptz,
    -- Raised by each writer that takes the shard over; every commit compares it.
    epoch bigint NOT NULL DEFAULT 0,
    owner text,
    lease_until timestamptz,
    updated_at timestamptz NOT NULL DEFAULT now()
)
-- A row is updated with every batch. No index but the key's holds a column that changes, and with most of the page
-- free each new version finds room beside the old one, so that updates stay heap-only and the table one page long.
WITH (fillfactor = 20);

-- Messages that can never become rows, each written in the transaction that moves the checkpoint past it.
CREATE TABLE jetcopy.dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pipeline text NOT NULL,
    shard text NOT NULL,
    stream text NOT NULL,
    sequence bigint NOT NULL,
    subject text NOT NULL,
    -- {"name": ["value", …]}
    headers jsonb,
    payload bytea NOT NULL,
    -- What kind of fault: malformed, missing, type, range, or refused by the server.
    kind text NOT NULL,
    sqlstate text,
    message text NOT NULL,
    table_name text,
    column_name text,
    failed_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX dead_letters_pipeline_sequence ON jetcopy.dead_letters (pipeline, sequence);

-- Ranges of a stream that were gone before they were read. A pipeline that halts finds the same loss at each look and
-- records it once; it goes on when somebody accepted it (`jetcopy accept-loss`).
CREATE TABLE jetcopy.losses (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pipeline text NOT NULL,
    shard text NOT NULL,
    stream text NOT NULL,
    -- Of the stream that was found: it can be another than the one that the checkpoint counted in.
    stream_created timestamptz NOT NULL,
    first_sequence bigint NOT NULL,
    -- NULL where it cannot be known: nobody has counted what a stream held that is gone.
    last_sequence bigint,
    cause text NOT NULL,
    detected_at timestamptz NOT NULL DEFAULT now(),
    accepted_at timestamptz
);
