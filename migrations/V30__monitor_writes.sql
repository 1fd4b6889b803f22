-- Who wrote buffers to disk, and why the server made checkpoints, whichever views tell it: from PostgreSQL 17 on that is
-- pg_stat_checkpointer and pg_stat_io, before it is pg_stat_bgwriter.
CREATE FUNCTION jetcopy.monitor_writes()
    RETURNS TABLE (checkpoints_timed bigint, checkpoints_requested bigint, checkpointer_buffers bigint,
        background_writer_buffers bigint, backend_buffers bigint)
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF to_regclass('pg_catalog.pg_stat_checkpointer') IS NULL THEN
        RETURN QUERY SELECT b.checkpoints_timed, b.checkpoints_req, b.buffers_checkpoint, b.buffers_clean, b.buffers_backend
            FROM pg_stat_bgwriter b;
        RETURN;
    END IF;
    RETURN QUERY SELECT c.num_timed, c.num_requested, c.buffers_written, b.buffers_clean, (
            -- 17 counts writes of a block each, 18 bytes.
            SELECT coalesce(sum(coalesce(
                (to_jsonb(i) ->> 'write_bytes')::numeric / current_setting('block_size')::int, i.writes)), 0)::bigint
            FROM pg_stat_io i
            WHERE i.backend_type NOT IN ('checkpointer', 'background writer') AND i.object = 'relation')
        FROM pg_stat_checkpointer c, pg_stat_bgwriter b;
END
$$;
REVOKE ALL ON FUNCTION jetcopy.monitor_writes() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION jetcopy.monitor_writes() TO pg_monitor;
