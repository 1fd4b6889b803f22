-- The ledger of several writers. Each lane counts what its own commits carried, in its own row, and its seals
-- are a chain of their own: no lane waits for another. Where the number of writers changes, one seal of the
-- first chain stands for the ends of all.

ALTER TABLE jetcopy.lanes
    ADD COLUMN seal_number bigint NOT NULL DEFAULT 0,
    ADD COLUMN seal_hash bytea,
    ADD COLUMN seal_after bigint NOT NULL DEFAULT 0,
    ADD COLUMN seal_to bigint NOT NULL DEFAULT 0,
    ADD COLUMN seal_messages bigint NOT NULL DEFAULT 0,
    ADD COLUMN seal_letters bigint NOT NULL DEFAULT 0,
    ADD COLUMN seal_superseded bigint NOT NULL DEFAULT 0,
    ADD COLUMN seal_tables text[] NOT NULL DEFAULT '{}',
    ADD COLUMN seal_rows bigint[] NOT NULL DEFAULT '{}',
    ADD COLUMN seal_unstored bigint[] NOT NULL DEFAULT '{}',
    ADD COLUMN seal_first_at timestamptz,
    ADD COLUMN seal_digest bytea;

COMMENT ON COLUMN jetcopy.lanes.seal_number IS 'The lane''s last seal, 0 before the first';
COMMENT ON COLUMN jetcopy.lanes.seal_hash IS 'Its hash';
COMMENT ON COLUMN jetcopy.lanes.seal_after IS 'The sequence that it ends at';
COMMENT ON COLUMN jetcopy.lanes.seal_to IS 'The last sequence that commits of the lane have come to since';
COMMENT ON COLUMN jetcopy.lanes.seal_messages IS
    'How many messages the lane has committed since the last seal';
COMMENT ON COLUMN jetcopy.lanes.seal_letters IS 'How many dead letters of them were stored';
COMMENT ON COLUMN jetcopy.lanes.seal_superseded IS
    'How many messages between them the stream had removed before they were read';
COMMENT ON COLUMN jetcopy.lanes.seal_tables IS 'The tables that their rows went to';
COMMENT ON COLUMN jetcopy.lanes.seal_rows IS 'How many rows went to each of them';
COMMENT ON COLUMN jetcopy.lanes.seal_unstored IS
    'How many of these the server took and did not store, because of on_conflict or a trigger';
COMMENT ON COLUMN jetcopy.lanes.seal_first_at IS 'When the stream stored the first of these messages';
COMMENT ON COLUMN jetcopy.lanes.seal_digest IS
    'BLAKE3 over sequence, length and payload of each of them; NULL with ledger.digest = "none"';

ALTER TABLE jetcopy.seals ADD COLUMN lanes integer, ADD COLUMN block bigint;

COMMENT ON COLUMN jetcopy.seals.lane IS
    'Whose chain: that of the only writer, or of the first of several, is 0, and each further writer has its '
    'own';
COMMENT ON COLUMN jetcopy.seals.number IS 'Number of the seal in its chain, from 1 without a gap';
COMMENT ON COLUMN jetcopy.seals.kind IS
    'committed: a stretch of the stream. lanes: the writers are others from here on. Else the checkpoint '
    'moved without commits: begun (where the ledger begins), lost, recreated, rewound, rebuilt, moved';
COMMENT ON COLUMN jetcopy.seals.digest IS
    'BLAKE3 over each message: its sequence and the length of its payload, 8 bytes each, little end '
    'first, then the payload; NULL with ledger.digest = "none". In the first chain, of the kind lanes: '
    'SHA-256 over the hashes of this kind in the other chains, in their order';
COMMENT ON COLUMN jetcopy.seals.lanes IS
    'Of how many writers this is one, or is to be one from here on; NULL: the only one. The stretch is then '
    'that of the sequences s of the lane: those of which (s - 1) / block leaves the lane when divided by it';
COMMENT ON COLUMN jetcopy.seals.block IS 'How many sequences in a row are of the same lane';
COMMENT ON COLUMN jetcopy.seals.hash IS
    'SHA-256 over all of these and the hash of the seal before in its chain';
COMMENT ON TABLE jetcopy.seals IS
    'What was committed of a stream, stretch by stretch, and each move of a checkpoint by other '
    'means; some 300 bytes each, for each writer at most one in five minutes or five million messages and '
    'one a claim';

