-- When a letter lost its payload and its headers to [store.dead_letters] retention; NULL where it has them.
-- The letter itself stays: that its message is none of the rows is still to be known.
ALTER TABLE jetcopy.dead_letters ADD COLUMN expired_at timestamptz;

CREATE INDEX dead_letters_failed_at ON jetcopy.dead_letters (failed_at) WHERE expired_at IS NULL;

-- As before; of a letter that has expired, nothing.
CREATE OR REPLACE FUNCTION jetcopy.payload_of(letter jetcopy.dead_letters)
    RETURNS bytea
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN letter.expired_at IS NULL THEN coalesce(letter.payload, (
        SELECT d.payload FROM jetcopy.dead_letters d
        WHERE d.pipeline = letter.pipeline AND d.sequence = letter.sequence AND d.shard = letter.shard
            AND d.stream = letter.stream AND d.stored_at IS NOT DISTINCT FROM letter.stored_at
            AND d.payload IS NOT NULL
        ORDER BY d.id LIMIT 1)) END
$$;

-- As before; never to a letter that has expired.
CREATE OR REPLACE FUNCTION jetcopy.hand_payload_on()
    RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old record;
    heir bigint;
BEGIN
    FOR old IN SELECT * FROM gone WHERE payload IS NOT NULL LOOP
        SELECT (array_agg(stays.id ORDER BY stays.id))[1] INTO heir
        FROM (SELECT d.id, d.payload IS NOT NULL AS has_it FROM jetcopy.dead_letters d
              WHERE d.pipeline = old.pipeline AND d.sequence = old.sequence AND d.shard = old.shard
                  AND d.stream = old.stream AND d.stored_at IS NOT DISTINCT FROM old.stored_at
                  AND d.expired_at IS NULL
              ORDER BY d.id FOR UPDATE) AS stays
        HAVING NOT bool_or(stays.has_it);
        IF heir IS NOT NULL THEN
            UPDATE jetcopy.dead_letters SET payload = old.payload WHERE id = heir;
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;

-- Takes payload and headers off letters that are older than jetcopy.store_life says, and shortens their reasons;
-- how many. All letters of a message expire together, once the last of them failed that long ago. A message of
-- which somebody has locked a letter is left for the next call; so is what is beyond a thousand. Anybody may call
-- it: it does what the settings say and no more.
CREATE FUNCTION jetcopy.expire_dead_letters()
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
        SET expired_at = now(), payload = NULL, headers = NULL, message = left(d.message, 200)
        WHERE d.id = ANY (locked) AND NOT EXISTS (
            SELECT FROM jetcopy.dead_letters s
            WHERE s.pipeline = d.pipeline AND s.sequence = d.sequence AND s.shard = d.shard
                AND s.stream = d.stream AND s.stored_at IS NOT DISTINCT FROM d.stored_at
                AND s.expired_at IS NULL AND (s.failed_at >= until OR NOT s.id = ANY (locked)));
    GET DIAGNOSTICS expired = ROW_COUNT;
    RETURN expired;
END
$$;
