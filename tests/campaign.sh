#!/usr/bin/env bash
# The campaign: what `cargo test` does for seconds, for hours. Prints a line for each part, with
# its counts and seeds, and fails if anything was lost, doubled or paid twice.
#
#     tests/campaign.sh [--seed N] [--log FOLDER] [PART…]      without parts: all of them
#
# Needs Linux, strace and root (or user namespaces) for small disks; cargo-fuzz with a nightly
# toolchain for `fuzz`, cargo-mutants for `mutants`. What a part says goes into FOLDER/PART.log.
set -euo pipefail
cd "$(dirname "$0")/.."
unset GEMINI_API_KEY GOOGLE_API_KEY
# Optimised, with all checks of a debug build, in a folder of its own: nobody's builds disturb it.
export CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/campaign}

all=(simulation kills pairs disk power store fuzz mutants)
log=target/campaign
parts=()
while [ $# -gt 0 ]; do
    case $1 in
        --seed) export SEED=$2; shift 2 ;;
        --log) log=$2; shift 2 ;;
        -*) sed -n '2,9p' "$0"; exit 2 ;;
        *) parts+=("$1"); shift ;;
    esac
done
if [ ${#parts[@]} -eq 0 ]; then parts=("${all[@]}"); fi
mkdir -p "$log"

# A suite of `cargo test`, its closing lines shown as they come.
suite() { cargo test --quiet --test "$1" -- --nocapture --test-threads=1 "${@:2}"; }

run() {
    case $1 in
        simulation) GEMINI_BATCHD_DAYS=${DAYS:-100000} suite simulation ;;
        kills) GEMINI_BATCHD_KILLS=${KILLS:-5000} suite crash random ;;
        pairs) GEMINI_BATCHD_PAIRS=1 suite crash states ;;
        disk) GEMINI_BATCHD_EPISODES=${EPISODES:-60} suite full_disk ;;
        power) GEMINI_BATCHD_IMAGES=${IMAGES:-20000} suite power ;;
        store)
            GEMINI_BATCHD_STORE_OPS=${STORE_OPS:-10000000} GEMINI_BATCHD_STORE_RECORDS=${RECORDS:-100000} suite store
            ;;
        fuzz) fuzz/run.sh all "${EXECUTIONS:-20000000}" ;;
        mutants) tests/mutation/run.sh engine && tests/mutation/run.sh store ;;
        *) echo "no part is called $1; there are: ${all[*]}" >&2; return 2 ;;
    esac
}

failed=0
for part in "${parts[@]}"; do
    began=$SECONDS
    if run "$part" >"$log/$part.log" 2>&1; then verdict=passed; else verdict=FAILED failed=1; fi
    printf '%-11s %s in %d s\n' "$part" "$verdict" $((SECONDS - began))
    # The runner puts a point for each test before what the next one says.
    grep -aho 'campaign: .*' "$log/$part.log" | sed 's/^campaign: /            /' || true
    if [ $verdict = FAILED ]; then tail -n 20 "$log/$part.log"; fi
done
exit $failed
