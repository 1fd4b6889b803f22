-- The ledger: what each commit carried is counted beside the position that it moved, and sealed from time to
-- time. Seals are chained by hashes, so that none can be altered, added or removed in the middle without a
-- trace; jetcopy audit reads them.

-- The open seal. Whoever writes knows what it has committed since the last seal, and each commit says all of
-- it, with the digest up to there: what a claim finds here is what was committed, whoever did it.
ALTER TABLE jetcopy.checkpoints
    ADD COLUMN seal_number bigint NOT NULL DEFAULT 0,
    ADD COLUMN seal_hash bytea,
    ADD COLUMN seal_after bigint NOT NULL DEFAULT 0,
    -- Another one than last_sequence: the checkpoint was moved by other means than a commit.
    ADD COLUMN seal_to bigint NOT NULL DEFAULT 0,
    ADD COLUMN seal_messages bigint NOT NULL DEFAULT 0,
    ADD COLUMN seal_letters bigint NOT NULL DEFAULT 0,
    ADD COLUMN seal_superseded bigint NOT NULL DEFAULT 0,
    ADD COLUMN seal_tables text[] NOT NULL DEFAULT '{}',
    ADD COLUMN seal_rows bigint[] NOT NULL DEFAULT '{}',
    ADD COLUMN seal_unstored bigint[] NOT NULL DEFAULT '{}',
    ADD COLUMN seal_first_at timestamptz,
    ADD COLUMN seal_digest bytea,
    ADD COLUMN verified_sequence bigint;

COMMENT ON COLUMN jetcopy.checkpoints.seal_number IS 'The shard''s last seal, 0 before the first';
COMMENT ON COLUMN jetcopy.checkpoints.seal_hash IS 'Its hash';
COMMENT ON COLUMN jetcopy.checkpoints.seal_after IS 'The sequence that it ends at';
COMMENT ON COLUMN jetcopy.checkpoints.seal_to IS 'The last sequence that commits have come to since';
COMMENT ON COLUMN jetcopy.checkpoints.seal_messages IS 'How many messages were committed since the last seal';
COMMENT ON COLUMN jetcopy.checkpoints.seal_letters IS 'How many dead letters of them were stored';
COMMENT ON COLUMN jetcopy.checkpoints.seal_superseded IS
    'How many messages between them the stream had removed before they were read';
COMMENT ON COLUMN jetcopy.checkpoints.seal_tables IS 'The tables that their rows went to';
COMMENT ON COLUMN jetcopy.checkpoints.seal_rows IS 'How many rows went to each of them';
COMMENT ON COLUMN jetcopy.checkpoints.seal_unstored IS
    'How many of these the server took and did not store, because of on_conflict or a trigger';
COMMENT ON COLUMN jetcopy.checkpoints.seal_first_at IS 'When the stream stored the first of these messages';
COMMENT ON COLUMN jetcopy.checkpoints.seal_digest IS
    'BLAKE3 over sequence, length and payload of each of them; NULL with ledger.digest = "none"';
COMMENT ON COLUMN jetcopy.checkpoints.verified_sequence IS
    'Up to here jetcopy audit --record has proven what the tables hold';

CREATE TABLE jetcopy.seals (
    shard text NOT NULL REFERENCES jetcopy.checkpoints ON DELETE CASCADE,
    lane integer NOT NULL DEFAULT 0,
    number bigint NOT NULL,
    kind text NOT NULL,
    stream text NOT NULL,
    stream_created timestamptz,
    from_sequence bigint NOT NULL,
    to_sequence bigint NOT NULL,
    first_stored_at timestamptz,
    last_stored_at timestamptz,
    messages bigint NOT NULL DEFAULT 0,
    letters bigint NOT NULL DEFAULT 0,
    superseded bigint NOT NULL DEFAULT 0,
    tables text[] NOT NULL DEFAULT '{}',
    rows bigint[] NOT NULL DEFAULT '{}',
    unstored bigint[] NOT NULL DEFAULT '{}',
    digest bytea,
    epoch bigint NOT NULL,
    sealed_at timestamptz NOT NULL,
    hash bytea NOT NULL,
    PRIMARY KEY (shard, lane, number)
);

COMMENT ON TABLE jetcopy.seals IS
    'What was committed of a stream, stretch by stretch, and each move of a checkpoint by other '
    'means; some 300 bytes each, at most one in five minutes or five million messages and one a claim';
