#!/usr/bin/env bash
# Runs all tests on plain PostgreSQL, and where the server offers TimescaleDB once more with it those that
# touch the store. Each run ends with the test runner's own summary; right before that stands which tests ran
# on what and what was left out, by name. `JETCOPY_REQUIRE=timescaledb,pgbouncer` makes what is left out for
# want of them fail. Where plain PostgreSQL fails, that is the end: the output ends with what failed.
set -euo pipefail
cd "$(dirname "$0")/.."

# Most tests wait for servers most of the time.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}

account=target/tests
mkdir -p "$account"
rm -f "$account"/*

# Whether the PostgreSQL that the tests take, as src/testbed/programs.rs finds it, offers TimescaleDB.
offers_timescaledb() {
    local bin
    if [ -n "${JETCOPY_POSTGRES_BIN:-}" ]; then
        bin=$JETCOPY_POSTGRES_BIN
    elif command -v initdb >/dev/null; then
        bin=$(dirname "$(readlink -f "$(command -v initdb)")")
    else
        bin=$(dirname "$(compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1)")
    fi
    [ -f "$("$bin/pg_config" --sharedir)/extension/timescaledb.control" ]
}

# Runs tests with JETCOPY_TIMESCALEDB as the first argument says; the others are cargo's. Holds back each
# result until the next program begins, and the last one until the account is told.
run() {
    local switch=$1 name=plain
    shift
    [ "$switch" = no ] || name=timescaledb
    JETCOPY_TIMESCALEDB=$switch JETCOPY_TEST_REPORT=$PWD/$account/$name.tsv \
        cargo test --no-fail-fast --features kill-points "$@" 2>&1 |
        awk -v summary="scripts/test_summary.py $account" '
            function release() { printf "%s", held; fflush(); held = ""; holding = 0 }
            /^ *Running / { release() }
            /^test result: / { holding = 1 }
            holding { held = held $0 "\n"; next }
            { print; fflush() }
            END { system(summary); release() }'
}

cargo test --doc
if ! offers_timescaledb; then
    # What needs it is left out; where it is required, that fails.
    run no --lib --bins --tests
    exit
fi

# The second run is the one that must have it.
others=$(tr -d ' ' <<<"${JETCOPY_REQUIRE:-}" | tr ',' '\n' | { grep -vx timescaledb || true; } | paste -sd,)
JETCOPY_REQUIRE=$others run no --lib --bins --tests
# Those that asked for a server of which the switch decides what it is.
mapfile -t names < <(awk -F'\t' '$1 == "store" && $5 == "switched" { print $3 }' "$account/plain.tsv" | sort -u)
run yes --lib --test it -- --exact "${names[@]}"
