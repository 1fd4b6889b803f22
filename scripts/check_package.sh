#!/usr/bin/env bash
# Installs the package of target/debian in a fresh Debian, runs it, removes it and purges it, and checks that
# nothing is left. Needs root and debootstrap. CHROOT=directory uses an existing Debian and leaves it
# unchanged.
set -euo pipefail
cd "$(dirname "$0")/.."

package=$(ls -t target/debian/*.deb | head -1)
root=${CHROOT:-}
made=
clean() {
    umount "$root/proc" || true
    if [ -n "$made" ]; then rm -rf "$made"; fi
}
trap clean EXIT
if [ -z "$root" ]; then
    root=$(mktemp -d)
    made=$root
    debootstrap --variant=minbase --include=systemd,ca-certificates,libssl3 bookworm "$root" >/dev/null
fi

# systemd's tools need it.
mount -t proc proc "$root/proc"

inside() { chroot "$root" env LC_ALL=C "$@"; }
fail() {
    echo "package: $*" >&2
    exit 1
}
# All files in the directories that a package may touch, without dpkg's own records and caches.
files() (
    cd "$root" &&
        find etc usr var -xdev \( -path var/lib/dpkg -o -path var/cache -o -path var/log \) -prune -o -print |
        sort
)

before=$(files)
users=$(cat "$root/etc/passwd" "$root/etc/group")
cp "$package" "$root/tmp/jetcopy.deb"
inside dpkg --install /tmp/jetcopy.deb
inside jetcopy --version
inside id jetcopy
[ "$(inside stat -c '%a %U %G' /etc/jetcopy/credentials)" = "700 root root" ] ||
    fail "others can read the secrets"
[ "$(inside stat -c '%a %U %G' /etc/jetcopy/jetcopy.toml)" = "640 root jetcopy" ] ||
    fail "wrong permissions on the configuration"
inside test -s /usr/share/man/man1/jetcopy.1.gz || fail "no manual"
inside test -s /usr/share/bash-completion/completions/jetcopy || fail "no completions"
for unit in jetcopy.service jetcopy-maintain.timer jetcopy-backup.timer; do
    inside systemd-analyze verify --man=no "/usr/lib/systemd/system/$unit" || fail "$unit is not valid"
    ! inside systemctl is-enabled --quiet "$unit" || fail "$unit is enabled, and has no configuration yet"
done
inside /usr/lib/jetcopy/db-monitor --help >/dev/null || fail "no db-monitor"
for program in db-backup db-restore db-verify; do
    inside test -x "/usr/lib/jetcopy/$program" || fail "no $program"
done
for shared in scripts/db-maintenance/*_common.py; do
    inside test -s "/usr/lib/jetcopy/${shared##*/}" ||
        fail "no ${shared##*/}, which the backup programs import"
done
for shared in store.toml postgres/roles.sql prometheus/rules/jetcopy.yml grafana/jetcopy.json; do
    inside test -s "/usr/share/jetcopy/$shared" || fail "no $shared"
done
inside test -s /usr/share/doc/jetcopy/docs/operations.md || fail "no documents"
inside dpkg-query --showformat '${Conffiles}\n' --show jetcopy | grep -q /etc/jetcopy/jetcopy.toml ||
    fail "not a conffile"

echo '# changed by the operator' >>"$root/etc/jetcopy/jetcopy.toml"
inside dpkg --install /tmp/jetcopy.deb >/dev/null
grep -q '# changed by the operator' "$root/etc/jetcopy/jetcopy.toml" ||
    fail "an upgrade overwrote the configuration"
touch "$root/etc/jetcopy/credentials/postgres.password"

inside dpkg --remove jetcopy
inside test -e /etc/jetcopy/credentials/postgres.password || fail "a removal deleted the secrets"
inside dpkg --purge jetcopy
rm "$root/tmp/jetcopy.deb"
left=$(comm -13 <(echo "$before") <(files) |
    grep -v -E '^(etc/(passwd|group|shadow|gshadow|subuid|subgid)-?)$' || true)
[ -z "$left" ] || fail "left behind: $left"
[ "$users" = "$(cat "$root/etc/passwd" "$root/etc/group")" ] || fail "a user or group is left behind"
echo "package: installed, upgraded, removed and purged; nothing is left"