-- Of one writer, the same as before.
CREATE OR REPLACE FUNCTION jetcopy.seal_text(seal jetcopy.seals, hash_before bytea) RETURNS text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT concat_ws(E'\n', seal.shard, seal.lane, seal.number, seal.kind, seal.stream,
        coalesce((extract(epoch FROM seal.stream_created) * 1000000)::bigint::text, '-'),
        seal.from_sequence, seal.to_sequence,
        coalesce((extract(epoch FROM seal.first_stored_at) * 1000000)::bigint::text, '-'),
        coalesce((extract(epoch FROM seal.last_stored_at) * 1000000)::bigint::text, '-'),
        seal.messages, seal.letters, seal.superseded, seal.tables::text, seal.rows::text, seal.unstored::text,
        coalesce(encode(seal.digest, 'hex'), '-'), seal.epoch,
        (extract(epoch FROM seal.sealed_at) * 1000000)::bigint, seal.lanes, seal.block,
        coalesce(encode(hash_before, 'hex'), '-'))
$$;

-- Of a lane whose row is there, the lane's; else the shard's own. The shard's row comes before the lane's, as
-- in a claim, and is only kept from going away: lanes that seal at the same time do not wait.
CREATE OR REPLACE FUNCTION jetcopy.close_seal(of_shard text, of_lane integer DEFAULT 0,
        moved_as text DEFAULT 'moved', always boolean DEFAULT false)
    RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c jetcopy.checkpoints;
    l jetcopy.lanes;
    seal jetcopy.seals;
BEGIN
    PERFORM FROM jetcopy.lanes WHERE shard = of_shard AND lane = of_lane;
    IF FOUND THEN
        SELECT * INTO c FROM jetcopy.checkpoints WHERE shard = of_shard FOR KEY SHARE;
        SELECT * INTO l FROM jetcopy.lanes WHERE shard = of_shard AND lane = of_lane FOR UPDATE;
        c.last_sequence := l.last_sequence;
        c.last_timestamp := l.last_timestamp;
        c.seal_number := l.seal_number;
        c.seal_hash := l.seal_hash;
        c.seal_after := l.seal_after;
        c.seal_to := l.seal_to;
        c.seal_messages := l.seal_messages;
        c.seal_letters := l.seal_letters;
        c.seal_superseded := l.seal_superseded;
        c.seal_tables := l.seal_tables;
        c.seal_rows := l.seal_rows;
        c.seal_unstored := l.seal_unstored;
        c.seal_first_at := l.seal_first_at;
        c.seal_digest := l.seal_digest;
        IF c.seal_number = 0 THEN
            SELECT coalesce(s.number, 0), s.hash, coalesce(s.to_sequence, 0), coalesce(s.to_sequence, 0)
            INTO c.seal_number, c.seal_hash, c.seal_after, c.seal_to
            FROM jetcopy.last_seal(of_shard, of_lane) s;
        END IF;
    ELSE
        SELECT * INTO c FROM jetcopy.checkpoints WHERE shard = of_shard FOR UPDATE;
    END IF;
    IF c.shard IS NULL THEN
        RETURN NULL;
    END IF;
    IF c.seal_to <> c.seal_after OR c.seal_messages > 0 THEN
        seal := ROW(c.shard, of_lane, c.seal_number + 1, 'committed', c.stream, c.stream_created,
            c.seal_after + 1, c.seal_to, c.seal_first_at,
            CASE WHEN c.last_sequence = c.seal_to THEN c.last_timestamp END,
            c.seal_messages, c.seal_letters, c.seal_superseded, c.seal_tables, c.seal_rows, c.seal_unstored,
            c.seal_digest, c.epoch, clock_timestamp(), NULL, l.lanes, l.block);
        seal.hash := sha256(convert_to(jetcopy.seal_text(seal, c.seal_hash), 'UTF8'));
        INSERT INTO jetcopy.seals VALUES (seal.*);
        c.seal_number := seal.number;
        c.seal_hash := seal.hash;
    END IF;
    IF c.last_sequence <> c.seal_to OR always THEN
        seal := ROW(c.shard, of_lane, c.seal_number + 1,
            CASE WHEN c.seal_number = 0 THEN 'begun'
                WHEN c.last_sequence < c.seal_to AND moved_as = 'moved' THEN 'rewound'
                ELSE moved_as END,
            c.stream, c.stream_created, c.seal_to, c.last_sequence, NULL, NULL, 0, 0, 0, '{}', '{}', '{}',
            NULL, c.epoch, clock_timestamp(), NULL, l.lanes, l.block);
        seal.hash := sha256(convert_to(jetcopy.seal_text(seal, c.seal_hash), 'UTF8'));
        INSERT INTO jetcopy.seals VALUES (seal.*);
        c.seal_number := seal.number;
        c.seal_hash := seal.hash;
    END IF;
    IF l.shard IS NULL THEN
        UPDATE jetcopy.checkpoints SET seal_number = c.seal_number, seal_hash = c.seal_hash,
                seal_after = last_sequence, seal_to = last_sequence, seal_messages = 0, seal_letters = 0,
                seal_superseded = 0, seal_tables = '{}', seal_rows = '{}', seal_unstored = '{}',
                seal_first_at = NULL, seal_digest = NULL,
                verified_sequence = CASE WHEN verified_sequence > last_sequence THEN last_sequence
                    ELSE verified_sequence END
            WHERE shard = of_shard
                AND (seal_number <> c.seal_number OR verified_sequence > last_sequence);
    ELSIF l.seal_number <> c.seal_number THEN
        UPDATE jetcopy.lanes SET seal_number = c.seal_number, seal_hash = c.seal_hash,
                seal_after = last_sequence, seal_to = last_sequence, seal_messages = 0, seal_letters = 0,
                seal_superseded = 0, seal_tables = '{}', seal_rows = '{}', seal_unstored = '{}',
                seal_first_at = NULL, seal_digest = NULL
            WHERE shard = of_shard AND lane = of_lane;
        UPDATE jetcopy.checkpoints SET verified_sequence = jetcopy.floor(of_shard)
            WHERE shard = of_shard AND c.last_sequence < l.seal_to
                AND verified_sequence > jetcopy.floor(of_shard);
    END IF;
    RETURN c.seal_number;
