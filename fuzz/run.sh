#!/usr/bin/env bash
# Runs a target, or all of them one after the other, for so many executions each:
#
#     fuzz/run.sh [TARGET|all] [EXECUTIONS] [SECONDS]
#
# SEED=n begins with the same dice. What grows the corpus goes to FUZZ_CORPUS (a folder below /tmp
# by default); fuzz/keep.sh picks from there what is to be kept.
set -euo pipefail
cd "$(dirname "$0")/.."
targets=${1:-all} executions=${2:-25000000} seconds=${3:-3600}
seed=${SEED:-$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}
grown=${FUZZ_CORPUS:-/tmp/gemini-batchd-fuzz}
if [ "$targets" = all ]; then targets='pieces results wire settings stream'; fi
for target in $targets; do
    mkdir -p "$grown/$target"
    log=$grown/$target.log
    failed=0
    cargo +nightly fuzz run --sanitizer none "$target" "$grown/$target" "fuzz/corpus/$target" -- \
        "-runs=$executions" "-max_total_time=$seconds" "-seed=$seed" -max_len=4096 -len_control=50 \
        "-dict=fuzz/dictionaries/$target.dict" -print_final_stats=1 -timeout=20 \
        >"$log" 2>&1 || failed=1
    count=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
    echo "campaign: fuzz $target, executions ${count:-unknown}, found $failed, seed $seed"
    if [ "$failed" -ne 0 ]; then
        tail -n 30 "$log"
        exit 1
    fi
done
