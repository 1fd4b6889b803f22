-- Subjects and headers as they were published, where the letter's own hold U+FFFD for what text cannot hold, or only what can be
-- read of a broken header block.
ALTER TABLE jetcopy.dead_letters ADD COLUMN raw_subject bytea, ADD COLUMN raw_headers bytea;

COMMENT ON COLUMN jetcopy.dead_letters.raw_subject IS
    'The subject as it was published, where subject is not that; empty where it is not UTF-8, since JetStream gives no such bytes out';
COMMENT ON COLUMN jetcopy.dead_letters.raw_headers IS
    'The header block as it was published, where headers has not all of it';

-- As before, and takes the raw headers off too.
CREATE OR REPLACE FUNCTION jetcopy.expire_dead_letters()
    RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    until timestamptz;
    locked bigint[];
    expired bigint;
BEGIN
    SELECT now() - l.age INTO until FROM jetcopy.store_life l
    WHERE l.relation = 'dead_letters' AND l.setting = 'retention';
    IF until IS NULL THEN
        RETURN 0;
    END IF;
    SELECT array_agg(taken.id) INTO locked FROM (
        SELECT d.id FROM (
            SELECT DISTINCT o.pipeline, o.sequence, o.shard, o.stream, o.stored_at FROM (
                SELECT * FROM jetcopy.dead_letters aged
                WHERE aged.expired_at IS NULL AND aged.failed_at < until AND NOT EXISTS (
                    SELECT FROM jetcopy.dead_letters s
                    WHERE s.pipeline = aged.pipeline AND s.sequence = aged.sequence AND s.shard = aged.shard
                        AND s.stream = aged.stream AND s.stored_at IS NOT DISTINCT FROM aged.stored_at
                        AND s.expired_at IS NULL AND s.failed_at >= until)
                ORDER BY aged.failed_at LIMIT 1000) AS o) AS due
        JOIN jetcopy.dead_letters d
            ON d.pipeline = due.pipeline AND d.sequence = due.sequence AND d.shard = due.shard
            AND d.stream = due.stream AND d.stored_at IS NOT DISTINCT FROM due.stored_at
            AND d.expired_at IS NULL
        FOR UPDATE OF d SKIP LOCKED) AS taken;
    -- Looked at again under the locks: a retry may have stored a new letter, or given one a new reason.
    UPDATE jetcopy.dead_letters d
        SET expired_at = now(), payload = NULL, headers = NULL, raw_headers = NULL, message = left(d.message, 200)
        WHERE d.id = ANY (locked) AND NOT EXISTS (
            SELECT FROM jetcopy.dead_letters s
            WHERE s.pipeline = d.pipeline AND s.sequence = d.sequence AND s.shard = d.shard
                AND s.stream = d.stream AND s.stored_at IS NOT DISTINCT FROM d.stored_at
                AND s.expired_at IS NULL AND (s.failed_at >= until OR NOT s.id = ANY (locked)));
    GET DIAGNOSTICS expired = ROW_COUNT;
    RETURN expired;
END
$$;
