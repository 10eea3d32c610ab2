#!/usr/bin/env bash
# Every night: export the rows that have no summary yet, get them summarised, load the answers.
#
#   30 2 * * *  /opt/tickets/nightly.sh /var/lib/tickets/tickets.db
#
# QUEUE names the sub-folder of the inbox; without it the file goes into the inbox itself.
# Needs: a running gemini-batchd, python3 (standard library only). Exits with the job's code: 0 all
# answered, 3 some lines failed (what is answered is loaded all the same), 4 nothing to do.
set -euo pipefail

database=${1:?usage: nightly.sh DATABASE.db}
here=$(cd "$(dirname "$0")" && pwd)
batchd=${GEMINI_BATCHD:-gemini-batchd}
name="tickets-$(date +%Y%m%d-%H%M%S).jsonl"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# One night at a time: if last night's is still running, leave it alone.
exec 9>"$database.nightly.lock"
flock --nonblock 9 || { echo "nightly: the previous run is still going" >&2; exit 4; }

rows=$(python3 "$here/rows.py" export "$database" "$work/$name")
if [ "$rows" -eq 0 ]; then
    echo "nightly: nothing to summarise"
    exit 4
fi
echo "nightly: $rows rows submitted as $name"

# The results are in the outbox when this comes back; the exit code says how it went.
code=0
"$batchd" submit --wait --json ${QUEUE:+--queue "$QUEUE"} "$work/$name" >"$work/report.json" || code=$?
manifest=$(python3 "$here/rows.py" manifest "$work/report.json")
if [ -z "$manifest" ]; then
    cat "$work/report.json" >&2
    exit "$code"
fi

python3 "$here/rows.py" load "$database" "${manifest%.manifest.json}.results.jsonl"
exit "$code"
