-- The least that each part needs, as roles without a login: grant them to the users that log in. Run it as a superuser in the
-- database that jetcopy writes to, after `jetcopy migrate` ran there as a member of jetcopy_owner:
--
--   psql -d metadata -c "CREATE ROLE jetcopy_owner NOLOGIN" -c "GRANT CREATE ON DATABASE metadata TO jetcopy_owner" \
--        -c "GRANT CREATE, USAGE ON SCHEMA public TO jetcopy_owner" \
--        -c "CREATE ROLE migrator LOGIN PASSWORD '…' IN ROLE jetcopy_owner"
--   jetcopy migrate --postgres-url postgres://migrator@…/metadata
--   psql -d metadata -f config/postgres/roles.sql
--   psql -d metadata -c "CREATE ROLE jetcopy LOGIN PASSWORD '…' IN ROLE jetcopy_writer"
--
-- Running it again changes nothing; run it again after a migration that makes tables.

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

-- The daemon (`jetcopy run`, `jetcopy check`): adds rows, keeps its checkpoint, and can neither read the tables' rows nor
-- change or delete one.
GRANT USAGE ON SCHEMA jetcopy, public TO jetcopy_writer;
GRANT SELECT, INSERT, UPDATE ON jetcopy.checkpoints TO jetcopy_writer;
GRANT SELECT, INSERT, UPDATE ON jetcopy.losses TO jetcopy_writer;
GRANT SELECT, INSERT, DELETE ON jetcopy.milestones TO jetcopy_writer;
GRANT INSERT ON jetcopy.dead_letters TO jetcopy_writer;
-- To look after the store. Without TimescaleDB the owner of the tables does that: let `jetcopy maintain` run as a member of
-- jetcopy_owner every few minutes.
GRANT SELECT ON jetcopy.partitioned_tables, jetcopy.rollups TO jetcopy_writer;
GRANT SELECT ON ALL TABLES IN SCHEMA jetcopy TO jetcopy_operator, jetcopy_reader;
GRANT INSERT ON ALL TABLES IN SCHEMA public TO jetcopy_writer;

-- Whoever runs `jetcopy pause`, `dead-letters`, `audit`, `accept-loss`: all that the daemon may, and to read and settle what
-- it has put aside.
GRANT jetcopy_writer TO jetcopy_operator;
GRANT DELETE ON jetcopy.dead_letters TO jetcopy_operator;
GRANT UPDATE ON jetcopy.dead_letters TO jetcopy_operator;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO jetcopy_operator;

-- Dashboards and people who look things up.
GRANT USAGE ON SCHEMA jetcopy, public TO jetcopy_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO jetcopy_reader;

-- `db-backup` reads everything, tables of other schemas and of TimescaleDB's catalog too.
GRANT pg_read_all_data TO jetcopy_backup;

-- A table with on_conflict = "update" or "ignore" needs more of the daemon: its rows are compared, by way of a temporary one.
--   GRANT SELECT, UPDATE ON that_table TO jetcopy_writer;
--   GRANT TEMPORARY ON DATABASE metadata TO jetcopy_writer;