COMMENT ON COLUMN jetcopy.seals.shard IS 'The shard';
COMMENT ON COLUMN jetcopy.seals.lane IS 'Which of its writers; 0 where there is one';
COMMENT ON COLUMN jetcopy.seals.number IS 'Number of the seal, from 1 without a gap';
COMMENT ON COLUMN jetcopy.seals.kind IS
    'committed: a stretch of the stream. Else the checkpoint moved without commits: '
    'begun (where the ledger begins), lost, recreated, rewound, rebuilt, moved';
COMMENT ON COLUMN jetcopy.seals.stream IS 'The stream';
COMMENT ON COLUMN jetcopy.seals.stream_created IS 'When that was created';
COMMENT ON COLUMN jetcopy.seals.from_sequence IS
    'Where the stretch begins, right after the seal before; of a move, the sequence that it left';
COMMENT ON COLUMN jetcopy.seals.to_sequence IS 'Where the stretch ends; of a move, where it went';
COMMENT ON COLUMN jetcopy.seals.first_stored_at IS 'When the stream stored the first message';
COMMENT ON COLUMN jetcopy.seals.last_stored_at IS 'When it stored the last one, where that is known';
COMMENT ON COLUMN jetcopy.seals.messages IS 'How many messages were committed';
COMMENT ON COLUMN jetcopy.seals.letters IS 'How many dead letters of them were stored';
COMMENT ON COLUMN jetcopy.seals.superseded IS
    'How many messages between them the stream had removed before they were read';
COMMENT ON COLUMN jetcopy.seals.tables IS 'The tables that their rows went to';
COMMENT ON COLUMN jetcopy.seals.rows IS 'How many rows went to each of them';
COMMENT ON COLUMN jetcopy.seals.unstored IS
    'How many of these the server took and did not store, because of on_conflict or a trigger';
COMMENT ON COLUMN jetcopy.seals.digest IS
    'BLAKE3 over each message: its sequence and the length of its payload, 8 bytes each, little end '
    'first, then the payload; NULL with ledger.digest = "none"';
COMMENT ON COLUMN jetcopy.seals.epoch IS 'The claim under which it was sealed';
COMMENT ON COLUMN jetcopy.seals.sealed_at IS 'When it was sealed';
COMMENT ON COLUMN jetcopy.seals.hash IS 'SHA-256 over all of these and the hash of the seal before';

-- All that a hash is over, a line each. jetcopy audit makes the same text by itself.
CREATE FUNCTION jetcopy.seal_text(seal jetcopy.seals, hash_before bytea) RETURNS text
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT concat_ws(E'\n', seal.shard, seal.lane, seal.number, seal.kind, seal.stream,
        coalesce((extract(epoch FROM seal.stream_created) * 1000000)::bigint::text, '-'),
        seal.from_sequence, seal.to_sequence,
        coalesce((extract(epoch FROM seal.first_stored_at) * 1000000)::bigint::text, '-'),
        coalesce((extract(epoch FROM seal.last_stored_at) * 1000000)::bigint::text, '-'),
        seal.messages, seal.letters, seal.superseded, seal.tables::text, seal.rows::text, seal.unstored::text,
        coalesce(encode(seal.digest, 'hex'), '-'), seal.epoch,
        (extract(epoch FROM seal.sealed_at) * 1000000)::bigint,
        coalesce(encode(hash_before, 'hex'), '-'))
$$;
COMMENT ON FUNCTION jetcopy.seal_text IS 'What the hash of a seal is over';

-- Seals what was committed since the last seal, and then a move of the checkpoint by other means, in the
-- transaction that calls it. Whoever calls it without being the writer makes the writer's next commit count
-- twice: it is for the shard's owner, and for whoever has fenced that one.
CREATE FUNCTION jetcopy.close_seal(of_shard text, of_lane integer DEFAULT 0, moved_as text DEFAULT 'moved',
        always boolean DEFAULT false)
    RETURNS bigint
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    c jetcopy.checkpoints;
    seal jetcopy.seals;
