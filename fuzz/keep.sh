#!/usr/bin/env bash
# Picks from the grown corpus of a target what reaches more code than what is kept already:
#
#     fuzz/keep.sh TARGET
set -euo pipefail
cd "$(dirname "$0")/.."
target=$1
grown=${FUZZ_CORPUS:-/tmp/gemini-batchd-fuzz}
cargo +nightly fuzz run --sanitizer none "$target" "fuzz/corpus/$target" "$grown/$target" -- -merge=1
ls "fuzz/corpus/$target" | wc -l
du -sb "fuzz/corpus/$target"
