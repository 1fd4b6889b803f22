-- Tables by time: hypertables where TimescaleDB is installed, elsewhere tables with one native partition a
-- day (UTC).

-- Nobody's own partitioned table is among them.
CREATE TABLE jetcopy.partitioned_tables (
    relation regclass PRIMARY KEY,
    time_column name NOT NULL,
    dropped_before timestamptz NOT NULL DEFAULT '-infinity'
);

COMMENT ON TABLE jetcopy.partitioned_tables IS
    'The tables that jetcopy adds partitions to and drops partitions of';
COMMENT ON COLUMN jetcopy.partitioned_tables.relation IS 'The table';
COMMENT ON COLUMN jetcopy.partitioned_tables.time_column IS 'The column that partitions go by';
COMMENT ON COLUMN jetcopy.partitioned_tables.dropped_before IS
    'Rows before this are dropped: a bucket of a roll-up is not summed up again from what is left of it';

-- [store] partitions_back and partitions_ahead, which `jetcopy migrate` writes here. A wrong clock must not
-- fill the catalog.
CREATE TABLE jetcopy.partition_bounds (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    days_back integer NOT NULL CHECK (days_back >= 0),
    days_ahead integer NOT NULL CHECK (days_ahead >= 0)
);
INSERT INTO jetcopy.partition_bounds (days_back, days_ahead) VALUES (1000, 7);
-- Whoever writes rows reads how far they may go.
GRANT SELECT ON jetcopy.partition_bounds TO PUBLIC;

COMMENT ON TABLE jetcopy.partition_bounds IS
    'How far from today a row may lie for which a partition is added';
COMMENT ON COLUMN jetcopy.partition_bounds.one_row IS 'There is one row';
COMMENT ON COLUMN jetcopy.partition_bounds.days_back IS 'Days back';
COMMENT ON COLUMN jetcopy.partition_bounds.days_ahead IS 'Days ahead';

-- The times of a partition go from `starts` up to and without `ends`. One that is being detached accepts no
-- more rows.
CREATE FUNCTION jetcopy.partitions(relation regclass)
    RETURNS TABLE (partition regclass, starts timestamptz, ends timestamptz, detaching boolean)
    LANGUAGE sql STABLE
    -- Bounds are shown in the zone and style of the session, and read back in them.
    SET timezone = 'UTC' SET datestyle = 'ISO' SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.oid::regclass,
        CASE WHEN bound[1] = 'MINVALUE' THEN '-infinity' ELSE trim(bound[1], '''')::timestamptz END,
        CASE WHEN bound[2] = 'MAXVALUE' THEN 'infinity' ELSE trim(bound[2], '''')::timestamptz END,
        -- A column that servers before 14 do not have.
        coalesce((to_jsonb(i) ->> 'inhdetachpending')::boolean, false)
    FROM pg_catalog.pg_inherits i
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    CROSS JOIN regexp_match(pg_get_expr(c.relpartbound, c.oid),
        '^FOR VALUES FROM \((.*)\) TO \((.*)\)$') AS bound
    WHERE i.inhparent = relation AND bound IS NOT NULL
    ORDER BY 2
$$;
COMMENT ON FUNCTION jetcopy.partitions IS 'The partitions of a table and the times that they take';

-- NULL where the table is not partitioned by a column of times alone, or has a partition for all that is left
-- over.
CREATE FUNCTION jetcopy.days_without_partition(relation regclass, days date[]) RETURNS date[]
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO'
AS $$
    -- Bounds are read out of text, so once, and not for each day.
    WITH p AS MATERIALIZED (SELECT starts, ends FROM jetcopy.partitions(relation))
    SELECT (
        SELECT coalesce(array_agg(DISTINCT day ORDER BY day), '{}') FROM unnest(days) AS day
        WHERE NOT EXISTS (
            SELECT FROM p WHERE p.starts < (day + 1)::timestamptz AND p.ends > day::timestamptz))
    FROM pg_partitioned_table AS t
    JOIN pg_attribute AS a ON a.attrelid = t.partrelid AND a.attnum = t.partattrs[0]
    WHERE t.partrelid = relation AND t.partstrat = 'r' AND t.partnatts = 1 AND t.partdefid = 0
        AND a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
$$;
COMMENT ON FUNCTION jetcopy.days_without_partition IS
    'Of these days, those of which no partition takes any time; NULL where that cannot be told';

-- The caller has seen that no partition covers the day, and locked the table against others who add one.
--
-- CREATE and ATTACH instead of PARTITION OF, which would lock out everyone who writes to or reads from the
-- table.
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
    EXECUTE format(
        'CREATE TABLE %s (LIKE %s
            INCLUDING CONSTRAINTS INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING STORAGE)',
        partition, relation);
    IF owner <> current_user THEN
        EXECUTE format('ALTER TABLE %s OWNER TO %I', partition, owner);
    END IF;
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)',
        relation, partition, day::timestamptz, (day + 1)::timestamptz);
END
$$;
COMMENT ON FUNCTION jetcopy.make_partition IS
    'Makes the partition of a day (UTC), where the caller has seen that there is none';