BEGIN
    SELECT * INTO c FROM jetcopy.checkpoints WHERE shard = of_shard FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF c.seal_to <> c.seal_after OR c.seal_messages > 0 THEN
        seal := ROW(c.shard, of_lane, c.seal_number + 1, 'committed', c.stream, c.stream_created,
            c.seal_after + 1, c.seal_to, c.seal_first_at,
            CASE WHEN c.last_sequence = c.seal_to THEN c.last_timestamp END,
            c.seal_messages, c.seal_letters, c.seal_superseded, c.seal_tables, c.seal_rows, c.seal_unstored,
            c.seal_digest, c.epoch, clock_timestamp(), NULL);
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
            NULL, c.epoch, clock_timestamp(), NULL);
        seal.hash := sha256(convert_to(jetcopy.seal_text(seal, c.seal_hash), 'UTF8'));
        INSERT INTO jetcopy.seals VALUES (seal.*);
        c.seal_number := seal.number;
        c.seal_hash := seal.hash;
    END IF;
    UPDATE jetcopy.checkpoints SET seal_number = c.seal_number, seal_hash = c.seal_hash,
            seal_after = last_sequence, seal_to = last_sequence, seal_messages = 0, seal_letters = 0,
            seal_superseded = 0, seal_tables = '{}', seal_rows = '{}', seal_unstored = '{}',
            seal_first_at = NULL, seal_digest = NULL,
            verified_sequence = CASE WHEN verified_sequence > last_sequence THEN last_sequence
                ELSE verified_sequence END
        WHERE shard = of_shard
            AND (seal_number <> c.seal_number OR verified_sequence > last_sequence);
    RETURN c.seal_number;
END
$$;
COMMENT ON FUNCTION jetcopy.close_seal IS
    'Seals what a shard has committed since its last seal; returns the number of its last seal';

CREATE TABLE jetcopy.settlements (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pipeline text NOT NULL,
    shard text NOT NULL,
    stream text NOT NULL,
    sequence bigint NOT NULL,
    letter bigint NOT NULL,
    action text NOT NULL,
    table_name text,
    element integer,
    elements integer[],
    tables text[] NOT NULL DEFAULT '{}',
    rows bigint[] NOT NULL DEFAULT '{}',
    letters bigint NOT NULL DEFAULT 0,
    settled_at timestamptz NOT NULL DEFAULT now(),
    settled_by text NOT NULL DEFAULT session_user
);

CREATE INDEX settlements_pipeline_sequence ON jetcopy.settlements (pipeline, sequence);

COMMENT ON TABLE jetcopy.settlements IS
    'Dead letters that were discarded or became rows, each noted in the transaction that took it away';
COMMENT ON COLUMN jetcopy.settlements.id IS 'Number of the settlement';
COMMENT ON COLUMN jetcopy.settlements.pipeline IS 'The pipeline';
COMMENT ON COLUMN jetcopy.settlements.shard IS 'Its shard';
COMMENT ON COLUMN jetcopy.settlements.stream IS 'The stream that the message is of';
COMMENT ON COLUMN jetcopy.settlements.sequence IS 'The message''s sequence in it';
COMMENT ON COLUMN jetcopy.settlements.letter IS 'The letter, as it was in jetcopy.dead_letters';
COMMENT ON COLUMN jetcopy.settlements.action IS 'discarded or retried';
COMMENT ON COLUMN jetcopy.settlements.table_name IS 'The table that its row was for';
COMMENT ON COLUMN jetcopy.settlements.element IS
    'The first element that it was about; NULL: the message as a whole';
COMMENT ON COLUMN jetcopy.settlements.elements IS 'All places that it was about, where they were several';
COMMENT ON COLUMN jetcopy.settlements.tables IS 'The tables that its rows went to';
COMMENT ON COLUMN jetcopy.settlements.rows IS 'How many rows each of them stored';
COMMENT ON COLUMN jetcopy.settlements.letters IS 'Letters of its elements that came in its place';
COMMENT ON COLUMN jetcopy.settlements.settled_at IS 'When it was taken away';
COMMENT ON COLUMN jetcopy.settlements.settled_by IS 'The role that did it';

SET LOCAL check_function_bodies = off;

-- As in V8, and sealed.
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
    PERFORM jetcopy.close_seal(take_registry.pipeline);
    UPDATE jetcopy.checkpoints c
        SET last_sequence = rebuilt.last_sequence, last_timestamp = rebuilt.last_timestamp,
            epoch = c.epoch + 1, updated_at = now()
        WHERE c.shard = take_registry.pipeline;
    -- What the tables hold has another history now.
    PERFORM jetcopy.close_seal(take_registry.pipeline, 0, 'rebuilt', true);
    DELETE FROM jetcopy.checkpoints c WHERE c.shard = rebuilt_by;
    RETURN rebuilt.last_sequence;
END
$$;

SET LOCAL check_function_bodies = on;