END
$$;
COMMENT ON FUNCTION jetcopy.close_seal IS
    'Seals what a shard, or one of its lanes, has committed since the last seal; returns the number of the '
    'last seal';

CREATE FUNCTION jetcopy.close_seals(of_shard text, moved_as text DEFAULT 'moved') RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    of_lane integer;
    several boolean := false;
BEGIN
    FOR of_lane IN SELECT lane FROM jetcopy.lanes WHERE shard = of_shard ORDER BY lane LOOP
        PERFORM jetcopy.close_seal(of_shard, of_lane, moved_as);
        several := true;
    END LOOP;
    IF NOT several THEN
        PERFORM jetcopy.close_seal(of_shard, 0, moved_as);
    END IF;
END
$$;
COMMENT ON FUNCTION jetcopy.close_seals IS
    'Seals what all writers of a shard have committed since their last seals';

-- Whoever writes may add seals and read none.
CREATE FUNCTION jetcopy.last_seal(of_shard text, of_lane integer,
        OUT number bigint, OUT hash bytea, OUT to_sequence bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.number, s.hash, s.to_sequence FROM jetcopy.seals s
    WHERE s.shard = of_shard AND s.lane = of_lane ORDER BY s.number DESC LIMIT 1
$$;
COMMENT ON FUNCTION jetcopy.last_seal IS 'The last seal of a chain that no row of jetcopy.lanes goes on from';

-- Gives a shard other writers, in the transaction that calls it, where the shard's own row says that it
-- stands: all of them begin there. Every chain that ends or goes on gets a seal of it, the first chain last.
-- For whoever has fenced the writers that there were.
CREATE FUNCTION jetcopy.set_lanes(of_shard text, to_lanes integer, to_block bigint) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c jetcopy.checkpoints;
    before jetcopy.lanes;
    seal jetcopy.seals;
    had integer;
    hashes bytea := '';
BEGIN
    PERFORM FROM jetcopy.checkpoints WHERE shard = of_shard FOR UPDATE;
    PERFORM FROM jetcopy.lanes WHERE shard = of_shard ORDER BY lane FOR UPDATE;
    SELECT count(*) INTO had FROM jetcopy.lanes WHERE shard = of_shard;
    IF had = 0 AND to_lanes = 1 THEN
        RETURN;
    END IF;
    PERFORM jetcopy.close_seals(of_shard);
    SELECT * INTO c FROM jetcopy.checkpoints WHERE shard = of_shard;
    FOR of_lane IN REVERSE greatest(had, to_lanes) - 1 .. 0 LOOP
        before := NULL;
        IF of_lane < had THEN
            SELECT * INTO before FROM jetcopy.lanes WHERE shard = of_shard AND lane = of_lane;
        ELSIF of_lane = 0 THEN
            before.seal_number := c.seal_number;
            before.seal_hash := c.seal_hash;
            before.seal_to := c.seal_to;
        ELSE
            SELECT number, hash, to_sequence INTO before.seal_number, before.seal_hash, before.seal_to
            FROM jetcopy.last_seal(of_shard, of_lane);
        END IF;
        seal := ROW(of_shard, of_lane, coalesce(before.seal_number, 0) + 1, 'lanes', c.stream,
            c.stream_created, coalesce(before.seal_to, 0), c.last_sequence, NULL, NULL, 0, 0, 0, '{}', '{}',
            '{}', CASE WHEN of_lane = 0 THEN sha256(hashes) END, c.epoch, clock_timestamp(), NULL,
            CASE WHEN to_lanes > 1 THEN to_lanes END, CASE WHEN to_lanes > 1 THEN to_block END);
        seal.hash := sha256(convert_to(jetcopy.seal_text(seal, before.seal_hash), 'UTF8'));
        INSERT INTO jetcopy.seals VALUES (seal.*);
        hashes := seal.hash || hashes;
        IF to_lanes = 1 AND of_lane = 0 THEN
            UPDATE jetcopy.checkpoints SET seal_number = seal.number, seal_hash = seal.hash,
                    seal_after = last_sequence, seal_to = last_sequence
                WHERE shard = of_shard;
        ELSIF of_lane < to_lanes THEN
            INSERT INTO jetcopy.lanes (shard, lane, lanes, block, epoch, last_sequence, last_timestamp,
                    seal_number, seal_hash, seal_after, seal_to)
                VALUES (of_shard, of_lane, to_lanes, to_block, c.epoch, c.last_sequence, c.last_timestamp,
                    seal.number, seal.hash, c.last_sequence, c.last_sequence)
                ON CONFLICT (shard, lane) DO UPDATE SET lanes = excluded.lanes, block = excluded.block,
                    epoch = excluded.epoch, last_sequence = excluded.last_sequence,
                    last_timestamp = excluded.last_timestamp, updated_at = now(),
                    seal_number = excluded.seal_number, seal_hash = excluded.seal_hash,
                    seal_after = excluded.seal_after, seal_to = excluded.seal_to;
        END IF;
    END LOOP;
    DELETE FROM jetcopy.lanes WHERE shard = of_shard AND (to_lanes = 1 OR lane >= to_lanes);
    UPDATE jetcopy.checkpoints SET verified_sequence = last_sequence
        WHERE shard = of_shard AND verified_sequence > last_sequence;
END
$$;
COMMENT ON FUNCTION jetcopy.set_lanes IS
    'Gives a shard another number of writers, or other blocks, and seals that; with one, none has a lane';

-- Lanes that are under way: their ledger begins where they stand. The first goes on with the shard's chain.
DO $$
DECLARE
    under_way record;
BEGIN
    LOCK TABLE jetcopy.lanes IN SHARE ROW EXCLUSIVE MODE;
    UPDATE jetcopy.lanes l SET seal_number = c.seal_number, seal_hash = c.seal_hash, seal_after = c.seal_to,
            seal_to = c.seal_to
        FROM jetcopy.checkpoints c WHERE c.shard = l.shard AND l.lane = 0;
    FOR under_way IN SELECT shard, lane FROM jetcopy.lanes ORDER BY shard, lane LOOP
        PERFORM jetcopy.close_seal(under_way.shard, under_way.lane, 'begun', true);
    END LOOP;
END
$$;

SET LOCAL check_function_bodies = off;

-- As in V12, whatever writers the shard has had.
CREATE OR REPLACE FUNCTION jetcopy.take_registry(fresh_schema name, pipeline text, rebuilt_by text)
    RETURNS bigint
    LANGUAGE plpgsql
AS $$
DECLARE
    used jetcopy.checkpoints;
    rebuilt jetcopy.checkpoints;
    name text;
BEGIN
    PERFORM FROM jetcopy.checkpoints c WHERE c.shard IN (take_registry.pipeline, rebuilt_by)
        ORDER BY c.shard FOR UPDATE;
    PERFORM FROM jetcopy.lanes l WHERE l.shard = take_registry.pipeline ORDER BY l.lane FOR UPDATE;
    SELECT * INTO used FROM jetcopy.checkpoints c WHERE c.shard = take_registry.pipeline;
    SELECT * INTO rebuilt FROM jetcopy.checkpoints c WHERE c.shard = rebuilt_by;
    IF used.shard IS NULL OR rebuilt.shard IS NULL THEN
        RAISE EXCEPTION 'there is no checkpoint of %',
            CASE WHEN used.shard IS NULL THEN take_registry.pipeline ELSE rebuilt_by END
            USING HINT = 'jetcopy replay leaves one with --keep-checkpoint; '
                'see jetcopy.checkpoints for those that there are.';
    END IF;
    IF (used.stream, used.stream_created) IS DISTINCT FROM (rebuilt.stream, rebuilt.stream_created) THEN
        RAISE EXCEPTION 'pipeline % reads stream % and % was made of another: '
            'their positions cannot be compared',
            take_registry.pipeline, used.stream, rebuilt_by;
    END IF;
    -- A replay is called after its stretch; one that was interrupted has not come to its end.
    IF NOT starts_with(rebuilt_by, take_registry.pipeline || '-replay-1-') THEN
        RAISE EXCEPTION '% is no replay of pipeline % from sequence 1: '
            'what was in the stream before would be missing',
            rebuilt_by, take_registry.pipeline
            USING HINT = 'Replay the whole stream; where it does not hold its first message any more, '
                'the registry cannot be rebuilt.';
    END IF;
    IF rebuilt.last_sequence <> right(rebuilt_by,
        -length(take_registry.pipeline || '-replay-1-'))::bigint THEN
        RAISE EXCEPTION '% was interrupted after sequence %', rebuilt_by, rebuilt.last_sequence
            USING HINT = 'Give the same command again; it goes on from there.';
    END IF;
    -- Days whose partitions retention has dropped since, however old they are.
    IF EXISTS (SELECT FROM jetcopy.partitioned_tables t WHERE t.relation = 'operations_log'::regclass) THEN
        EXECUTE pg_catalog.format('SELECT jetcopy.add_partition(''operations_log''::regclass, day)
            FROM (SELECT DISTINCT (o.timestamp AT TIME ZONE ''UTC'')::date AS day
                FROM %I.operations_log o) AS days', fresh_schema);
    END IF;
    FOREACH name IN ARRAY ARRAY['projects', 'files', 'operations_log'] LOOP
        EXECUTE pg_catalog.format('TRUNCATE %I', name);
        EXECUTE pg_catalog.format('INSERT INTO %I SELECT * FROM %I.%I', name, fresh_schema, name);
    END LOOP;
    -- What could not become a row is known of the replay, up to its end; what comes after is moved again.
    DELETE FROM jetcopy.dead_letters d WHERE d.pipeline = take_registry.pipeline;
    UPDATE jetcopy.dead_letters d SET pipeline = take_registry.pipeline, shard = take_registry.pipeline
        WHERE d.pipeline = rebuilt_by;
    PERFORM jetcopy.close_seals(take_registry.pipeline);
    UPDATE jetcopy.checkpoints c
        SET last_sequence = rebuilt.last_sequence, last_timestamp = rebuilt.last_timestamp,
            epoch = c.epoch + 1, updated_at = now()
        WHERE c.shard = take_registry.pipeline;
    PERFORM jetcopy.set_lanes(take_registry.pipeline, 1, 1);
    -- What the tables hold has another history now.
    PERFORM jetcopy.close_seal(take_registry.pipeline, 0, 'rebuilt', true);
    DELETE FROM jetcopy.checkpoints c WHERE c.shard = rebuilt_by;
    RETURN rebuilt.last_sequence;
END
$$;

SET LOCAL check_function_bodies = on;
