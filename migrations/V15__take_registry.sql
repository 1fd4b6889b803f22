-- A registry is rebuilt by a replay, which ends where the pipeline stood when it began. What the pipeline has carried since
-- is not in the rebuilt tables: its checkpoint moves back to the replay's, in the same transaction, so that it carries that
-- again. A new epoch makes a daemon look at its checkpoint, also one that has nothing to write.
SET LOCAL check_function_bodies = off;

CREATE OR REPLACE FUNCTION jetcopy.take_registry(fresh_schema name, pipeline text, rebuilt_by text) RETURNS bigint
    LANGUAGE plpgsql
AS $$
DECLARE
    used jetcopy.checkpoints;
    rebuilt jetcopy.checkpoints;
    name text;
BEGIN
    PERFORM FROM jetcopy.checkpoints c WHERE c.shard IN (take_registry.pipeline, rebuilt_by) ORDER BY c.shard FOR UPDATE;
    SELECT * INTO used FROM jetcopy.checkpoints c WHERE c.shard = take_registry.pipeline;
    SELECT * INTO rebuilt FROM jetcopy.checkpoints c WHERE c.shard = rebuilt_by;
    IF used.shard IS NULL OR rebuilt.shard IS NULL THEN
        RAISE EXCEPTION 'there is no checkpoint of %', CASE WHEN used.shard IS NULL THEN take_registry.pipeline ELSE rebuilt_by END
            USING HINT = 'jetcopy replay leaves one with --keep-checkpoint; see jetcopy.checkpoints for those that there are.';
    END IF;
    IF (used.stream, used.stream_created) IS DISTINCT FROM (rebuilt.stream, rebuilt.stream_created) THEN
        RAISE EXCEPTION 'pipeline % reads stream % and % was made of another: their positions cannot be compared',
            take_registry.pipeline, used.stream, rebuilt_by;
    END IF;
    -- A replay is called after its stretch; one that was interrupted has not come to its end.
    IF NOT starts_with(rebuilt_by, take_registry.pipeline || '-replay-1-') THEN
        RAISE EXCEPTION '% is no replay of pipeline % from sequence 1: what was in the stream before would be missing',
            rebuilt_by, take_registry.pipeline
            USING HINT = 'Replay the whole stream; where it does not hold its first message any more, the registry cannot be rebuilt.';
    END IF;
    IF rebuilt.last_sequence <> right(rebuilt_by, -length(take_registry.pipeline || '-replay-1-'))::bigint THEN
        RAISE EXCEPTION '% was interrupted after sequence %', rebuilt_by, rebuilt.last_sequence
            USING HINT = 'Give the same command again; it goes on from there.';
    END IF;
    -- Days whose partitions retention has dropped since, however old they are.
    IF EXISTS (SELECT FROM jetcopy.partitioned_tables t WHERE t.relation = 'operations_log'::regclass) THEN
        EXECUTE format('SELECT jetcopy.add_partition(''operations_log''::regclass, day)
            FROM (SELECT DISTINCT (o.timestamp AT TIME ZONE ''UTC'')::date AS day FROM %I.operations_log o) AS days', fresh_schema);
    END IF;
    FOREACH name IN ARRAY ARRAY['projects', 'files', 'operations_log'] LOOP
        EXECUTE format('TRUNCATE %I', name);
        EXECUTE format('INSERT INTO %I SELECT * FROM %I.%I', name, fresh_schema, name);
    END LOOP;
    -- What could not become a row is known of the replay, up to its end; what comes after is carried again.
    DELETE FROM jetcopy.dead_letters d WHERE d.pipeline = take_registry.pipeline;
    UPDATE jetcopy.dead_letters d SET pipeline = take_registry.pipeline, shard = take_registry.pipeline
        WHERE d.pipeline = rebuilt_by;
    UPDATE jetcopy.checkpoints c
        SET last_sequence = rebuilt.last_sequence, last_timestamp = rebuilt.last_timestamp, epoch = c.epoch + 1, updated_at = now()
        WHERE c.shard = take_registry.pipeline;
    DELETE FROM jetcopy.checkpoints c WHERE c.shard = rebuilt_by;
    RETURN rebuilt.last_sequence;
END
$$;
COMMENT ON FUNCTION jetcopy.take_registry IS 'Puts the rows of a replayed registry in the place of those in use; returns the sequence from which the pipeline goes on';

SET LOCAL check_function_bodies = on;
