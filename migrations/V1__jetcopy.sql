-- What the daemon knows: positions, losses, dead letters, and the shapes of the tables that it writes to. The
-- schema itself is there already, with the history of migrations.

COMMENT ON TABLE jetcopy.schema_history IS 'Migrations that were applied';
COMMENT ON COLUMN jetcopy.schema_history.version IS 'Number of the migration';
COMMENT ON COLUMN jetcopy.schema_history.name IS 'Its name';
COMMENT ON COLUMN jetcopy.schema_history.checksum IS 'SHA-256 of its text, in hexadecimal digits';
COMMENT ON COLUMN jetcopy.schema_history.applied_at IS 'When it was applied';

-- Positions

-- A row is updated with every batch. No index but the key's holds a column that changes, and with most of the
-- page free each new version finds room beside the old one: updates stay heap-only, and the table stays one
-- page long.
CREATE TABLE jetcopy.checkpoints (
    shard text PRIMARY KEY,
    pipeline text NOT NULL,
    stream text NOT NULL,
    stream_created timestamptz,
    last_sequence bigint NOT NULL DEFAULT 0 CHECK (last_sequence >= 0),
    last_timestamp timestamptz,
    -- 0: the stream was empty when the checkpoint was made.
    known_sequence bigint DEFAULT 0,
    epoch bigint NOT NULL DEFAULT 0,
    owner text,
    lease_until timestamptz,
    paused_at timestamptz,
    paused_by text,
    -- A commit that uses the permission reduces it by what it used.
    accepted_letters bigint NOT NULL DEFAULT 0 CHECK (accepted_letters >= 0),
    flood jsonb,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 20);

COMMENT ON TABLE jetcopy.checkpoints IS
    'The truth about position: rows of sequences up to '
    'last_sequence are in the tables, rows above it are not';
COMMENT ON COLUMN jetcopy.checkpoints.shard IS 'The shard: that of a pipeline is named like it';
COMMENT ON COLUMN jetcopy.checkpoints.pipeline IS 'The pipeline';
COMMENT ON COLUMN jetcopy.checkpoints.stream IS 'The stream that it reads';
COMMENT ON COLUMN jetcopy.checkpoints.stream_created IS
    'When that was created: another time is another stream of the same name';
COMMENT ON COLUMN jetcopy.checkpoints.last_sequence IS 'The last sequence whose rows are committed';
COMMENT ON COLUMN jetcopy.checkpoints.last_timestamp IS 'When the stream stored that message';
COMMENT ON COLUMN jetcopy.checkpoints.known_sequence IS
    'Up to here it is no news that the stream lacks messages';
COMMENT ON COLUMN jetcopy.checkpoints.epoch IS
    'Raised by each writer that takes the shard over; every commit compares it';
COMMENT ON COLUMN jetcopy.checkpoints.owner IS 'Who writes';
COMMENT ON COLUMN jetcopy.checkpoints.lease_until IS 'How long others wait for the owner';
COMMENT ON COLUMN jetcopy.checkpoints.paused_at IS
    'When an operator paused it; while it is set, no daemon claims the shard';
COMMENT ON COLUMN jetcopy.checkpoints.paused_by IS 'Who did';
COMMENT ON COLUMN jetcopy.checkpoints.accepted_letters IS
    'Dead letters that somebody agreed to, which are left to write '
    'before a flood of them pauses the pipeline again';
COMMENT ON COLUMN jetcopy.checkpoints.flood IS
    'Why a flood of dead letters stopped the pipeline; the next commit takes it away';
COMMENT ON COLUMN jetcopy.checkpoints.updated_at IS 'When the row changed';

-- By these a stream is recognized that was restored or moved, and so says that it was created at another
-- time.
CREATE TABLE jetcopy.milestones (
    shard text NOT NULL,
    number bigint NOT NULL,
    sequence bigint NOT NULL,
    stored_at timestamptz NOT NULL,
    PRIMARY KEY (shard, number)
);

COMMENT ON TABLE jetcopy.milestones IS
    'Messages that were committed, some dozens a shard, by which a '
    'stream is known again that was restored or moved';
