#!/usr/bin/env bash
# Mutation testing: does any test notice when a line of the engine or the store is wrong?
#
#   tests/mutation/run.sh engine|store [arguments for `cargo mutants`, such as --shard 0/10]
#
# Needs cargo-mutants (`cargo install --locked cargo-mutants`). The whole package takes minutes to
# build, so what is mutated is a small one, made in a temporary folder: the module, the tests that
# are about it in the same crate, and the few crates both use. A mutant then costs seconds. JOBS (2)
# says how many go at a time. What was found lies in target/mutants/PART/, beginning with
# missed.txt; mutants that nobody could tell from the original are listed in .cargo/mutants.toml,
# each with its reason.
set -euo pipefail
cd "$(dirname "$0")/../.."
part=${1:?engine or store}
shift

case $part in
engine)
    # Not the simulation: it needs half of the program, and would take minutes for each mutant.
    modules=(engine)
    suites=(engine)
    crates=()
    ;;
store)
    # The store keeps what the engine thinks in.
    modules=(engine failpoint store)
    suites=(store)
    crates=(fail redb rustix serde serde_json sha2 sled tempfile thiserror tracing ulid)
    ;;
*)
    echo "engine or store, not $part" >&2
    exit 2
    ;;
esac

out=$PWD/target/mutants/$part
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
package=$place/package
mkdir -p "$package/src" "$package/tests" "$package/.cargo" "$out"
cp Cargo.lock "$package/"
cp .cargo/mutants.toml "$package/.cargo/"
cp -r tests/fixtures "$package/tests/"

# The tests become modules of the crate, so that each mutant is compiled and linked once.
printf 'extern crate self as gemini_batchd;\n' >"$package/src/lib.rs"
for module in "${modules[@]}"; do
    # A folder, or a single file.
    cp -r "src/$module"* "$package/src/"
    printf 'pub mod %s;\n' "$module" >>"$package/src/lib.rs"
done
for suite in "${suites[@]}"; do
    cp -r "tests/$suite" "$package/tests/"
    find "$package/tests/$suite" -name '*.rs' -exec sed -i "s/\bcrate::/crate::${suite}_tests::/g" {} +
    printf '#[cfg(test)]\n#[path = "../tests/%s/main.rs"]\nmod %s_tests;\n' "$suite" "$suite" \
        >>"$package/src/lib.rs"
done
{
    sed -n '/^\[package\]/,/^rust-version/p' Cargo.toml
    printf 'autotests = false\n\n[lib]\nname = "gemini_batchd"\ndoctest = false\n'
    # What is not mutated is built once, and fast: most of the time goes into sled, redb and sums.
    printf '\n[profile.dev]\ndebug = false\n\n[profile.dev.package."*"]\nopt-level = 2\n'
    printf '\n[dependencies]\n'
    for name in "${crates[@]}"; do
        sed -n "/^\[dependencies\]/,/^\[features\]/{/^$name = /p}" Cargo.toml
    done
    if [ "$part" = store ]; then printf '\n[features]\nredb = ["dep:redb"]\ndefault = ["redb"]\n'; fi
} >"$package/Cargo.toml"

# Enough to notice, and quick. Files in memory, as syncs are not what is tested.
# Operations are done in runs of 2,500, at least one on each store.
export GEMINI_BATCHD_STORE_OPS=19 GEMINI_BATCHD_STORE_KILLS=2 GEMINI_BATCHD_STORE_FLIPS=4
export GEMINI_BATCHD_STORE_RECORDS=50
if [ -d /dev/shm ]; then
    TMPDIR=$(mktemp -d -p /dev/shm)
    export TMPDIR
    trap 'rm -rf "$place" "$TMPDIR"' EXIT
fi

# It ends with an error when a mutant was missed; the count below tells.
cargo mutants --dir "$package" --output "$out" --file "src/$part/**" --jobs "${JOBS:-2}" \
    --minimum-test-timeout 20 --no-shuffle --colors never "$@" || true

count() { wc -l <"$out/mutants.out/$1.txt"; }
caught=$(($(count caught) + $(count timeout)))
viable=$((caught + $(count missed)))
if [ "$viable" -eq 0 ]; then
    echo "no mutant was tested; see $out/mutants.out/log" >&2
    exit 1
fi
printf 'campaign: mutants of %s %d, caught %d (%d of them by a timeout), missed %d: %d.%d %% in %d s\n' \
    "$part" "$viable" "$caught" "$(count timeout)" "$(count missed)" \
    $((caught * 100 / viable)) $((caught * 1000 / viable % 10)) "$SECONDS"
