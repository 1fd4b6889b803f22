"""What db-backup, db-restore and db-verify share: connecting to the server, running PostgreSQL's programs,
reading a backup.

Guarantees: no password is in the arguments of any process; every child process is ended, also on SIGTERM; a
failure is one message that says what to do. Needs PostgreSQL's client programs and Python 3.9 with its
standard library only.

A backup is a directory: `dump` is pg_dump's (a file, or a directory if several jobs wrote it),
`manifest.json` says what it must contain. It appears under its name by one rename, once all of it is on disk.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.parse

# The format of the manifest. A manifest with another number cannot be read correctly, and is refused.
FORMAT = 1

FAILED = 1
USAGE = 2

PASSWORD_HELP = (
    "A password belongs in ~/.pgpass, PGPASSWORD or --password-file, not in the URL: "
    "everybody can see arguments."
)

# TimescaleDB's catalog tables. They refer to each other and to what they describe, so they are restored one
# after the other, and before any rows.
CATALOG = ("_timescaledb_catalog", "_timescaledb_config")


class Failure(Exception):
    """A message for a person; the exit code says whose mistake it is."""

    def __init__(self, message, code=FAILED):
        super().__init__(message)
        self.code = code


class Stopped(Exception):
    """A signal asked the program to stop."""


def main(program, run):
    """Runs a program to its exit code."""

    def stop(number, _frame):
        raise Stopped(number)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, stop)
    try:
        sys.exit(run() or 0)
    except Failure as failure:
        print(f"{program}: {failure}", file=sys.stderr)
        sys.exit(failure.code)
    except (OSError, ValueError) as error:
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(FAILED)
    except (KeyError, TypeError, AttributeError) as error:
        # Only the manifest and the server's answers are read by name.
        print(f"{program}: the backup's manifest is not what db-backup writes: {error!r}", file=sys.stderr)
        sys.exit(FAILED)
    except Stopped as stopped:
        print(f"{program}: stopped by a signal; nothing is left behind", file=sys.stderr)
        sys.exit(128 + stopped.args[0])


def parser(description, epilog=""):
    """The arguments that all of them accept."""
    made = argparse.ArgumentParser(
        description=description,
        epilog=epilog + PASSWORD_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--url",
        metavar="URL",
        help="the database, as a URL or libpq's key=value; default: $DATABASE_URL, else libpq's variables "
        "(PGHOST, …)",
    )
    made.add_argument("--password-file", metavar="FILE", help="a file that contains only the password")
    made.add_argument("--bin", metavar="DIR", help="where pg_dump, pg_restore and psql are; default: $PATH")
    return made


def jobs(text):
    """The argument of --jobs."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("a number from 1 on")
    return int(text)