COMMENT ON COLUMN jetcopy.milestones.shard IS 'The shard';
COMMENT ON COLUMN jetcopy.milestones.number IS 'Number of the milestone';
COMMENT ON COLUMN jetcopy.milestones.sequence IS 'The message''s sequence';
COMMENT ON COLUMN jetcopy.milestones.stored_at IS 'When the stream stored it';

-- Other tables forget: letters are settled, losses are cleared away.
CREATE TABLE jetcopy.tallies (
    shard text NOT NULL REFERENCES jetcopy.checkpoints ON DELETE CASCADE,
    event text NOT NULL,
    kind text NOT NULL DEFAULT '',
    times bigint NOT NULL,
    messages bigint NOT NULL,
    newest_at timestamptz NOT NULL,
    PRIMARY KEY (shard, event, kind)
);

COMMENT ON TABLE jetcopy.tallies IS
    'What happened to a shard, counted in the transactions in which it happened; daemons report it';
COMMENT ON COLUMN jetcopy.tallies.shard IS 'The shard, as in jetcopy.checkpoints';
COMMENT ON COLUMN jetcopy.tallies.event IS 'dead_letter, loss, replay or superseded';
COMMENT ON COLUMN jetcopy.tallies.kind IS
    'Of a dead letter its kind, of a loss its cause; empty where there is but one';
COMMENT ON COLUMN jetcopy.tallies.times IS 'How often';
COMMENT ON COLUMN jetcopy.tallies.messages IS 'Stream sequences that were lost, replayed or superseded';
COMMENT ON COLUMN jetcopy.tallies.newest_at IS 'When the newest was';

-- Losses

-- A pipeline that halts finds the same loss at each look and records it once; it goes on when somebody
-- accepted it (`jetcopy accept-loss`).
CREATE TABLE jetcopy.losses (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pipeline text NOT NULL,
    shard text NOT NULL,
    stream text NOT NULL,
    stream_created timestamptz NOT NULL,
    first_sequence bigint NOT NULL,
    -- NULL: nobody has counted what a stream held that is gone.
    last_sequence bigint,
    messages bigint,
    cause text NOT NULL,
    detected_at timestamptz NOT NULL DEFAULT now(),
    accepted_at timestamptz,
    resume_after bigint CHECK (resume_after >= 0)
);

COMMENT ON TABLE jetcopy.losses IS 'Ranges of a stream that were gone before they were read';
COMMENT ON COLUMN jetcopy.losses.id IS 'Number of the loss';
COMMENT ON COLUMN jetcopy.losses.pipeline IS 'The pipeline';
COMMENT ON COLUMN jetcopy.losses.shard IS 'Its shard';
COMMENT ON COLUMN jetcopy.losses.stream IS 'The stream';
COMMENT ON COLUMN jetcopy.losses.stream_created IS
    'When the stream was created that was found: it can be '
    'another than the one that the checkpoint counted in';
COMMENT ON COLUMN jetcopy.losses.first_sequence IS 'The first sequence that is gone';
COMMENT ON COLUMN jetcopy.losses.last_sequence IS 'The last one; NULL where it cannot be known';
COMMENT ON COLUMN jetcopy.losses.messages IS
    'How many messages are missing between the two, where it is not all of them';
COMMENT ON COLUMN jetcopy.losses.cause IS 'Why they are gone';
COMMENT ON COLUMN jetcopy.losses.detected_at IS 'When that was found';
COMMENT ON COLUMN jetcopy.losses.accepted_at IS
    'When somebody agreed to it (jetcopy accept-loss); NULL: nobody has';
COMMENT ON COLUMN jetcopy.losses.resume_after IS
    'After which sequence somebody wants the pipeline to go on; NULL leaves it to jetcopy';

-- Dead letters

CREATE TABLE jetcopy.dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pipeline text NOT NULL,
    shard text NOT NULL,
    stream text NOT NULL,
    sequence bigint NOT NULL,
    -- When the stream stored the message: a retry can give columns their `$timestamp`.
    stored_at timestamptz,
    subject text NOT NULL,
    -- What text cannot hold is U+FFFD in the subject and the headers; of a broken header block they have what
    -- can be read.
    raw_subject bytea,
    headers jsonb,
    raw_headers bytea,
    payload bytea,
    kind text NOT NULL,
    sqlstate text,
    message text NOT NULL,
    table_name text,
    column_name text,
    -- With bad_element = "element" a letter is about single elements, while the others become rows.
    element integer CHECK (element >= 0),
    elements integer[],
    failed_at timestamptz NOT NULL DEFAULT now(),
    -- The letter itself stays: it must be known that its message is not among the rows.
    expired_at timestamptz
);

