#!/usr/bin/env bash
# Memory and time of the whole way from inbox to outbox, against the emulator as its own process.
#
#     benches/whole-way.sh [MB] [SCENARIO…]
#
# See README.md beside this file. Exits 1 if lines were lost or a limit on memory was passed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=${BINARY:-$here/../target/release/gemini-batchd}
speed=${SPEED:-20}
count=${COUNT:-2000}
rows=${ROWS:-200000}

megabytes=300
if [[ ${1:-} =~ ^[0-9]+$ ]]; then megabytes=$1; shift; fi
scenarios=("$@")
if [ ${#scenarios[@]} -eq 0 ]; then scenarios=(plan file inline shuffled long); fi

if [ ! -x "$binary" ]; then
    echo "no $binary: run 'cargo build --release' first, or set BINARY" >&2
    exit 2
fi
binary=$(cd "$(dirname "$binary")" && pwd)/$(basename "$binary")

place=$(mktemp -d "${TMPDIR:-/tmp}/whole-way.XXXXXX")
emulator=
failures=0
stop_emulator() {
    if [ -n "$emulator" ]; then kill "$emulator" 2>/dev/null || true; wait "$emulator" || true; fi
    emulator=
}
leave() {
    stop_emulator
    if [ -n "${KEEP:-}" ]; then echo "kept: $place"; else rm -rf "$place"; fi
}
trap leave EXIT

# Starts the emulator, with a TOML file of faults if there is one, and sets $url.
start_emulator() {
    stop_emulator
    local faults=()
    if [ -n "${1:-}" ]; then printf '%s\n' "$1" >"$place/faults.toml"; faults=(--faults "$place/faults.toml"); fi
    TMPDIR=$place "$binary" emulate --speed "$speed" "${faults[@]}" >"$place/emulator.out" 2>"$place/emulator.err" &
    emulator=$!
    for _ in $(seq 200); do
        url=$(sed -n '1s/^listening on //p' "$place/emulator.out")
        if [ -n "$url" ]; then return; fi
        sleep 0.05
    done
    echo "the emulator did not start:" >&2
    cat "$place/emulator.err" >&2
    exit 1
}

# Runs a command; sets $seconds, $peak (KiB) and $code. Its output goes to $place/out and err.
measure() {
    code=0
    if [ -x /usr/bin/time ]; then
        /usr/bin/time -q -o "$place/measured" -f '%e %M' "$@" >"$place/out" 2>"$place/err" || code=$?
        read -r seconds peak < <(tail -n 1 "$place/measured")
        return
    fi
    # Without it, the kernel's own high-water mark is read until the process has ended.
    local began=$EPOCHREALTIME pid seen
    peak=0
    "$@" >"$place/out" 2>"$place/err" &
    pid=$!
    while seen=$(awk '/^VmHWM/ { print $2 }' "/proc/$pid/status" 2>/dev/null) && [ -n "$seen" ]; do
        peak=$seen
        sleep 0.02
    done
    wait "$pid" || code=$?
    seconds=$(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f", b - a }')
}

# report NAME LIMIT_MIB: one line of the table; a peak beyond the limit is a failure.
report() {
    local ratio=-
    if [ -n "${baseline:-}" ]; then
        ratio=$(awk -v s="$seconds" -v b="$baseline" 'BEGIN { printf "%.1f", s / (b > 0.01 ? b : 0.01) }')
    fi
    printf '%-10s %9s s %9.1f MiB %8s   exit %s%s\n' "$1" "$seconds" \
        "$(awk -v k="$peak" 'BEGIN { print k / 1024 }')" "$ratio" "$code" "${note:+   $note}"
    if [ "$peak" -gt $(($2 * 1024)) ]; then
        echo "    more than $2 MiB" >&2
        failures=$((failures + 1))
    fi
    note=
}

# drain SPOOL QUEUE_SETTINGS…: everything in the spool's inbox, through the emulator.
drain() {
    local spool=$1
    shift
    printf '%s\n' '[queue.default]' "$@" >"$place/gemini-batchd.toml"
    local variables=(GEMINI_API_KEY=not-a-real-key "GEMINI_BATCHD__API__BASE_URL=$url"
        GEMINI_BATCHD__POLL__MIN=200ms GEMINI_BATCHD__POLL__MAX=1s GEMINI_BATCHD__INTAKE__SETTLE=0s
        GEMINI_BATCHD__INTAKE__DUPLICATES=process)
    measure env "${variables[@]}" "$binary" --config "$place/gemini-batchd.toml" --spool "$spool" once
}

# check SPOOL STEM LINES: results and errors must add up to the lines of the input.
check() {
    local found
    # Without a failed line there is no file of errors.
    found=$(find "$1/outbox" -name "$2.results.jsonl" -o -name "$2.errors.jsonl" | xargs -r cat | wc -l)
    note="$found lines"
    if [ "$found" -ne "$3" ] || [ ! -e "$1/outbox/$2.manifest.json" ]; then
        echo "    $found lines came out, $3 went in; the daemon said:" >&2
        tail -n 5 "$place/err" >&2
        failures=$((failures + 1))
    fi
}

# one NAME FILE LIMIT_MIB SETTINGS…: a spool of its own for one file.
one() {
    local name=$1 file=$2 limit=$3 spool=$place/spool-$1
    shift 3
    mkdir -p "$spool/inbox"
    cp "$file" "$spool/inbox/a.jsonl"
    drain "$spool" "$@"
    check "$spool" a "$(wc -l <"$file")"
    report "$name" "$limit"
    if [ -n "${VERBOSE:-}" ]; then sed 's/^/    /' "$place/err" | tail -n 20; fi
    rm -rf "$spool"
}

# The least that has to be done: a copy on disk, and one upload by curl.
baselines() {
    start_emulator
    measure bash -c 'cp "$1" "$2" && sync "$2"' - "$1" "$place/copy"
    local copied=$seconds session
    baseline=
    report "cp" 64
    if ! command -v curl >/dev/null; then baseline=$copied; return; fi
    session=$(curl -sS -D - -o /dev/null -H 'x-goog-api-key: any' -H 'content-type: application/json' \
        -H 'x-goog-upload-protocol: resumable' -H 'x-goog-upload-command: start' \
        -H "x-goog-upload-header-content-length: $(stat -c %s "$1")" \
        -H 'x-goog-upload-header-content-type: application/jsonl' \
        -d '{"file":{"displayName":"baseline"}}' "$url/upload/v1beta/files" |
        tr -d '\r' | sed -n 's/^x-goog-upload-url: //Ip')
    measure curl -sSf -o "$place/uploaded" -X POST -H 'x-goog-upload-command: upload, finalize' \
        -H 'x-goog-upload-offset: 0' -H 'expect:' -T "$1" "$session"
    report "curl" 64
    baseline=$(awk -v a="$copied" -v b="$seconds" 'BEGIN { print a + b }')
    rm -f "$place/copy"
}

# Many files at once, while the status is asked for again and again.
many() {
    local spool=$place/spool-many asked=0 slowest=0 began took
    mkdir -p "$spool/inbox"
    "$here/make-lines.py" files "$count" "$spool/inbox"
    touch "$place/asking"
    (
        while [ -e "$place/asking" ]; do
            sleep 1
            began=$EPOCHREALTIME
            if timeout 20 "$binary" --spool "$spool" status --json >"$place/status.json" 2>/dev/null; then
                took=$(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%d", (b - a) * 1000 }')
                asked=$((asked + 1))
                if [ "$took" -gt "$slowest" ]; then slowest=$took; fi
            fi
            echo "$asked $slowest" >"$place/asked"
        done
    ) &
    local asker=$!
    drain "$spool" 'transport = "auto"'
    rm -f "$place/asking"
    wait "$asker"
    local done
    done=$(find "$spool/outbox" -name '*.manifest.json' | wc -l)
    read -r asked slowest <"$place/asked"
    note="$done of $count files, $(awk -v n="$done" -v s="$seconds" 'BEGIN { printf "%.1f", n / s }') files/s,"
    note+=" status answered $asked times, slowest $slowest ms"
    if [ "$done" -ne "$count" ]; then failures=$((failures + 1)); fi
    report many 256
    if [ -z "${KEEP:-}" ]; then rm -rf "$spool"; fi
}

input=$place/input.jsonl
"$here/make-lines.py" mixed "$megabytes" >"$input"
printf '%-10s %11s %13s %8s\n' "$megabytes MB" time 'peak RSS' ratio
baselines "$input"
for scenario in "${scenarios[@]}"; do
    case $scenario in
    plan)
        measure "$binary" --spool "$place/none" plan "$input"
        report plan 64
        ;;
    file) start_emulator; one file "$input" 64 'transport = "file"' ;;
    inline) start_emulator; one inline "$input" 64 'transport = "inline"' ;;
    shuffled)
        start_emulator 'shuffled = "always"'; one shuffled "$input" 64 'transport = "file"'
        ;;
    long)
        "$here/make-lines.py" long $((megabytes < 60 ? megabytes : 60)) >"$place/long.jsonl"
        start_emulator; one long "$place/long.jsonl" 200 'transport = "file"'
        ;;
    tiny)
        "$here/make-lines.py" tiny "$rows" >"$place/tiny.jsonl"
        start_emulator; one tiny "$place/tiny.jsonl" 64 'transport = "file"'
        ;;
    shuffled-tiny)
        "$here/make-lines.py" tiny "$rows" >"$place/tiny.jsonl"
        start_emulator 'shuffled = "always"'; one shuffled-tiny "$place/tiny.jsonl" 64 'transport = "file"'
        ;;
    many) start_emulator; many ;;
    *)
        echo "unknown scenario $scenario: plan, file, inline, shuffled, long, tiny, shuffled-tiny, many" >&2
        exit 2
        ;;
    esac
done
if [ "$failures" -gt 0 ]; then
    echo "$failures of the figures are not what they should be" >&2
    exit 1
fi