def quoted(name):
    """An identifier, quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text):
    """A text, quoted for SQL, whatever standard_conforming_strings is."""
    return " E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


class Server:
    """The server and the database that the arguments name, and PostgreSQL's programs to reach it with."""

    def __init__(self, arguments, program):
        self.bin = arguments.bin
        self.environment = dict(os.environ, PGAPPNAME=program)
        self.environment.setdefault("PGCONNECT_TIMEOUT", "10")
        # The output of programs is parsed.
        self.environment["LC_ALL"] = "C"
        self.url = arguments.url
        if self.url and without_password(self.url) != (self.url, None):
            raise Failure("--url holds a password. " + PASSWORD_HELP, USAGE)
        if not self.url and os.environ.get("DATABASE_URL"):
            self.url, password = without_password(os.environ["DATABASE_URL"])
            if password is not None:
                self.environment["PGPASSWORD"] = password
        # No child process needs it, and it may hold a password.
        self.environment.pop("DATABASE_URL", None)
        if arguments.password_file:
            with open(arguments.password_file, encoding="utf-8") as file:
                self.environment["PGPASSWORD"] = file.read().rstrip("\r\n")

    def conninfo(self, database=None):
        """The value of --dbname for this database of the server."""
        if database is None:
            return self.url or ""
        if not self.url or "://" not in self.url:
            # The last value of a keyword wins.
            value = database.replace("\\", "\\\\").replace("'", "\\'")
            return f"{self.url or ''} dbname='{value}'".strip()
        parts = urllib.parse.urlsplit(self.url)
        # A dbname among the parameters would override the path.
        query = "&".join(pair for pair in parts.query.split("&") if not pair.startswith("dbname="))
        path = "/" + urllib.parse.quote(database, safe="")
        return f"{parts.scheme}://{parts.netloc}{path}" + (f"?{query}" if query else "")

    def database(self):
        """The name of the database, which may not exist yet."""
        if self.url and "://" in self.url:
            parts = urllib.parse.urlsplit(self.url)
            named = [value for name, value in urllib.parse.parse_qsl(parts.query) if name == "dbname"]
            name = named[-1] if named else urllib.parse.unquote(parts.path.removeprefix("/"))
        else:
            pairs = re.findall(r"dbname\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(\S+))", self.url or "")
            name = (
                re.sub(r"\\(.)", r"\1", pairs[-1][0] or pairs[-1][1])
                if pairs
                else os.environ.get("PGDATABASE", "")
            )
        if not name:
            raise Failure("no database given: name it with --url or PGDATABASE", USAGE)
        return name

    def command(self, program, *arguments):
        """The command line of one of PostgreSQL's programs."""
        path = os.path.join(self.bin, program) if self.bin else shutil.which(program)
        if not path or not os.path.isfile(path):
            where = f"in {self.bin}" if self.bin else "on the path"
            raise Failure(
                f"{program} is not {where}: install PostgreSQL's client programs (postgresql-client), "
                "or name their directory with --bin"
            )
        return [path, *arguments]

    def run(self, program, *arguments, input=None, environment=None, quiet=()):
        """Runs a program and returns its output. `quiet` are patterns of harmless lines on standard error."""
        with subprocess.Popen(
            self.command(program, *arguments),
            stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(self.environment, **(environment or {})),
            encoding="utf-8",
            errors="replace",
        ) as child:
            try:
                out, said = child.communicate(input)
            except BaseException:
                child.terminate()
                raise
        said = [line for line in said.splitlines() if not any(re.search(pattern, line) for pattern in quiet)]
        if child.returncode != 0:
            raise Failure(f"{program} failed:\n  " + "\n  ".join(said[-20:]))
        for line in said:
            print(line, file=sys.stderr)
        return out

    def psql(self, sql, database=None, options=""):
        """Runs statements in one session and returns the lines of their answers."""
        environment = {"PGOPTIONS": f"{self.environment.get('PGOPTIONS', '')} {options}".strip()}
        where = self.conninfo(database)
        named = [f"--dbname={where}"] if where else []
        return self.run("psql", *PSQL, *named, input=PINNED + sql, environment=environment, quiet=QUIET)

    def json(self, sql, database=None, options=""):
        """The single value of a statement, as JSON."""
        return json.loads(self.psql(sql, database, options))


# The first statement of each session. Otherwise a function or operator that somebody created in a schema of
# the path, and that fits a call better than the server's own, would run here with the rights of the user who
# backs up or restores.
PINNED = "SET search_path = pg_catalog, pg_temp;\n"

# TimescaleDB says this at each rename. Its workers are started once the database has its name.
QUIET = (r"you need to manually restart any running background workers",)

# None of the user's own settings, and only the values.
PSQL = (
    "--no-psqlrc",
    "--no-password",
    "--quiet",
    "--tuples-only",
    "--no-align",
    "--set=ON_ERROR_STOP=1",
    "--set=VERBOSITY=terse",
)


class Session:
    """A session of psql that stays open."""

    MARK = "-- done --"

    def __init__(self, server, database=None):
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        where = server.conninfo(database)
        self.child = subprocess.Popen(
            server.command("psql", *PSQL, *([f"--dbname={where}"] if where else [])),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=server.environment,
            encoding="utf-8",
            bufsize=1,
        )
        self.ask(PINNED)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Its transaction has changed nothing, so nobody needs to wait for its end.
        self.child.kill()
        self.child.wait()
        self.child.stdin.close()
        self.child.stdout.close()
        self.errors.close()

    def ask(self, sql):
        """Runs statements and returns the lines of their answers."""
        lines = []
        try:
            self.child.stdin.write(f"{sql};\n\\echo {self.MARK}\n")
            self.child.stdin.flush()
        except BrokenPipeError:
            pass
        for line in self.child.stdout:
            if line.rstrip("\n") == self.MARK:
                return "".join(lines)
            lines.append(line)
        self.child.wait()
        self.errors.seek(0)
        raise Failure(f"psql failed: {self.errors.read().strip()}")


