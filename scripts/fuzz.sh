#!/usr/bin/env bash
# Runs each fuzz target for a time: `fuzz.sh 90s`, `fuzz.sh 5m`. Findings are kept in fuzz/artifacts, the
# corpus in fuzz/corpus.
set -euo pipefail
cd "$(dirname "$0")/.."

# Limits on one allocation and on the process, in megabytes: a payload is 4 KiB at most.
limits=(-malloc_limit_mb=64 -rss_limit_mb=1024 -max_len=4096 -timeout=5)

case $1 in
    *m) seconds=$((${1%m} * 60)) ;;
    *) seconds=${1%s} ;;
esac

scripts/setup.sh fuzz
export PATH="$PWD/.tools/bin:$PATH"
# The fuzzer's instrumentation needs a nightly compiler, unless the stable one gets this. jetcopy has no
# unsafe code for a sanitizer to check, and without one fuzzing is several times as fast.
export RUSTC_BOOTSTRAP=1
for target in json msgpack raw ndjson cbor influx; do
    cargo fuzz run --sanitizer none "$target" -- -max_total_time="$seconds" -print_final_stats=1 \
        "${limits[@]}"
done
