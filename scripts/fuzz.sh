#!/usr/bin/env bash
# Runs each fuzz target for a time: `fuzz.sh 90s`, `fuzz.sh 5m`. What it finds is kept in fuzz/artifacts, what it learned in
# fuzz/corpus.
set -euo pipefail
cd "$(dirname "$0")/.."

# Bytes that one allocation, and megabytes that the process may take: a payload is 4 KiB at most.
limits=(-malloc_limit_mb=64 -rss_limit_mb=1024 -max_len=4096 -timeout=5)

case $1 in
    *m) seconds=$((${1%m} * 60)) ;;
    *) seconds=${1%s} ;;
esac

scripts/setup.sh fuzz
export PATH="$PWD/.tools/bin:$PATH"
# The fuzzer's instrumentation is for nightly compilers only, unless the stable one is told otherwise. There is no unsafe
# code in jetcopy that a sanitizer could find fault with, and without one it runs several times as fast.
export RUSTC_BOOTSTRAP=1
for target in json msgpack; do
    cargo fuzz run --sanitizer none "$target" -- -max_total_time="$seconds" -print_final_stats=1 "${limits[@]}"
done
