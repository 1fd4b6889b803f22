-- Several writers of one shard: each has a lane, with a checkpoint of its own.

-- A row is updated by each commit of its lane: with most of the page free, each new version finds room beside
-- the old one.
CREATE TABLE jetcopy.lanes (
    shard text NOT NULL REFERENCES jetcopy.checkpoints ON DELETE CASCADE,
    lane integer NOT NULL CHECK (lane >= 0),
    lanes integer NOT NULL CHECK (lanes > lane),
    block bigint NOT NULL CHECK (block > 0),
    epoch bigint NOT NULL,
    last_sequence bigint NOT NULL CHECK (last_sequence >= 0),
    last_timestamp timestamptz,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (shard, lane)
) WITH (fillfactor = 10);

COMMENT ON TABLE jetcopy.lanes IS
    'Where each of several writers of a shard stands. A shard without rows here has one writer, and stands '
    'where its checkpoint says';
COMMENT ON COLUMN jetcopy.lanes.shard IS 'The shard, as in jetcopy.checkpoints';
COMMENT ON COLUMN jetcopy.lanes.lane IS
    'The lane, from 0: sequence s is of the lane that (s - 1) / block leaves when divided by lanes';
COMMENT ON COLUMN jetcopy.lanes.lanes IS 'How many lanes the shard has';
COMMENT ON COLUMN jetcopy.lanes.block IS 'How many sequences in a row are of the same lane';
COMMENT ON COLUMN jetcopy.lanes.epoch IS 'That of the shard; every commit compares it';
COMMENT ON COLUMN jetcopy.lanes.last_sequence IS
    'All sequences of the lane up to this one are committed, and none of the lane after it';
COMMENT ON COLUMN jetcopy.lanes.last_timestamp IS 'When the stream stored the message of that sequence';
COMMENT ON COLUMN jetcopy.lanes.updated_at IS 'When the row changed';

COMMENT ON COLUMN jetcopy.checkpoints.last_sequence IS
    'The last sequence whose rows are committed. A shard with rows in jetcopy.lanes stands where '
    'jetcopy.floor() says';

-- Of each lane, the next sequence that it lacks is the one after its last, or the first of its next block.
CREATE FUNCTION jetcopy.floor(shard text) RETURNS bigint
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(
        (SELECT min(CASE WHEN skip = 0 THEN last_sequence ELSE (place + skip) * block END)
            FROM (SELECT l.last_sequence, l.block, l.last_sequence / l.block AS place,
                    (l.lane - l.last_sequence / l.block % l.lanes + l.lanes) % l.lanes AS skip
                FROM jetcopy.lanes l WHERE l.shard = floor.shard) AS lane),
        (SELECT c.last_sequence FROM jetcopy.checkpoints c WHERE c.shard = floor.shard))
$$;
COMMENT ON FUNCTION jetcopy.floor IS
    'The sequence up to which all rows of a shard are committed, however many writers it has';

CREATE OR REPLACE FUNCTION jetcopy.monitor_checkpoints()
    RETURNS TABLE (pipeline text, shard text, stream text, last_sequence bigint, epoch bigint,
        age_seconds float8, lease_seconds float8)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.pipeline, c.shard, c.stream, jetcopy.floor(c.shard), c.epoch,
        extract(epoch FROM now() - greatest(c.updated_at,
            (SELECT max(l.updated_at) FROM jetcopy.lanes l WHERE l.shard = c.shard)))::float8,
        coalesce(extract(epoch FROM d.lease_until - now()), 0)::float8
    FROM jetcopy.checkpoints c LEFT JOIN jetcopy.daemons d ON d.daemon = c.owner
$$;

-- Of several writers, the one whose lane it is.
CREATE OR REPLACE FUNCTION jetcopy.is_committed(shard text, sequence bigint) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(
        (SELECT l.last_sequence >= is_committed.sequence FROM jetcopy.lanes l
            WHERE l.shard = is_committed.shard
                AND l.lane = (is_committed.sequence - 1) / l.block % l.lanes),
        (SELECT c.last_sequence >= is_committed.sequence
            FROM jetcopy.checkpoints c WHERE c.shard = is_committed.shard),
        false)
$$;