CREATE FUNCTION jetcopy.add_partition(relation regclass, day date) RETURNS boolean
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
        RAISE EXCEPTION 'the partition of % that takes % is being dropped', relation, day
            USING ERRCODE = 'object_in_use';
    ELSIF NOT detaching THEN
        RETURN false;
    END IF;
    PERFORM jetcopy.make_partition(relation, day);
    RETURN true;
END
$$;
COMMENT ON FUNCTION jetcopy.add_partition IS
    'Adds the partition of a day (UTC), unless a partition takes its times; whether it did';

-- Days beyond jetcopy.partition_bounds are left out, unless a partition covers them already. Who needs a
-- single one adds it with jetcopy.add_partition().
--
-- It runs with the rights of its owner, since who may insert need not own the table.
CREATE FUNCTION jetcopy.add_partitions(relation regclass, days date[]) RETURNS date[]
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
    SELECT current_date - days_back, current_date + days_ahead INTO STRICT first, last
        FROM jetcopy.partition_bounds;
    -- One at a time adds to a table; who writes to it does not wait.
    EXECUTE format('LOCK TABLE %s IN SHARE UPDATE EXCLUSIVE MODE', relation);
    SELECT min(day) INTO detaching FROM unnest(days) AS day, jetcopy.partitions(relation) AS p
    WHERE p.detaching AND day BETWEEN first AND last AND p.starts < (day + 1)::timestamptz
        AND p.ends > day::timestamptz;
    IF detaching IS NOT NULL THEN
        RAISE EXCEPTION 'the partition of % that takes % is being dropped', relation, detaching
            USING ERRCODE = 'object_in_use';
    END IF;
    without := coalesce(jetcopy.days_without_partition(relation, days), '{}');
    PERFORM jetcopy.make_partition(relation, day) FROM unnest(without) AS day
    WHERE day BETWEEN first AND last;
    RETURN ARRAY(SELECT day FROM unnest(without) AS day WHERE day NOT BETWEEN first AND last ORDER BY day);
END
$$;
COMMENT ON FUNCTION jetcopy.add_partitions IS
    'Adds the partitions that rows of these days need; returns the days that '
    'were left out, NULL where jetcopy does not partition the table';

-- `chunk` is the span of a hypertable's chunk. It has no default index on time: chunks and partitions outside
-- the span asked for are not read.
--
-- Without TimescaleDB a table that cannot be partitioned without losing something stays as it is, with a
-- WARNING. Where it can be, all of it moves: indexes, keys, defaults, owner, privileges and comments.
CREATE FUNCTION jetcopy.time_table(relation regclass, time_column name, chunk interval) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Where TimescaleDB's functions lie, once it is installed.
    timescale text := (SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'timescaledb');
    old pg_class%ROWTYPE;
    schema_name text;
    -- Both with their schema, whatever the search path.
    fresh text;
    aside text;
    obstacle text;
    columns text;
    days bigint;
    item text;
    later text[];
