"""How a backup becomes a database: what db-restore and `db-verify --restore` share.

Guarantees: a new database is dropped if the restore fails; rows and catalog are compared with the manifest
before success is reported; TimescaleDB's jobs do not run before that.
"""

import contextlib
import re
import tempfile
import time

import backup_common as common
from backup_common import CATALOG, Failure, Session, literal, quoted

# How long a rename waits for sessions that are ending; the server itself waits 5 s for autovacuum.
RENAME_PATIENCE = 30

# Shows a database that is being restored as TimescaleDB shows it normally.
LOOKING = "-c timescaledb.restoring=off"

# Settings whose value is a list; they must be set unquoted.
LISTS = (
    "search_path",
    "local_preload_libraries",
    "session_preload_libraries",
    "temp_tablespaces",
    "datestyle",
)

# Whether it holds only pg_catalog, what initdb creates, and extensions.
IS_EMPTY = """SELECT to_json(NOT EXISTS (
    SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname NOT LIKE 'pg\\_%'
        AND NOT EXISTS (SELECT FROM pg_depend
            WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
        AND nspname NOT LIKE '\\_timescaledb%'
    UNION ALL SELECT FROM pg_namespace n
    WHERE nspname NOT IN ('pg_catalog', 'information_schema', 'public') AND nspname NOT LIKE 'pg\\_%'
        AND NOT EXISTS (SELECT FROM pg_depend
            WHERE classid = 'pg_namespace'::regclass AND objid = n.oid AND deptype = 'e')))"""

# The comment on a database that is being restored, and the lock that the restoring process holds until its
# end.
UNFINISHED = "unfinished: made by db-restore or db-verify of jetcopy"
LOCK = "hashtextextended('jetcopy ' || %s, 0)"

# Databases that a killed restore left behind: nobody holds their lock.
LEFT = f"""SELECT coalesce(json_agg(datname), '[]') FROM pg_database
    WHERE shobj_description(oid, 'pg_database') = {literal(UNFINISHED)} AND pg_has_role(datdba, 'USAGE')
        AND pg_try_advisory_lock({LOCK % "datname"})"""

SESSIONS = """SELECT coalesce(json_agg(DISTINCT coalesce(nullif(application_name, ''), 'unnamed')), '[]')
    FROM pg_stat_activity
    WHERE datname = %s AND backend_type IN ('client backend', 'walsender') AND pid <> pg_backend_pid()"""


def check_server(server, backup, given):
    """Checks that this server can accept the backup, before anything is created."""
    manifest = backup.manifest
    found = server.json(
        "SELECT json_build_object('server', current_setting('server_version'), "
        "'number', current_setting('server_version_num')::int, "
        "'timescaledb', (SELECT json_agg(version) FROM pg_available_extension_versions "
        "WHERE name = 'timescaledb'), "
        "'loaded', current_setting('shared_preload_libraries') LIKE '%timescaledb%', "
        "'missing', (SELECT json_agg(name) "
        f"FROM unnest(ARRAY[{','.join(map(literal, manifest['roles']))}]::text[]) AS name "
        "WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)), "
        "'extensions', (SELECT json_agg(name) FROM pg_available_extensions))",
        given.maintenance_db,
    )
    if found["number"] // 10000 < manifest["server_version"] // 10000:
        raise Failure(
            f"the backup is of PostgreSQL {manifest['server']}, the server is {found['server']}: "
            "use a server that is not older"
        )
    for extension in manifest["extensions"]:
        if extension not in found["extensions"]:
            raise Failure(f"the server lacks extension {extension}: install it")
    version = manifest["extensions"].get("timescaledb")
    if version and version not in found["timescaledb"]:
        raise Failure(
            f"the backup is of TimescaleDB {version}, which the server does not have (it has "
            f"{', '.join(sorted(found['timescaledb']))}): a restore needs the same version; install it, "
            "and update the extension afterwards"
        )
    if version and not found["loaded"]:
        raise Failure("the server does not load TimescaleDB: add it to shared_preload_libraries and restart")
    if found["missing"] and not (given.no_owner and given.no_privileges):
        raise Failure(
            f"the server lacks roles that own things or have rights on them: "
            f"{', '.join(found['missing'])}; create them first (config/postgres/roles.sql, "
            "or pg_dumpall --roles-only), or use --no-owner --no-privileges"
        )


