#!/usr/bin/env bash
# Makes the secrets that docker-compose.yml and docker-compose.db.yml hand over, in secrets/; keeps those that are there.
#
# The directory is closed to others. The files in it are not, since each container reads its own as a user of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

umask 022
mkdir -p secrets
chmod 700 secrets

secret() {
    # A letter first: the NATS server reads its variables as it reads its configuration, and takes digits for a number.
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

for role in jetcopy:jetcopy_password jetcopy_monitor:monitor_password; do
    printf '"%s" "%s"\n' "${role%%:*}" "$(cat "secrets/${role#*:}")"
done >secrets/pgbouncer_userlist
# The NATS server reads no files of secrets: it takes them from its environment.
printf 'JETCOPY_NATS_PASSWORD=%s\nJETCOPY_NATS_PUBLISHER_PASSWORD=%s\n' \
    "$(cat secrets/nats_password)" "$(cat secrets/nats_publisher_password)" >secrets/nats_environment

echo "secrets/ is complete"
