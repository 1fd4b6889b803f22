#!/usr/bin/env bash
# Runs all tests on plain PostgreSQL and, if the server offers TimescaleDB, runs those that use the store
# again with it. Each run ends with the test runner's own summary, and right before it, which tests ran on
# what and which were skipped, by name. With `JETCOPY_REQUIRE=timescaledb,pgbouncer`, tests that would be
# skipped for lack of these fail. If a test fails on plain PostgreSQL, nothing more runs: the output ends with
# what failed.
set -euo pipefail
cd "$(dirname "$0")/.."

# Most tests wait for servers most of the time.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}

account=target/tests
mkdir -p "$account"
rm -f "$account"/*

# Whether the PostgreSQL that the tests use, as src/testbed/programs.rs finds it, offers TimescaleDB.
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

# Runs tests with JETCOPY_TIMESCALEDB set to the first argument; the others are cargo's. Holds each result
# back until the next program starts, and the last one until the summary is printed.
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

cargo test --features kill-points --doc
if ! offers_timescaledb; then
    # Tests that need it are skipped; if it is required, that fails.
    run no --lib --bins --tests
    exit
fi

# Only the second run must have it.
others=$(tr -d ' ' <<<"${JETCOPY_REQUIRE:-}" | tr ',' '\n' | { grep -vx timescaledb || true; } | paste -sd,)
JETCOPY_REQUIRE=$others run no --lib --bins --tests
# The tests whose server depends on that switch.
mapfile -t names < <(
    awk -F'\t' '$1 == "store" && $5 == "switched" { print $3 }' "$account/plain.tsv" | sort -u
)
run yes --lib --test it -- --exact "${names[@]}"
