-- The daemons that share shards. What lives is told by one row a daemon, not by a lease of each shard.

-- A row is renewed about once a second: with most of the page free, each new version finds room beside the
-- old one.
CREATE TABLE jetcopy.daemons (
    daemon text PRIMARY KEY,
    host text NOT NULL,
    process bigint NOT NULL,
    version text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    beat bigint NOT NULL DEFAULT 1,
    lease_until timestamptz NOT NULL,
    -- Then the end of its sessions shows at once that it has died. A pooler's say nothing.
    direct boolean NOT NULL,
    shards text[] NOT NULL,
    unable text[] NOT NULL DEFAULT '{}',
    messages_per_second double precision NOT NULL DEFAULT 0,
    drained_at timestamptz,
    drained_by text
) WITH (fillfactor = 20);

COMMENT ON TABLE jetcopy.daemons IS
    'The daemons that live. Who has a row keeps its shards; the others remove the row of one that is gone';
COMMENT ON COLUMN jetcopy.daemons.daemon IS 'The daemon, as in jetcopy.checkpoints.owner';
COMMENT ON COLUMN jetcopy.daemons.host IS 'The machine that it runs on';
COMMENT ON COLUMN jetcopy.daemons.process IS 'Its process there';
COMMENT ON COLUMN jetcopy.daemons.version IS 'Its version';
COMMENT ON COLUMN jetcopy.daemons.since IS 'Since when it is here without a break';
COMMENT ON COLUMN jetcopy.daemons.beat IS 'How often it has renewed its lease';
COMMENT ON COLUMN jetcopy.daemons.lease_until IS
    'Until when it counts as alive without another renewal';
COMMENT ON COLUMN jetcopy.daemons.direct IS 'Whether it reaches the server without a pooler';
COMMENT ON COLUMN jetcopy.daemons.shards IS 'The shards that it is configured for';
COMMENT ON COLUMN jetcopy.daemons.unable IS 'Those of them that it cannot run at present';
COMMENT ON COLUMN jetcopy.daemons.messages_per_second IS 'How many messages it has committed a second lately';
COMMENT ON COLUMN jetcopy.daemons.drained_at IS
    'Since when it gives its shards away, because an operator drained it';
COMMENT ON COLUMN jetcopy.daemons.drained_by IS 'Who did';

ALTER TABLE jetcopy.checkpoints ADD COLUMN owned_since timestamptz;
COMMENT ON COLUMN jetcopy.checkpoints.owned_since IS 'Since when it is the owner''s';
COMMENT ON COLUMN jetcopy.checkpoints.owner IS 'The daemon that writes, as in jetcopy.daemons';
COMMENT ON COLUMN jetcopy.checkpoints.epoch IS
    'Raised by each writer that takes the shard over, to a number that no other has; every commit compares it';

-- Seconds since the last commit, seconds left of the owner's lease.
CREATE OR REPLACE FUNCTION jetcopy.monitor_checkpoints()
    RETURNS TABLE (pipeline text, shard text, stream text, last_sequence bigint, epoch bigint,
        age_seconds float8, lease_seconds float8)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.pipeline, c.shard, c.stream, c.last_sequence, c.epoch,
        extract(epoch FROM now() - c.updated_at)::float8,
        coalesce(extract(epoch FROM d.lease_until - now()), 0)::float8
    FROM jetcopy.checkpoints c LEFT JOIN jetcopy.daemons d ON d.daemon = c.owner
$$;

-- Owners before this version were named otherwise; none of them lives on.
UPDATE jetcopy.checkpoints SET owner = NULL WHERE owner IS NOT NULL;
ALTER TABLE jetcopy.checkpoints DROP COLUMN lease_until;
