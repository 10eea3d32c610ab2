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

# Other clients of the API are installed when they are asked for.
for word in "$@"; do
    if [ "$word" != --peers ] && [ "$word" != peers ]; then continue; fi
    export BENCH_PEERS=$root/target/benches/peers
    mkdir -p "$BENCH_PEERS"
    cp "$here"/peers/* "$BENCH_PEERS/"
    if [ ! -x "$BENCH_PEERS/venv/bin/python" ]; then python3 -m venv "$BENCH_PEERS/venv"; fi
    "$BENCH_PEERS/venv/bin/python" -m pip install --quiet -r "$BENCH_PEERS/requirements.txt" ||
        echo 'the Python SDK cannot be installed here' >&2
    (cd "$BENCH_PEERS" && npm install --silent --no-audit --no-fund) ||
        echo 'the Node SDK cannot be installed here' >&2
    "$BENCH_PEERS/venv/bin/python" -m pip freeze 2>/dev/null | grep -i '^google-genai' >&2 || true
    (cd "$BENCH_PEERS" && npm ls --depth=0 2>/dev/null) | sed -n 's/.*\(@google.*\)/\1/p' >&2
done
# So is what drives a browser.
if command -v npm >/dev/null && [ -x /usr/bin/chromium ]; then
    export BENCH_PAGE=$root/target/benches/page
    mkdir -p "$BENCH_PAGE"
    cp "$here"/page/* "$BENCH_PAGE/"
    if [ ! -d "$BENCH_PAGE/node_modules/playwright-core" ]; then
        (cd "$BENCH_PAGE" && npm install --silent --no-audit --no-fund --ignore-scripts) || unset BENCH_PAGE
    fi
fi
exec "$tools" table "$BINARY" "$@"
