-- A table that gets a rule, or loses one, is another one: INSERT goes by it, and COPY does not. Otherwise as in V39.
CREATE OR REPLACE FUNCTION jetcopy.shape(relation regclass) RETURNS bigint
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
    SELECT concat_ws(' ', count(*), sum(a.xmin::text::bigint)), bool_or(a.atttypid >= first_own), bool_or(a.atthasdef)
    INTO known, own_types, defaults
    FROM pg_attribute a WHERE a.attrelid = relation AND a.attnum > 0;

    SELECT concat_ws(' ', known, c.oid, c.relkind, c.relpersistence, row_security_active(c.oid), quote_ident(n.nspname),
        quote_ident(c.relname),
        (SELECT concat_ws(' ', 'unique', count(*), sum(i.xmin::text::bigint))
         FROM pg_index i WHERE i.indrelid = relation AND i.indisunique),
        -- The flag stays for a while once the last rule is gone.
        CASE WHEN c.relhasrules THEN (SELECT string_agg(concat_ws(' ', 'rule', r.oid, r.xmin), ' ' ORDER BY r.oid)
         FROM pg_rewrite r WHERE r.ev_class = relation) END,
        (SELECT concat_ws(' ', 'rollups', string_agg(concat_ws(' ', r.name, extract(epoch FROM r.width)), ' ' ORDER BY r.name))
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
                SELECT concat_ws(' ', count(*), sum(e.xmin::text::bigint)) FROM pg_enum e WHERE e.enumtypid = t.oid
            ) AS e (labels)));
    END IF;
    IF defaults THEN
        -- The functions that they call, but the server's own.
        known := concat_ws(' ', known, (
            SELECT string_agg(concat_ws(' ', p.oid, p.xmin), ' ' ORDER BY p.oid)
            FROM pg_attrdef d
            JOIN pg_depend u ON u.classid = 'pg_attrdef'::regclass AND u.objid = d.oid AND u.refclassid = 'pg_proc'::regclass
            JOIN pg_proc p ON p.oid = u.refobjid
            WHERE d.adrelid = relation));
    END IF;
    IF to_regclass('_timescaledb_catalog.hypertable') IS NOT NULL THEN
        -- A table that becomes a hypertable keeps its columns. And while a dump is restored, rows would go past it.
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
COMMENT ON FUNCTION jetcopy.shape IS 'A number that changes with all that jetcopy knows of a table; NULL where there is none';
