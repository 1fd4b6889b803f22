#!/usr/bin/env bash
# Builds the Debian package into target/debian. PROFILE=dev builds it from an unoptimized program, for a test.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${PROFILE:-release}
deb_version=3.8.0
case "$profile" in dev) built=target/debug ;; *) built=target/$profile ;; esac

if ! command -v cargo-deb >/dev/null && ! [ -x .tools/bin/cargo-deb ]; then
    echo "package: building cargo-deb $deb_version into .tools/bin; this takes some minutes, once" >&2
    cargo install --quiet --locked --root .tools --version "$deb_version" cargo-deb
fi

cargo build --quiet --locked --profile "$profile" --bin jetcopy
rm -rf target/package
mkdir -p target/package/man
"$built/jetcopy" man target/package/man
"$built/jetcopy" completions bash >target/package/jetcopy.bash
"$built/jetcopy" completions zsh >target/package/_jetcopy
"$built/jetcopy" completions fish >target/package/jetcopy.fish
PATH="$PWD/.tools/bin:$PATH" cargo deb --quiet --no-build --profile "$profile" --output target/debian/
ls -l target/debian/*.deb