BEGIN
    IF timescale IS NOT NULL THEN
        EXECUTE format(
            'SELECT %s.create_hypertable(%L::regclass, %L::name, chunk_time_interval => %L::interval,
                create_default_indexes => false, if_not_exists => true, migrate_data => true)',
            timescale, relation, time_column, chunk);
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM jetcopy.partitioned_tables t WHERE t.relation = time_table.relation) THEN
        RETURN;
    END IF;

    SELECT * INTO STRICT old FROM pg_class WHERE oid = relation;
    schema_name := old.relnamespace::regnamespace;
    IF NOT pg_has_role(old.relowner, 'USAGE') THEN
        RAISE WARNING 'table % stays as it is, without partitions: it belongs to another role', relation;
        RETURN;
    END IF;
    IF old.relkind = 'r' THEN
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', relation);
    END IF;
    SELECT CASE
        WHEN old.relkind = 'p' THEN 'it is partitioned already'
        WHEN old.relkind <> 'r' OR old.relpersistence <> 'p' THEN 'it is no ordinary table'
        WHEN old.relispartition OR EXISTS (SELECT FROM pg_inherits WHERE relation IN (inhrelid, inhparent))
            THEN 'it inherits or is inherited from'
        WHEN NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = relation AND attname = time_column
                AND atttypid = 'timestamptz'::regtype AND attnotnull AND NOT attisdropped)
            THEN format('it has no column %I of type timestamptz NOT NULL', time_column)
        WHEN EXISTS (SELECT FROM pg_constraint WHERE contype = 'f' AND relation IN (conrelid, confrelid))
            THEN 'a foreign key leaves or reaches it'
        WHEN EXISTS (SELECT FROM pg_index WHERE indrelid = relation AND (indisunique OR indisexclusion)
                AND (indisexclusion OR NOT (SELECT attnum FROM pg_attribute WHERE attrelid = relation
                AND attname = time_column)
                    = ANY ((indkey::int2[])[0:indnkeyatts - 1])))
            THEN format('it has a key without %I', time_column)
        WHEN EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation AND NOT tgisinternal)
            THEN 'it has triggers'
        WHEN old.relhasrules OR EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_class'::regclass
                AND refobjid = relation AND classid = 'pg_rewrite'::regclass)
            THEN 'a view or a rule reads it'
        WHEN old.relrowsecurity OR EXISTS (SELECT FROM pg_policy WHERE polrelid = relation)
            THEN 'it has row security'
        WHEN EXISTS (SELECT FROM pg_publication_rel WHERE prrelid = relation) THEN 'it is published'
    END INTO obstacle;
    IF obstacle IS NULL THEN
        EXECUTE format('SELECT count(DISTINCT (%I AT TIME ZONE ''UTC'')::date) FROM %s', time_column,
            relation) INTO days;
        -- Each partition takes locks for the rest of this transaction.
        obstacle := CASE WHEN days > 1000 THEN format('its rows are of %s days', days) END;
    END IF;
    IF obstacle IS NOT NULL THEN
        RAISE WARNING 'table % stays as it is, without partitions: %', relation, obstacle;
        RETURN;
    END IF;

    fresh := schema_name || '.' || quote_ident(old.relname);
    aside := schema_name || '.' || quote_ident(left(old.relname, 45) || '_unpartitioned');
    -- Written down while the table has its name: keys and indexes are made under their names once the old
    -- ones are gone.
    SELECT array_agg(sql ORDER BY place, name) INTO later FROM (
        SELECT 1, conname, format('ALTER TABLE %s ADD CONSTRAINT %I %s', fresh, conname,
            pg_get_constraintdef(oid))
        FROM pg_constraint WHERE conrelid = relation AND contype IN ('p', 'u')
    UNION ALL
        SELECT 2, i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)
        FROM pg_index i
        WHERE i.indrelid = relation AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid)
    UNION ALL
        SELECT 3, '', format('ALTER TABLE %s OWNER TO %I', fresh, pg_get_userbyid(old.relowner))
        WHERE pg_get_userbyid(old.relowner) <> current_user
    UNION ALL
        -- What the owner had from the beginning comes again, so it is taken first.
        SELECT 4, '', format('REVOKE ALL ON %s FROM %I', fresh, pg_get_userbyid(old.relowner))
        WHERE old.relacl IS NOT NULL
    UNION ALL
        SELECT 5, privilege_type, format('GRANT %s ON %s TO %s%s', privilege_type, fresh,
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
            CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
        FROM aclexplode(old.relacl)
    UNION ALL
        SELECT 6, privilege_type, format('GRANT %s (%I) ON %s TO %s%s', privilege_type, attname, fresh,
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
            CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
        FROM pg_attribute, aclexplode(attacl)
        WHERE attrelid = relation AND NOT attisdropped
    UNION ALL
        SELECT 7, '', format('COMMENT ON TABLE %s IS %L', fresh, obj_description(relation, 'pg_class'))
        WHERE obj_description(relation, 'pg_class') IS NOT NULL
    ) AS later (place, name, sql);
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) INTO columns
    FROM pg_attribute WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped AND attgenerated = '';

    BEGIN
        EXECUTE format('ALTER TABLE %s RENAME TO %s', relation,
            quote_ident(left(old.relname, 45) || '_unpartitioned'));
        EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING ALL EXCLUDING INDEXES) PARTITION BY RANGE (%I)',
            fresh, aside, time_column);
        EXECUTE format('SELECT count(jetcopy.add_partition(%L::regclass, day))
            FROM (SELECT DISTINCT (%I AT TIME ZONE ''UTC'')::date AS day
                FROM %s) AS days', fresh, time_column, aside);
        EXECUTE format('INSERT INTO %1$s (%2$s) OVERRIDING SYSTEM VALUE SELECT %2$s FROM %3$s', fresh,
            columns, aside);
        FOR item IN SELECT attname FROM pg_attribute WHERE attrelid = old.oid AND attidentity <> '' LOOP
            EXECUTE format('SELECT setval(%L::regclass, last_value, is_called) FROM %s',
                pg_get_serial_sequence(fresh, item), pg_get_serial_sequence(aside, item));
        END LOOP;
        EXECUTE format('DROP TABLE %s', aside);
    EXCEPTION
        -- What else depends on the table, such as a function; and a time that is in no day, such as infinity.
        WHEN dependent_objects_still_exist OR datetime_field_overflow THEN
            RAISE WARNING 'table % stays as it is, without partitions: %', relation, SQLERRM;
            RETURN;
    END;
    FOREACH item IN ARRAY coalesce(later, '{}') LOOP
        EXECUTE item;
    END LOOP;
    INSERT INTO jetcopy.partitioned_tables (relation, time_column) VALUES (fresh::regclass,
        time_table.time_column);
    -- Rows of these days come first. Others are added on demand, and `jetcopy maintain` adds those of the
    -- next days.
    PERFORM jetcopy.add_partitions(fresh::regclass,
        ARRAY(SELECT (now() AT TIME ZONE 'UTC')::date + n FROM generate_series(0, 3) AS n));
END
$$;
COMMENT ON FUNCTION jetcopy.time_table IS
    'Makes a hypertable of a table, or without TimescaleDB a table with a partition a day; rows are kept';
