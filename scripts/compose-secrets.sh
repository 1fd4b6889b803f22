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
    [ -s "secrets/$1" ] || od -An -tx1 -N24 /dev/urandom | tr -d ' \n' >"secrets/$1"
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
# Included by the server's configuration, which reads no files of secrets itself.
printf 'JETCOPY_NATS_PASSWORD: "%s"\nJETCOPY_NATS_PUBLISHER_PASSWORD: "%s"\n' \
    "$(cat secrets/nats_password)" "$(cat secrets/nats_publisher_password)" >secrets/nats_variables

echo "secrets/ is complete"
