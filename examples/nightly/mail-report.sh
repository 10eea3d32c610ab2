#!/usr/bin/env bash
# A hook: mails what the daemon tells. For a report, its text; else what happened, and what helps.
#
#   on_report = ["/opt/tickets/mail-report.sh", "team@example.org"]
#
# Needs a `sendmail` (SENDMAIL names another one). The facts come as environment and, whole, as JSON
# on standard input, which is not needed here. Exit code 75 asks to be called again later.
set -euo pipefail

to=${1:?usage: mail-report.sh ADDRESS}
sendmail=${SENDMAIL:-/usr/sbin/sendmail}
text=$GEMINI_BATCHD_TEXT
# The report as text lies beside the JSON that is named.
report=${GEMINI_BATCHD_OUTBOX_MANIFEST:-}
report=${report%.json}.md
subject="gemini-batchd: $GEMINI_BATCHD_EVENT"
if [ -n "${GEMINI_BATCHD_FILE:-}" ]; then subject="$subject: $GEMINI_BATCHD_FILE"; fi

{
    # Names come from outside: no line break of theirs begins a header.
    printf 'To: %s\nSubject: %s\n' "$to" "${subject//[$'\r\n']/ }"
    printf 'Content-Type: text/plain; charset=utf-8\n\n'
    if [ "$GEMINI_BATCHD_EVENT" = report ] && [ -r "$report" ]; then cat "$report"; else printf '%s\n' "$text"; fi
} | "$sendmail" -t || exit 75
