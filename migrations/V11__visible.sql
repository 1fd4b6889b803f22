-- Read your writes: whether the message that a publisher's ack names is committed, and to wait until it is.

-- The one answer to this question: whatever changes how positions are kept changes this function.
CREATE FUNCTION jetcopy.is_committed(shard text, sequence bigint) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce((
        SELECT c.last_sequence >= is_committed.sequence
        FROM jetcopy.checkpoints c WHERE c.shard = is_committed.shard), false)
$$;

COMMENT ON FUNCTION jetcopy.is_committed IS
    'Whether the message with that sequence is done with in that shard: its rows are in the tables, or it is '
    'a dead letter, or no table takes it';

-- A replay has a checkpoint of its own in the same stream, which says nothing about the tables.
CREATE FUNCTION jetcopy.is_visible(stream text, sequence bigint, pipeline text DEFAULT NULL) RETURNS boolean
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    seen boolean;
BEGIN
    IF is_visible.stream IS NULL OR is_visible.sequence IS NULL THEN
        RAISE EXCEPTION 'stream and sequence must not be NULL: a publisher''s ack names both'
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    SELECT bool_and(jetcopy.is_committed(c.shard, is_visible.sequence)) INTO seen
    FROM jetcopy.checkpoints c
    WHERE c.stream = is_visible.stream
        AND CASE WHEN is_visible.pipeline IS NULL THEN c.pipeline !~ '-replay-[0-9]+-[0-9]+$'
            ELSE c.pipeline = is_visible.pipeline END;
    IF seen IS NULL THEN
        RAISE EXCEPTION '%', CASE WHEN is_visible.pipeline IS NULL
                THEN format('no pipeline has read stream "%s"', is_visible.stream)
                ELSE format('no pipeline "%s" has read stream "%s"', is_visible.pipeline, is_visible.stream)
            END USING ERRCODE = 'undefined_object',
            HINT = 'jetcopy.checkpoints has the streams and pipelines; a new one is there once it has run';
    END IF;
    RETURN seen;
END $$;

COMMENT ON FUNCTION jetcopy.is_visible IS
    'Whether the message of that stream and sequence, as a publisher''s ack names them, is committed: by '
    'every pipeline that reads the stream, or by the named one';

-- Volatile: each look takes a snapshot of its own, in READ COMMITTED.
CREATE FUNCTION jetcopy.wait_visible(
    stream text, sequence bigint, timeout interval DEFAULT '5 seconds', pipeline text DEFAULT NULL
) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    deadline CONSTANT timestamptz := clock_timestamp() + wait_visible.timeout;
    -- Seconds between two looks: a commit usually takes milliseconds; who waits long need not know so soon.
    pause float8 := 0.001;
    longest CONSTANT float8 := 0.05;
    remaining float8;
BEGIN
    IF deadline IS NULL THEN
        RAISE EXCEPTION 'timeout must not be NULL' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'wait_visible() would wait in vain: a transaction in % never sees later commits',
            upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'active_sql_transaction',
            HINT = 'call it before the transaction begins, or in READ COMMITTED; is_visible() only looks';
    END IF;
    LOOP
        IF jetcopy.is_visible(wait_visible.stream, wait_visible.sequence, wait_visible.pipeline) THEN
            RETURN true;
        END IF;
        remaining := extract(epoch FROM deadline - clock_timestamp());
        IF remaining <= 0 THEN
            RETURN false;
        END IF;
        PERFORM pg_sleep(least(pause, remaining));
        pause := least(pause * 1.5, longest);
    END LOOP;
END $$;

COMMENT ON FUNCTION jetcopy.wait_visible IS
    'Waits until jetcopy.is_visible() says true, which the next statement then sees; false at the timeout';
