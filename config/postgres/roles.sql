-- The least rights that each part needs, as roles without a login: grant them to the users that log in. Run
-- this as a superuser in the database that jetcopy writes to, after `jetcopy migrate` ran there as a member
-- of jetcopy_owner:
--
--   psql -d metadata -c "CREATE ROLE jetcopy_owner NOLOGIN" \
--        -c "GRANT CREATE ON DATABASE metadata TO jetcopy_owner" \
--        -c "GRANT CREATE, USAGE ON SCHEMA public TO jetcopy_owner" \
--        -c "CREATE ROLE migrator LOGIN IN ROLE jetcopy_owner" -c "\password migrator"
--   jetcopy migrate --postgres-url postgres://migrator@…/metadata
--   psql -d metadata -f config/postgres/roles.sql
--   psql -d metadata -c "CREATE ROLE jetcopy LOGIN IN ROLE jetcopy_writer" -c "\password jetcopy"
--
-- Nobody else should be able to create in the schemas of the search path. On PostgreSQL 14, and in clusters
-- upgraded from it, everybody is:
--   REVOKE CREATE ON SCHEMA public FROM PUBLIC;
--
-- Running it twice changes nothing. Run it again after a migration that creates tables.

-- No function in a schema of the path comes before the server's own.
SET search_path = pg_catalog, pg_temp;

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['jetcopy_writer', 'jetcopy_operator', 'jetcopy_reader', 'jetcopy_backup'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        END IF;
    END LOOP;
END
$$;

-- The daemon (`jetcopy run`, `jetcopy check`): adds rows and moves its checkpoint. It cannot delete rows, and
-- can read or change them only in the tables that keep the last state of something.
GRANT USAGE ON SCHEMA jetcopy, public TO jetcopy_writer;
GRANT SELECT ON jetcopy.schema_history TO jetcopy_writer;
GRANT SELECT, INSERT, UPDATE ON jetcopy.checkpoints TO jetcopy_writer;
GRANT SELECT, INSERT, UPDATE, DELETE ON jetcopy.daemons TO jetcopy_writer;
GRANT SELECT, INSERT, UPDATE, DELETE ON jetcopy.lanes TO jetcopy_writer;
GRANT SELECT, INSERT, UPDATE ON jetcopy.losses TO jetcopy_writer;
GRANT SELECT, INSERT, DELETE ON jetcopy.milestones TO jetcopy_writer;
GRANT SELECT, INSERT, UPDATE ON jetcopy.tallies TO jetcopy_writer;
GRANT INSERT ON jetcopy.seals TO jetcopy_writer;
GRANT INSERT ON jetcopy.dead_letters TO jetcopy_writer;
-- To maintain the store. Without TimescaleDB only the owner of the tables can: run `jetcopy maintain` as a
-- member of jetcopy_owner every few minutes.
GRANT SELECT ON jetcopy.partitioned_tables, jetcopy.rollups TO jetcopy_writer;
GRANT SELECT ON ALL TABLES IN SCHEMA jetcopy TO jetcopy_operator;

-- For `jetcopy pause`, `dead-letters`, `audit`, `accept-loss`: the daemon's rights, and to read and settle
-- dead letters and losses.
GRANT jetcopy_writer TO jetcopy_operator;
GRANT DELETE ON jetcopy.dead_letters TO jetcopy_operator;
GRANT UPDATE ON jetcopy.dead_letters TO jetcopy_operator;
GRANT INSERT ON jetcopy.settlements TO jetcopy_operator;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO jetcopy_operator;

-- For dashboards and people who look things up. Of dead letters they see everything except what was in the
-- messages: payloads and headers.
GRANT USAGE ON SCHEMA jetcopy, public TO jetcopy_reader;
REVOKE SELECT ON ALL TABLES IN SCHEMA jetcopy FROM jetcopy_reader;
DO $$
DECLARE
    shown record;
BEGIN
    FOR shown IN
        SELECT c.relname AS name, string_agg(quote_ident(a.attname), ', ') AS columns
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relnamespace = 'jetcopy'::regnamespace AND c.relkind IN ('r', 'p', 'v')
            AND (c.relname, a.attname) NOT IN (('dead_letters', 'payload'), ('dead_letters', 'headers'),
                ('dead_letters', 'raw_headers'), ('checkpoints', 'flood'),
                ('flood_samples', 'payload'))
        GROUP BY 1
    LOOP
        EXECUTE format('GRANT SELECT (%s) ON jetcopy.%I TO jetcopy_reader', shown.columns, shown.name);
    END LOOP;
END
$$;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO jetcopy_reader;

-- The store's tables, in the schema that `[store] schema` named, else in public. The daemon adds rows to
-- those that exist, and to no others. In those that `config/store.toml` fills with on_conflict = "update",
-- rows are compared and changed, by way of a temporary table. For each table of yours that a pipeline names,
-- grant the first of these; with on_conflict = "ignore" SELECT too, with "update" both:
--   GRANT INSERT ON that_table TO jetcopy_writer;
--   GRANT SELECT, UPDATE ON that_table TO jetcopy_writer;
-- Earlier versions of this file granted INSERT on all tables of the schema. To revoke that, before you grant
-- what is needed again:
--   REVOKE INSERT ON ALL TABLES IN SCHEMA public FROM jetcopy_writer;
DO $$
DECLARE
    place name;
    store_table text;
BEGIN
    -- A view in its place would run its owner's code with your rights.
    IF EXISTS (
        SELECT FROM pg_class WHERE oid = to_regclass('jetcopy.store_place')::oid AND relkind = 'r'
    ) THEN
        SELECT schema INTO place FROM jetcopy.store_place;
    END IF;
    place := coalesce(place, 'public');
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO jetcopy_writer, jetcopy_reader', place);
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO jetcopy_operator, jetcopy_reader', place);
    FOREACH store_table IN ARRAY ARRAY[
        'frame_metadata', 'detection_events', 'measurements', 'websdrs', 'time_series_metadata',
        'time_series_data_points', 'projects', 'files', 'operations_log']
    LOOP
        IF to_regclass(format('%I.%I', place, store_table)) IS NOT NULL THEN
            EXECUTE format('GRANT INSERT ON %I.%I TO jetcopy_writer', place, store_table);
            IF store_table IN ('websdrs', 'time_series_metadata', 'projects', 'files') THEN
                EXECUTE format('GRANT SELECT, UPDATE ON %I.%I TO jetcopy_writer', place, store_table);
            END IF;
        END IF;
    END LOOP;
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO jetcopy_writer', current_database());
END
$$;

-- For `db-backup`: reads everything, also tables of other schemas and of TimescaleDB's catalog.
GRANT pg_read_all_data TO jetcopy_backup;

RESET search_path;
