#!/usr/bin/env bash
# Creates the secrets and certificates for docker-compose.yml and docker-compose.db.yml in secrets/; keeps
# existing ones.
#
# The directory is closed to other users. The files in it are not, since each container reads its own with its
# own user.
set -euo pipefail
cd "$(dirname "$0")/.."

umask 022
mkdir -p secrets
chmod 700 secrets

secret() {
    # A letter first: the NATS server parses its variables like its configuration, and digits would be a
    # number.
    [ -s "secrets/$1" ] || printf 'j%s' "$(od -An -tx1 -N24 /dev/urandom | tr -d ' \n')" >"secrets/$1"
}

secret postgres_password
secret jetcopy_password
secret monitor_password
secret http_token
secret nats_password
secret nats_publisher_password
secret grafana_password
secret pgadmin_password

# A private authority, and a certificate for each server, with the names by which containers and this machine
# reach it. They are valid for ten years. To renew them, remove secrets/ca_crt; docs/deployment.md says how to
# load them.
extensions() { printf 'basicConstraints=%s\nsubjectAltName=DNS:%s,DNS:localhost,IP:127.0.0.1\n' "$1" "$2"; }

certificate() {
    openssl req -new -newkey rsa:2048 -nodes -subj "/CN=$1" -keyout "secrets/$1_key" \
        -out "secrets/$1_csr" 2>/dev/null
    extensions CA:FALSE "$1" >secrets/extensions
    openssl x509 -req -in "secrets/$1_csr" -CA secrets/ca_crt -CAkey secrets/ca_key -CAcreateserial \
        -days 3650 -extfile secrets/extensions -out "secrets/$1_crt" 2>/dev/null
    chmod 644 "secrets/$1_key"
    rm "secrets/$1_csr" secrets/extensions
}

if ! [ -s secrets/ca_crt ]; then
    openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=jetcopy-compose -keyout secrets/ca_key \
        -out secrets/ca_crt 2>/dev/null
    certificate nats
    certificate timescaledb
fi

for role in jetcopy:jetcopy_password jetcopy_monitor:monitor_password; do
    printf '"%s" "%s"\n' "${role%%:*}" "$(cat "secrets/${role#*:}")"
done >secrets/pgbouncer_userlist
# The NATS server does not read secrets from files, only from its environment.
printf 'JETCOPY_NATS_PASSWORD=%s\nJETCOPY_NATS_PUBLISHER_PASSWORD=%s\n' \
    "$(cat secrets/nats_password)" "$(cat secrets/nats_publisher_password)" >secrets/nats_environment

echo "secrets/ is complete"