CREATE INDEX dead_letters_pipeline_sequence ON jetcopy.dead_letters (pipeline, sequence);
CREATE INDEX dead_letters_failed_at ON jetcopy.dead_letters (failed_at) WHERE expired_at IS NULL;

COMMENT ON TABLE jetcopy.dead_letters IS
    'Messages, or elements of them, that cannot become rows, each '
    'written in the transaction that moves the checkpoint past it';
COMMENT ON COLUMN jetcopy.dead_letters.id IS 'Number of the letter';
COMMENT ON COLUMN jetcopy.dead_letters.pipeline IS 'The pipeline';
COMMENT ON COLUMN jetcopy.dead_letters.shard IS 'Its shard';
COMMENT ON COLUMN jetcopy.dead_letters.stream IS 'The stream that the message is of';
COMMENT ON COLUMN jetcopy.dead_letters.sequence IS 'The message''s sequence in it';
COMMENT ON COLUMN jetcopy.dead_letters.stored_at IS 'When the stream stored the message';
COMMENT ON COLUMN jetcopy.dead_letters.subject IS 'The message''s subject';
COMMENT ON COLUMN jetcopy.dead_letters.raw_subject IS
    'The subject as it was published, where subject is not that; empty where '
    'it is not UTF-8, since JetStream gives no such bytes out';
COMMENT ON COLUMN jetcopy.dead_letters.headers IS 'The message''s headers: {"name": ["value", …]}';
COMMENT ON COLUMN jetcopy.dead_letters.raw_headers IS
    'The header block as it was published, where headers has not all of it';
COMMENT ON COLUMN jetcopy.dead_letters.payload IS
    'The message''s payload, in the first of its letters; see jetcopy.payload_of(). NULL in the others';
COMMENT ON COLUMN jetcopy.dead_letters.kind IS
    'The kind of fault: malformed, missing, type, range, unmatched, or refused by the server';
COMMENT ON COLUMN jetcopy.dead_letters.sqlstate IS 'The server''s code, where it refused the row';
COMMENT ON COLUMN jetcopy.dead_letters.message IS 'What is wrong, and where';
COMMENT ON COLUMN jetcopy.dead_letters.table_name IS 'The table that the row was for';
COMMENT ON COLUMN jetcopy.dead_letters.column_name IS 'The column that the fault is in';
COMMENT ON COLUMN jetcopy.dead_letters.element IS
    'The first element that the letter is about: its place in the '
    'array of for_each, from 0. NULL: the message as a whole';
COMMENT ON COLUMN jetcopy.dead_letters.elements IS 'All places that it is about, where they are several';
COMMENT ON COLUMN jetcopy.dead_letters.failed_at IS 'When the letter was written';
COMMENT ON COLUMN jetcopy.dead_letters.expired_at IS 'When its payload went by its age; NULL: it has not';

-- `SELECT jetcopy.payload_of(d) FROM jetcopy.dead_letters d`; of a letter that has expired, nothing.
CREATE FUNCTION jetcopy.payload_of(letter jetcopy.dead_letters)
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
COMMENT ON FUNCTION jetcopy.payload_of IS 'The payload of a letter''s message';

-- All letters that stay are locked, so that none of them goes meanwhile. One that has expired gets nothing.
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
COMMENT ON FUNCTION jetcopy.hand_payload_on IS
    'Hands the payload of letters that go on to one of the same message that stays, as a trigger';

CREATE TRIGGER hand_payload_on AFTER DELETE ON jetcopy.dead_letters
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION jetcopy.hand_payload_on();

