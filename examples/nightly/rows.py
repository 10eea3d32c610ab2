#!/usr/bin/env python3
"""Rows of a SQLite table to JSON Lines, and the answers back into the table.

    rows.py export DATABASE OUT.jsonl      writes the open rows, prints how many
    rows.py manifest REPORT.json           prints the manifest that `submit --wait --json` names
    rows.py load DATABASE RESULTS.jsonl    fills in the summaries, prints how many

The table is tickets(id INTEGER PRIMARY KEY, body TEXT, summary TEXT). The row's id is the key of its
line, so that each answer finds its row again, whatever order or gaps there are.
"""

import json
import sqlite3
import sys

PROMPT = "Summarise this support ticket in one sentence.\n\n"


def export(database, out):
    count = 0
    with sqlite3.connect(database) as db, open(out, "w", encoding="utf-8") as lines:
        rows = db.execute("SELECT id, body FROM tickets WHERE summary IS NULL ORDER BY id")
        for row_id, body in rows:
            contents = [{"role": "user", "parts": [{"text": PROMPT + body}]}]
            line = {"key": row_id, "request": {"contents": contents}}
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
    print(count)


def manifest(report):
    try:
        with open(report, encoding="utf-8") as text:
            print(json.load(text)[0]["ending"].get("manifest", ""))
    except (ValueError, LookupError):
        print("")


def load(database, results):
    count = 0
    with sqlite3.connect(database) as db, open(results, encoding="utf-8") as lines:
        for line in lines:
            answer = json.loads(line)
            text = "".join(
                part.get("text", "")
                for part in answer["response"]["candidates"][0]["content"].get("parts", [])
                if not part.get("thought")
            )
            # Loading the same file twice changes nothing.
            done = db.execute(
                "UPDATE tickets SET summary = ? WHERE id = ? AND summary IS NULL",
                (text, answer["key"]),
            )
            count += done.rowcount
    print(f"loaded {count} summaries")


if __name__ == "__main__":
    {"export": export, "manifest": manifest, "load": load}[sys.argv[1]](*sys.argv[2:])
