#!/bin/sh
# Runs once, if the data directory was empty, against a server that listens only on its Unix socket.
set -eu

database=${POSTGRES_DB:-postgres}
user=${POSTGRES_USER:-postgres}

psql --set ON_ERROR_STOP=1 --username "$user" --dbname "$database" \
    --command 'CREATE EXTENSION IF NOT EXISTS timescaledb' \
    --command 'CREATE EXTENSION IF NOT EXISTS pg_stat_statements'
# The tables of config/compose/jetcopy.toml; JETCOPY_STORE__TABLES names others, or "none".
export JETCOPY_STORE__TABLES="${JETCOPY_STORE__TABLES:-[\"frames\"]}"
jetcopy migrate --postgres-url "host=/var/run/postgresql user=$user dbname=$database"

# Roles with a login, for those whose password is passed as a secret.
login() {
    role=$1 group=$2 file=/run/secrets/$3
    [ -r "$file" ] || return 0
    psql --set ON_ERROR_STOP=1 --username "$user" --dbname "$database" \
        --set role="$role" --set group="$group" --set file="$file" <<-'SQL'
	-- Arguments can be seen by everybody: psql reads the password itself.
	\set password `cat :'file'`
	CREATE ROLE :"role" LOGIN PASSWORD :'password' IN ROLE :"group";
	SQL
}
if [ -r /usr/share/jetcopy/roles.sql ]; then
    psql --set ON_ERROR_STOP=1 --username "$user" --dbname "$database" --file /usr/share/jetcopy/roles.sql
    login jetcopy jetcopy_writer jetcopy_password
fi
login jetcopy_monitor pg_monitor monitor_password

# TLS, if a certificate is passed. The server refuses a key that others may read, so it gets a copy.
if [ -r /run/secrets/timescaledb_key ]; then
    install -m 644 /run/secrets/timescaledb_crt "$PGDATA/server.crt"
    install -m 600 /run/secrets/timescaledb_key "$PGDATA/server.key"
    echo "ssl = on" >>"$PGDATA/postgresql.conf"
fi

# These settings make the server load what the extensions need at its next start.
echo "include_if_exists = '/etc/postgresql/small.conf'" >>"$PGDATA/postgresql.conf"
