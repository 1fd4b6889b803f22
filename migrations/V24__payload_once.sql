-- A message's payload is kept once, in the first of its dead letters; the others of the same message are NULL there.
ALTER TABLE jetcopy.dead_letters ALTER COLUMN payload DROP NOT NULL;

-- The payload of a letter's message: `SELECT jetcopy.payload_of(d) FROM jetcopy.dead_letters d`.
CREATE FUNCTION jetcopy.payload_of(letter jetcopy.dead_letters)
    RETURNS bytea
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(letter.payload, (
        SELECT d.payload FROM jetcopy.dead_letters d
        WHERE d.pipeline = letter.pipeline AND d.sequence = letter.sequence AND d.shard = letter.shard AND d.stream = letter.stream
            AND d.stored_at IS NOT DISTINCT FROM letter.stored_at AND d.payload IS NOT NULL
        ORDER BY d.id LIMIT 1))
$$;

-- Hands the payload of letters that go on to one that stays. All that stay are locked, so that none of them goes meanwhile.
CREATE FUNCTION jetcopy.hand_payload_on()
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
              WHERE d.pipeline = old.pipeline AND d.sequence = old.sequence AND d.shard = old.shard AND d.stream = old.stream
                  AND d.stored_at IS NOT DISTINCT FROM old.stored_at
              ORDER BY d.id FOR UPDATE) AS stays
        HAVING NOT bool_or(stays.has_it);
        IF heir IS NOT NULL THEN
            UPDATE jetcopy.dead_letters SET payload = old.payload WHERE id = heir;
        END IF;
    END LOOP;
    RETURN NULL;
END
$$;

CREATE TRIGGER hand_payload_on AFTER DELETE ON jetcopy.dead_letters
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION jetcopy.hand_payload_on();