def without_password(url):
    """A connection string without its password, and the password."""
    if "://" not in url:
        if re.search(r"\b(ssl)?password\s*=", url):
            return "", "?"
        return url, None
    parts = urllib.parse.urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    user, colon, password = user.partition(":")
    found = urllib.parse.unquote(password) if colon else None
    kept = []
    for pair in filter(None, parts.query.split("&")):
        name, _, value = pair.partition("=")
        if name in ("password", "sslpassword"):
            found = urllib.parse.unquote(value)
        else:
            kept.append(pair)
    if found is None:
        return url, None
    return urllib.parse.urlunsplit((parts.scheme, user + at + hosts, parts.path, "&".join(kept), "")), found


def digest(path):
    """Size and SHA-256 of a file, which is not a link."""
    sha256 = hashlib.sha256()
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        while block := file.read(1 << 20):
            sha256.update(block)
        return {"bytes": file.tell(), "sha256": sha256.hexdigest()}


def files(directory):
    """All files below a directory except the manifest, by their names in it."""
    found = {}
    for place, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(place, name)
            found[os.path.relpath(path, directory)] = path
    found.pop("manifest.json", None)
    return dict(sorted(found.items()))


class Backup:
    """A backup on the disk."""

    def __init__(self, path):
        self.path = path
        self.dump = os.path.join(path, "dump")
        try:
            with open(os.path.join(path, "manifest.json"), encoding="utf-8") as file:
                self.manifest = json.load(file)
        except FileNotFoundError:
            raise Failure(f"{path} is not a complete backup of db-backup: it has no manifest.json") from None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise Failure(f"the manifest of {path} cannot be read: {error}") from None
        form = self.manifest.get("format") if isinstance(self.manifest, dict) else None
        if form != FORMAT:
            raise Failure(
                f"the manifest of {path} has format {form}; this program reads format {FORMAT}: "
                "use the version that wrote it"
            )

    def check_files(self):
        """Compares the files with the manifest."""
        there, expected = files(self.path), self.manifest["files"]
        for name in expected:
            if name not in there:
                raise Failure(f"the backup is incomplete: {name} is missing")
        for name, path in there.items():
            if name not in expected:
                raise Failure(f"the backup was changed: {name} does not belong to it")
            found = digest(path)
            if found["bytes"] != expected[name]["bytes"]:
                raise Failure(
                    f"the backup is damaged: {name} has {found['bytes']} bytes "
                    f"and should have {expected[name]['bytes']}"
                )
            if found["sha256"] != expected[name]["sha256"]:
                raise Failure(f"the backup is damaged: {name} has changed (its SHA-256 differs)")

    def contents(self, server):
        """The lines of the dump's table of contents."""
        return [
            line
            for line in server.run("pg_restore", "--list", self.dump).splitlines()
            if line and not line.startswith(";")
        ]


# One object with what a backup must restore; asked in the backup's snapshot, and again in the restored
# database.
FACTS = """SELECT json_build_object(
    'server', current_setting('server_version'),
    'server_version', current_setting('server_version_num')::int,
    'database', (SELECT json_build_object('name', datname, 'owner', pg_get_userbyid(datdba),
            'encoding', pg_encoding_to_char(encoding), 'collate', datcollate, 'ctype', datctype,
            'connections', datconnlimit,
            'settings', coalesce((SELECT json_agg(setting ORDER BY place) FROM pg_db_role_setting s,
                unnest(s.setconfig) WITH ORDINALITY AS list (setting, place)
                WHERE s.setdatabase = d.oid AND s.setrole = 0
                    AND setting NOT LIKE 'timescaledb.restoring=%'), '[]'),
            'grants', (SELECT json_agg(json_build_object(
                'to', CASE grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(grantee) END,
                'privilege', privilege_type, 'grantable', is_grantable)) FROM aclexplode(d.datacl)))
        FROM pg_database d WHERE datname = current_database()),
    'roles', coalesce((SELECT json_agg(DISTINCT rolname)
        FROM pg_shdepend JOIN pg_roles ON pg_roles.oid = refobjid
        WHERE refclassid = 'pg_authid'::regclass
            AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())), '[]'),
    'extensions', (SELECT json_object_agg(extname, extversion ORDER BY extname) FROM pg_extension))"""

