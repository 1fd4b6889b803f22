-- What `jetcopy dead-letters accept` sets: so many messages may become dead letters beyond the limits of `poison`. A commit that
-- makes use of it takes off what it used.
ALTER TABLE jetcopy.checkpoints
    ADD COLUMN accepted_letters bigint NOT NULL DEFAULT 0 CHECK (accepted_letters >= 0),
    -- Why a flood of dead letters stopped the pipeline, with a few of the messages; the next commit takes it away. They are no
    -- dead letters: their messages are still to come.
    ADD COLUMN flood jsonb;

CREATE VIEW jetcopy.flood_samples AS
    SELECT c.pipeline, c.shard, c.stream, (c.flood ->> 'at')::timestamptz AS seen_at, s.sequence, s.subject, s.kind, s.sqlstate,
        s.message, s.table_name, s.column_name, s.element, decode(s.payload, 'base64') AS payload, s.payload_bytes
    FROM jetcopy.checkpoints c CROSS JOIN LATERAL jsonb_to_recordset(c.flood -> 'samples') AS s (
        sequence bigint, subject text, kind text, sqlstate text, message text, table_name text, column_name text,
        element integer, payload text, payload_bytes bigint);
COMMENT ON VIEW jetcopy.flood_samples IS
    'The first messages of a flood that stopped a pipeline; of a long payload the beginning, payload_bytes says how long it is';