class Target:
    """The name for the restored database, and the database that has it now."""

    def __init__(self, server, maintenance, name):
        self.server, self.maintenance, self.name = server, maintenance, name
        owner = server.psql(
            f"SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = {literal(name)}", maintenance
        )
        self.there = bool(owner)
        self.owner = owner.rstrip("\n") or None
        self.is_empty = not self.there or server.json(IS_EMPTY, name)

    def check_unused(self):
        """A database in use cannot be renamed, and must not be filled."""
        sessions = self.server.json(SESSIONS % literal(self.name), self.maintenance)
        if sessions:
            raise Failure(
                f"database {self.name} is in use by {', '.join(sessions)}: "
                "stop the daemon and end all sessions first"
            )


class Fresh:
    """A new database, which is dropped at the end unless it got its name; if this process is killed, the
    next one drops it.
    """

    def __init__(self, server, maintenance, backup, name, owner, given):
        self.server, self.maintenance, self.backup, self.name = server, maintenance, backup, name
        self.owner, self.given = owner, given

    def __enter__(self):
        for left in self.server.json(LEFT, self.maintenance):
            self.server.psql(f"DROP DATABASE IF EXISTS {quoted(left)} WITH (FORCE);", self.maintenance)
            print(f"removed database {left}, left by a restore that was killed")
        self.lock = Session(self.server, self.maintenance)
        try:
            self.lock.ask(
                f"SET idle_session_timeout = 0; SELECT pg_advisory_lock({LOCK % literal(self.name)})"
            )
            self.create()
        except BaseException:
            self.lock.__exit__()
            raise
        return self

    def create(self):
        database = self.backup.manifest["database"]
        name = quoted(self.name)
        self.server.psql(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING {literal(database['encoding'])} "
            f"LC_COLLATE {literal(database['collate'])} LC_CTYPE {literal(database['ctype'])};",
            self.maintenance,
        )
        try:
            self.server.psql(f"COMMENT ON DATABASE {name} IS {literal(UNFINISHED)};", self.maintenance)
            self.server.psql(self.properties(database), self.maintenance)
        except BaseException:
            self.drop()
            raise

    def properties(self, database):
        """Properties of the database itself, which pg_dump does not include."""
        name = quoted(self.name)
        sql = [f"ALTER DATABASE {name} CONNECTION LIMIT {int(database['connections'])};"]
        for setting in database["settings"]:
            key, _, value = setting.partition("=")
            value = value if key.lower() in LISTS and value else literal(value)
            sql.append(f"ALTER DATABASE {name} SET {quoted(key)} TO {value};")
        if not self.given.no_privileges and database["grants"] is not None:
            sql.append(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC;")
            for grant in database["grants"]:
                to = "PUBLIC" if grant["to"] is None else quoted(grant["to"])
                option = (
                    " WITH GRANT OPTION" if grant["grantable"] and grant["to"] != database["owner"] else ""
                )
                sql.append(f"GRANT {grant['privilege']} ON DATABASE {name} TO {to}{option};")
        owner = self.owner or (None if self.given.no_owner else database["owner"])
        if owner:
            sql.append(f"ALTER DATABASE {name} OWNER TO {quoted(owner)};")
        return "\n".join(sql)

    def __exit__(self, *_):
        try:
            if self.name:
                self.drop()
        finally:
            self.lock.__exit__()

    def drop(self):
        self.server.psql(f"DROP DATABASE IF EXISTS {quoted(self.name)} WITH (FORCE);", self.maintenance)

    def take_name(self, target):
        """Takes the target's name, in one transaction; returns the name under which an old database is
        kept.
        """
        kept = None
        sql = (
            f"COMMENT ON DATABASE {quoted(self.name)} IS NULL; "
            f"ALTER DATABASE {quoted(self.name)} RENAME TO {quoted(target.name)};"
        )
        if target.there:
            target.check_unused()
            kept = f"{target.name[:40]}_before_{time.strftime('%Y%m%d%H%M%S', time.gmtime())}"
            sql = f"ALTER DATABASE {quoted(target.name)} RENAME TO {quoted(kept)}; {sql}"
            stop_workers(self.server, target.name)
        deadline = time.monotonic() + RENAME_PATIENCE
        while True:
            try:
                self.server.psql(f"BEGIN; {sql} COMMIT;", self.maintenance)
                break
            except Failure as failure:
                if "being accessed by other users" not in str(failure) or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        self.name = None
        if kept and target.is_empty:
            self.server.psql(f"DROP DATABASE {quoted(kept)} WITH (FORCE);", self.maintenance)
            kept = None
        return kept


def stop_workers(server, database):
    """Stops TimescaleDB's workers, which are sessions too. They start again with the server."""
    server.psql(
        "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') AS found \\gset\n"
        "\\if :found\nSELECT _timescaledb_functions.stop_background_workers();\n\\endif\n",
        database,
    )


def fill(server, backup, database, given):
    """Restores everything into an empty database, and compares it. Jobs of TimescaleDB do not run yet."""
    version = backup.manifest["extensions"].get("timescaledb")
    if version:
        # With the backup's version: its catalog is restored as it was. In a separate session, since a session
        # loads the extension at its start.
        server.psql(
            f"CREATE EXTENSION IF NOT EXISTS timescaledb SCHEMA public VERSION {literal(version)};", database
        )
        there = server.psql(
            "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb';", database
        ).strip()
        if there != version:
            raise Failure(
                f"the database has TimescaleDB {there}, but the backup needs {version}: use a new database"
            )
        call_timescaledb(server, database, "timescaledb_pre_restore")
    restore = [
        "--exit-on-error",
        "--no-password",
        f"--dbname={server.conninfo(database)}",
        *(["--no-owner"] if given.no_owner else []),
        *(["--no-privileges"] if given.no_privileges else []),
    ]
    parallel = [f"--jobs={given.jobs}"] if given.jobs > 1 else []
    catalog, rows = lists(backup.contents(server))
    with listing(catalog) as first, listing(rows) as second:
        server.run("pg_restore", *restore, "--section=pre-data", backup.dump)
        if catalog:
            server.run("pg_restore", *restore, "--section=data", f"--use-list={first}", backup.dump)
        server.run("pg_restore", *restore, *parallel, "--section=data", f"--use-list={second}", backup.dump)
        server.run("pg_restore", *restore, *parallel, "--section=post-data", backup.dump)
    compare(server, backup, database)
    # Plans need statistics, which a dump does not include.
    server.psql("ANALYZE;", database, LOOKING if version else "")
    if version:
        # From now on it looks normal to every session. go_live() starts the workers.
        server.psql(f"ALTER DATABASE {quoted(database)} RESET timescaledb.restoring;", database)


def lists(contents):
    """The dump's contents in two parts: TimescaleDB's catalog, and everything else."""
    of_catalog = re.compile(r"\d+; \d+ \d+ (TABLE DATA|SEQUENCE SET) (" + "|".join(CATALOG) + ") ")
    catalog = [line for line in contents if of_catalog.match(line)]
    return catalog, [line for line in contents if not of_catalog.match(line)]


@contextlib.contextmanager
def listing(lines):
    """A file with these lines."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".list") as file:
        file.write("".join(line + "\n" for line in lines))
        file.flush()
        yield file.name


def compare(server, backup, database):
    """Checks that everything in the backup was restored."""
    manifest = backup.manifest
    options = LOOKING if manifest["timescaledb"] is not None else ""

    def ask(sql):
        return server.psql(sql + ";", database, options)

    found = common.facts(ask)
    rows = {} if manifest["rows"] is None else common.count_rows(ask, found["timescaledb"] is not None)
    different = common.differences(manifest, found, rows)
    if different:
        raise Failure("the restored database differs from the backup:\n  " + "\n  ".join(different[:20]))


def go_live(server, backup, database):
    """Lets TimescaleDB's jobs run."""
    if backup.manifest["timescaledb"] is not None:
        call_timescaledb(server, database, "timescaledb_post_restore")


def call_timescaledb(server, database, function):
    """Calls a function of the extension, in its schema."""
    schema = server.psql(
        "SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'timescaledb';", database
    ).strip()
    server.psql(f"SELECT {schema}.{function}();", database)