# The same, as far as there is a schema of jetcopy; its steps are asked one by one.
JETCOPY = """SELECT json_build_object(
    'schema', (SELECT max(version) FROM jetcopy.schema_history),
    'checkpoints', coalesce((SELECT json_agg(json_build_object(
            'shard', shard, 'pipeline', pipeline, 'stream', stream,
            'stream_created', stream_created, 'last_sequence', last_sequence,
            'last_timestamp', last_timestamp) ORDER BY shard)
        FROM jetcopy.checkpoints), '[]'))"""

TIMESCALEDB = """SELECT json_build_object(
    'chunks', coalesce((SELECT json_object_agg(name, counts) FROM (
        SELECT hypertable_schema || '.' || hypertable_name AS name,
            json_build_object('all', count(*), 'compressed', count(*) FILTER (WHERE is_compressed)) AS counts
        FROM timescaledb_information.chunks GROUP BY 1 ORDER BY 1) AS chunks), '{}'),
    'jobs', coalesce((SELECT json_agg(json_build_array(
            job_id, proc_schema || '.' || proc_name, schedule_interval, config, scheduled)
        ORDER BY job_id) FROM timescaledb_information.jobs WHERE job_id >= 1000), '[]'),
    'continuous_aggregates', coalesce((SELECT json_agg(json_build_array(
            view_schema || '.' || view_name, materialized_only,
        compression_enabled) ORDER BY view_schema, view_name)
        FROM timescaledb_information.continuous_aggregates), '[]'))"""

# What has rows of its own, as a person sees it: no partitions, no chunks, nothing of extensions; the roll-ups
# of TimescaleDB.
COUNTED = """SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM (
    SELECT format('%I.%I', nspname, relname) AS name
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE (relkind IN ('r', 'p') OR relkind = 'm' AND relispopulated) AND relpersistence <> 't'
        AND NOT relispartition
        AND nspname NOT IN ('pg_catalog', 'information_schema') AND nspname NOT LIKE '\\_timescaledb%'
        AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid)
        AND NOT EXISTS (SELECT FROM pg_depend
            WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
    ROLLUPS) AS counted"""

ROLLUPS = """UNION ALL
    SELECT format('%I.%I', view_schema, view_name) FROM timescaledb_information.continuous_aggregates"""


def facts(ask):
    """What `ask`, a function from a statement to its answer, says of a database."""
    found = json.loads(ask(FACTS))
    there = json.loads(ask("SELECT to_json(to_regclass('jetcopy.schema_history') IS NOT NULL)"))
    found["jetcopy"] = json.loads(ask(JETCOPY)) if there else None
    found["timescaledb"] = json.loads(ask(TIMESCALEDB)) if "timescaledb" in found["extensions"] else None
    return found


def count_rows(ask, with_timescaledb):
    """Rows of every table."""
    names = json.loads(ask(COUNTED.replace("ROLLUPS", ROLLUPS if with_timescaledb else "")))
    return {name: int(ask(f"SELECT count(*) FROM {name}")) for name in names}


def differences(manifest, found, rows):
    """What a restored database lacks or has too much, line by line."""
    lines = []
    if manifest["rows"] is not None:
        for name in sorted(manifest["rows"].keys() | rows.keys()):
            expected, there = manifest["rows"].get(name), rows.get(name)
            if expected != there:
                said = ["no such table" if count is None else f"{count} rows" for count in (there, expected)]
                lines.append(f"{name}: {said[0]}, in the backup {said[1]}")
    for part in ("jetcopy", "timescaledb"):
        expected, there = manifest[part] or {}, found[part] or {}
        for name in sorted(expected.keys() | there.keys()):
            if expected.get(name) != there.get(name):
                lines.append(
                    f"{part}, {name}: {json.dumps(there.get(name))}, "
                    f"in the backup {json.dumps(expected.get(name))}"
                )
    for name, version in manifest["extensions"].items():
        if (
            found["extensions"].get(name) is None
            or name == "timescaledb"
            and found["extensions"][name] != version
        ):
            lines.append(f"extension {name}: {found['extensions'].get(name)}, in the backup {version}")
    return lines


def seconds(value):
    """A duration for people."""
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"


def size(count):
    """Bytes for people."""
    return f"{count / 1048576:.1f} MiB" if count < 1 << 30 else f"{count / (1 << 30):.1f} GiB"