-- All letters of a message expire together, once the last of them failed that long ago; their reasons are
-- shortened. A message of which somebody has locked a letter is left for the next call; so is what is beyond
-- a thousand. Anybody may call it: it does what jetcopy.store_life says and no more.
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
        SET expired_at = now(), payload = NULL, headers = NULL, raw_headers = NULL,
            message = left(d.message, 200)
        WHERE d.id = ANY (locked) AND NOT EXISTS (
            SELECT FROM jetcopy.dead_letters s
            WHERE s.pipeline = d.pipeline AND s.sequence = d.sequence AND s.shard = d.shard
                AND s.stream = d.stream AND s.stored_at IS NOT DISTINCT FROM d.stored_at
                AND s.expired_at IS NULL AND (s.failed_at >= until OR NOT s.id = ANY (locked)));
    GET DIAGNOSTICS expired = ROW_COUNT;
    RETURN expired;
END
$$;
COMMENT ON FUNCTION jetcopy.expire_dead_letters IS
    'Takes payload and headers off letters that are older than their retention; returns how many';

-- A daemon may add dead letters and not read them, and reports how many there are.
CREATE FUNCTION jetcopy.dead_letter_counts()
    RETURNS TABLE (pipeline text, letters bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pipeline, count(*) FROM jetcopy.dead_letters GROUP BY 1
$$;
COMMENT ON FUNCTION jetcopy.dead_letter_counts IS 'How many dead letters of each pipeline there are';

-- A flood's messages are no dead letters: they are still to come.
CREATE VIEW jetcopy.flood_samples AS
    SELECT c.pipeline, c.shard, c.stream, (c.flood ->> 'at')::timestamptz AS seen_at,
        s.sequence, s.subject, s.kind, s.sqlstate, s.message, s.table_name, s.column_name, s.element,
        decode(s.payload, 'base64') AS payload, s.payload_bytes
    FROM jetcopy.checkpoints c
    CROSS JOIN LATERAL jsonb_to_recordset(c.flood -> 'samples') AS s (
        sequence bigint, subject text, kind text, sqlstate text, message text, table_name text,
        column_name text,
        element integer, payload text, payload_bytes bigint);

COMMENT ON VIEW jetcopy.flood_samples IS
    'The first messages of a flood that stopped a pipeline; of a long '
    'payload the beginning, payload_bytes says how long it is';
COMMENT ON COLUMN jetcopy.flood_samples.pipeline IS 'The pipeline';
COMMENT ON COLUMN jetcopy.flood_samples.shard IS 'Its shard';
COMMENT ON COLUMN jetcopy.flood_samples.stream IS 'The stream that the message is of';
COMMENT ON COLUMN jetcopy.flood_samples.sequence IS 'The message''s sequence in it';
COMMENT ON COLUMN jetcopy.flood_samples.subject IS 'The message''s subject';
COMMENT ON COLUMN jetcopy.flood_samples.payload IS 'The beginning of its payload';
COMMENT ON COLUMN jetcopy.flood_samples.payload_bytes IS 'Size of its payload, in bytes';
COMMENT ON COLUMN jetcopy.flood_samples.kind IS 'The kind of fault, as in jetcopy.dead_letters';
COMMENT ON COLUMN jetcopy.flood_samples.sqlstate IS 'The server''s code, where it refused the row';
COMMENT ON COLUMN jetcopy.flood_samples.message IS 'What is wrong, and where';
COMMENT ON COLUMN jetcopy.flood_samples.table_name IS 'The table that the row was for';
COMMENT ON COLUMN jetcopy.flood_samples.column_name IS 'The column that the fault is in';
COMMENT ON COLUMN jetcopy.flood_samples.element IS 'The element that the letter is about, from 0';
COMMENT ON COLUMN jetcopy.flood_samples.seen_at IS 'When it was seen';

-- Shapes of tables

-- What a batch was encoded for: asked under the lock that its rows are written under, and compared with what
-- it was when the table was read. The number differs once anything differs that jetcopy reads about a table:
-- its name, kind and persistence, its columns with their types, defaults and rules, the types that people
-- made among them, its unique keys, rules and roll-ups, and whether rows go to another server.
--
-- Rows of the catalog are known by the transactions that wrote them (xmin): none is changed without a new
-- one, and those only rise. Of a table's columns that is all, for a column that is dropped leaves its row
-- behind, and a default that changes also changes its column's row. Rows that come and go are counted too.
--
-- A table that gets a rule, or loses one, is another one: INSERT goes by it, and COPY does not. So is one
-- that becomes unlogged: a crash of the server would empty it.
CREATE FUNCTION jetcopy.shape(relation regclass) RETURNS bigint
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
    -- Planning costs several times what running does, and the plan is the same for every table.
    SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    -- The first number that initdb gives to nothing.
    first_own CONSTANT oid := 16384;
    known text;
    own_types boolean;
    defaults boolean;
BEGIN
    SELECT concat_ws(' ', count(*), sum(a.xmin::text::bigint)), bool_or(a.atttypid >= first_own),
        bool_or(a.atthasdef)
    INTO known, own_types, defaults
    FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0;

    SELECT concat_ws(' ', known, c.oid, c.relkind, c.relpersistence, row_security_active(c.oid),
        quote_ident(n.nspname), quote_ident(c.relname),
        (SELECT concat_ws(' ', 'unique', count(*), sum(i.xmin::text::bigint))
         FROM pg_index i WHERE i.indrelid = relation AND i.indisunique),
        -- The flag stays for a while once the last rule is gone.
        CASE WHEN c.relhasrules
            THEN (SELECT string_agg(concat_ws(' ', 'rule', r.oid, r.xmin), ' ' ORDER BY r.oid)
         FROM pg_rewrite r WHERE r.ev_class = relation) END,
        (SELECT concat_ws(' ', 'rollups',
            string_agg(concat_ws(' ', r.name, extract(epoch FROM r.width)), ' ' ORDER BY r.name))
         FROM jetcopy.rollups r WHERE r.source = relation),
        (SELECT concat_ws(' ', 'foreign', string_agg(f.ftrelid::text, ' ' ORDER BY f.ftrelid))
         FROM pg_foreign_table f WHERE relation IN (SELECT pg_partition_ancestors(f.ftrelid))))
    INTO known
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;

    IF own_types THEN
        known := concat_ws(' ', known, (
            WITH RECURSIVE types (oid) AS (
                SELECT a.atttypid FROM pg_attribute a
                WHERE a.attrelid = relation AND a.attnum > 0 AND a.atttypid >= first_own
            UNION
                SELECT CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END
                FROM types JOIN pg_type t USING (oid) WHERE t.typtype = 'd' OR t.typelem <> 0
            )
            SELECT string_agg(concat_ws(' ', t.oid, t.xmin, labels), ' ' ORDER BY t.oid)
            FROM types JOIN pg_type t USING (oid)
            CROSS JOIN LATERAL (
                SELECT concat_ws(' ', count(*), sum(e.xmin::text::bigint)) FROM pg_enum e
                    WHERE e.enumtypid = t.oid
            ) AS e (labels)));
    END IF;
    IF defaults THEN
        -- The functions that they call, but the server's own.
        known := concat_ws(' ', known, (
            SELECT string_agg(concat_ws(' ', p.oid, p.xmin), ' ' ORDER BY p.oid)
            FROM pg_attrdef d
            JOIN pg_depend u ON u.classid = 'pg_attrdef'::regclass AND u.objid = d.oid
                AND u.refclassid = 'pg_proc'::regclass
            JOIN pg_proc p ON p.oid = u.refobjid
            WHERE d.adrelid = relation));
    END IF;
    IF to_regclass('_timescaledb_catalog.hypertable') IS NOT NULL THEN
        -- A table that becomes a hypertable keeps its columns. And while a dump is restored, rows would go
        -- past it.
        known := concat_ws(' ', known, current_setting('timescaledb.restoring', true),
            (SELECT string_agg(s.setconfig::text, ' ' ORDER BY s.setrole)
             FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
             WHERE d.datname = current_database() AND 'timescaledb.restoring=on' ILIKE ANY (s.setconfig)),
            (SELECT h.id FROM _timescaledb_catalog.hypertable h
             JOIN pg_class c ON c.relname = h.table_name
             JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = h.schema_name
             WHERE c.oid = relation));
    END IF;
    RETURN hashtextextended(known COLLATE "C", 0);
END
$$;
COMMENT ON FUNCTION jetcopy.shape IS
    'A number that changes with all that jetcopy knows of a table; NULL where there is none';
