#!/usr/bin/env bash
# Measures gemini-batchd and prints the table of docs/performance.md: figure, goal, measured.
#
#     benches/run.sh [--quick] [GROUP…]     groups: benches/run.sh --list
#
# Builds what is measured, unless BINARY names it. Needs Linux, curl and coreutils, and room below
# $TMPDIR: 4 GB with --quick, 30 GB without. Whoever else uses the machine is in the figures.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
unset GEMINI_API_KEY GOOGLE_API_KEY

cargo build --quiet --release --manifest-path "$here/tools/Cargo.toml" --target-dir "$root/target/benches"
tools=$root/target/benches/release/bench
if [ -z "${BINARY:-}" ]; then
    (cd "$root" && cargo build --quiet --release --bin gemini-batchd)
    BINARY=$root/target/release/gemini-batchd
fi
exec "$tools" table "$BINARY" "$@"
