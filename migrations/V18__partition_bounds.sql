-- How far from today partitions are added on demand, in days: [store] partitions_back and partitions_ahead, which
-- `jetcopy migrate` writes here. A wrong clock must not fill the catalog.
CREATE TABLE jetcopy.partition_bounds (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    days_back integer NOT NULL CHECK (days_back >= 0),
    days_ahead integer NOT NULL CHECK (days_ahead >= 0)
);
INSERT INTO jetcopy.partition_bounds (days_back, days_ahead) VALUES (1000, 7);
-- Whoever writes is told how far they may go.
GRANT SELECT ON jetcopy.partition_bounds TO PUBLIC;

-- Of these days, those of which no partition of a table takes any time; NULL where that cannot be told, since the table is
-- not partitioned by a column of times alone, or has a partition for all that is left over.
CREATE FUNCTION jetcopy.days_without_partition(relation regclass, days date[]) RETURNS date[]
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO'
AS $$
    -- Bounds are read out of text, so once, and not for each day.
    WITH p AS MATERIALIZED (SELECT starts, ends FROM jetcopy.partitions(relation))
    SELECT (SELECT coalesce(array_agg(DISTINCT day ORDER BY day), '{}') FROM unnest(days) AS day WHERE NOT EXISTS (
        SELECT FROM p WHERE p.starts < (day + 1)::timestamptz AND p.ends > day::timestamptz))
    FROM pg_partitioned_table AS t
    JOIN pg_attribute AS a ON a.attrelid = t.partrelid AND a.attnum = t.partattrs[0]
    WHERE t.partrelid = relation AND t.partstrat = 'r' AND t.partnatts = 1 AND t.partdefid = 0
        AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
$$;

-- Makes the partition of a day (UTC). That no partition takes its times, and that the table is locked against others who
-- add one, is for the caller to see to.
--
-- CREATE and ATTACH instead of PARTITION OF, which would lock out everyone who writes to or reads from the table.
CREATE FUNCTION jetcopy.make_partition(relation regclass, day date) RETURNS void
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO'
AS $$
DECLARE
    schema_name name;
    -- 18 bytes are left to what is put behind it, here and where a partition is dropped.
    stem text;
    owner text;
    partition text;
BEGIN
    SELECT n.nspname, left(c.relname, 45), pg_get_userbyid(c.relowner) INTO schema_name, stem, owner
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation;
    partition := format('%I.%I', schema_name, stem || '_p' || to_char(day, 'YYYYMMDD'));
    -- Indexes come with ATTACH, and so does an identity.
    EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING CONSTRAINTS INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING STORAGE)',
        partition, relation);
    IF owner <> current_user THEN
        EXECUTE format('ALTER TABLE %s OWNER TO %I', partition, owner);
    END IF;
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)',
        relation, partition, day::timestamptz, (day + 1)::timestamptz);
END
$$;

-- Adds the partition of a day (UTC), unless a partition takes its times already; whether it did.
CREATE OR REPLACE FUNCTION jetcopy.add_partition(relation regclass, day date) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO'
AS $$
DECLARE
    detaching boolean;
BEGIN
    IF NOT isfinite(day) THEN
        RAISE EXCEPTION 'no partition of a day takes %', day USING ERRCODE = 'datetime_field_overflow';
    END IF;
    -- One at a time adds to a table; who writes to it does not wait.
    EXECUTE format('LOCK TABLE %s IN SHARE UPDATE EXCLUSIVE MODE', relation);
    SELECT bool_or(p.detaching) INTO detaching FROM jetcopy.partitions(relation) p
    WHERE p.starts < (day + 1)::timestamptz AND p.ends > day::timestamptz;
    IF detaching THEN
        RAISE EXCEPTION 'the partition of % that takes % is being dropped', relation, day USING ERRCODE = 'object_in_use';
    ELSIF NOT detaching THEN
        RETURN false;
    END IF;
    PERFORM jetcopy.make_partition(relation, day);
    RETURN true;
END
$$;

-- Adds the partitions that rows of these days need; returns the days that were left out, NULL where the table is not in
-- jetcopy.partitioned_tables.
--
-- Days beyond jetcopy.partition_bounds are left out, unless a partition takes them already. Who needs a single one adds it
-- with jetcopy.add_partition().
--
-- It runs with the rights of its owner, since who may insert need not own the table.
CREATE OR REPLACE FUNCTION jetcopy.add_partitions(relation regclass, days date[]) RETURNS date[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO'
AS $$
DECLARE
    first date;
    last date;
    without date[];
    detaching date;
BEGIN
    IF NOT EXISTS (SELECT FROM jetcopy.partitioned_tables t WHERE t.relation = add_partitions.relation) THEN
        RETURN NULL;
    END IF;
    IF NOT has_table_privilege(session_user, relation, 'INSERT') THEN
        RAISE EXCEPTION 'permission denied for table %', relation USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT current_date - days_back, current_date + days_ahead INTO STRICT first, last FROM jetcopy.partition_bounds;
    -- One at a time adds to a table; who writes to it does not wait.
    EXECUTE format('LOCK TABLE %s IN SHARE UPDATE EXCLUSIVE MODE', relation);
    SELECT min(day) INTO detaching FROM unnest(days) AS day, jetcopy.partitions(relation) AS p
    WHERE p.detaching AND day BETWEEN first AND last AND p.starts < (day + 1)::timestamptz AND p.ends > day::timestamptz;
    IF detaching IS NOT NULL THEN
        RAISE EXCEPTION 'the partition of % that takes % is being dropped', relation, detaching USING ERRCODE = 'object_in_use';
    END IF;
    without := coalesce(jetcopy.days_without_partition(relation, days), '{}');
    PERFORM jetcopy.make_partition(relation, day) FROM unnest(without) AS day WHERE day BETWEEN first AND last;
    RETURN ARRAY(SELECT day FROM unnest(without) AS day WHERE day NOT BETWEEN first AND last ORDER BY day);
END
$$;
