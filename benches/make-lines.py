#!/usr/bin/env python3
"""Writes JSON Lines to measure with, always the same for the same arguments.

    make-lines.py mixed MB          lines of all forms and sizes, some of them broken, MB * 10^6 bytes
    make-lines.py tiny COUNT        so many lines of about 90 bytes
    make-lines.py long MB           one line of MB * 10^6 bytes between two short ones
    make-lines.py files COUNT DIR   so many files of one line each, in DIR

The first three write to standard output. Memory stays small whatever is asked for.
"""

import json
import os
import random
import sys

WORDS = "the batch reads every line once 一 行 一 行 und schreibt sie genau wie sie war \\n \u00e9t\u00e9".split()


def text(dice, size):
    """About `size` characters of words."""
    return " ".join(dice.choices(WORDS, k=max(1, size // 5)))


def contents(prompt):
    return {"contents": [{"role": "user", "parts": [{"text": prompt}]}]}


def mixed(dice, number):
    """One line of some form; every 97th can not be sent."""
    size = dice.choice((40, 200, 200, 800, 800, 2000, 6000, 30000))
    request = contents(text(dice, size))
    if number % 97 == 0:
        return '{"key": "cut-%d", "request": {"contents": [' % number
    if number % 101 == 0:
        return json.dumps({"key": "no-request-%d" % number, "wrong": 1})
    form = number % 5
    if form == 0:
        return json.dumps({"key": number, "request": request})
    if form == 1:
        return json.dumps({"key": "row-%d" % number, "request": request}, ensure_ascii=False)
    if form == 2:
        return json.dumps({"request": request, "metadata": {"key": "again-%d" % (number % 1000)}})
    if form == 3:
        return json.dumps(request)
    request["generationConfig"] = {"temperature": 0.25, "maxOutputTokens": 64}
    return json.dumps({"request": request, "key": "r/%d" % number}) + "\r"


def write_lines(lines):
    out = sys.stdout.buffer
    for line in lines:
        out.write(line.encode() + b"\n")
    out.flush()


def mixed_lines(size):
    dice, written, number = random.Random(7), 0, 0
    while written < size:
        number += 1
        line = mixed(dice, number)
        written += len(line.encode()) + 1
        yield line


def tiny(number):
    return '{"key":%d,"request":{"contents":[{"role":"user","parts":[{"text":"say %d"}]}]}}' % (number, number)


def main(arguments):
    kind, amount = arguments[0], int(arguments[1])
    if kind == "mixed":
        write_lines(mixed_lines(amount * 1_000_000))
    elif kind == "tiny":
        write_lines(tiny(number) for number in range(1, amount + 1))
    elif kind == "long":
        dice = random.Random(7)
        prompt = (text(dice, 1000) + " ") * (amount * 1000)
        prompt = prompt.encode()[: amount * 1_000_000].decode(errors="ignore")
        long = json.dumps({"key": "long", "request": contents(prompt)}, ensure_ascii=False)
        write_lines([tiny(1), long, tiny(3)])
    elif kind == "files":
        for number in range(1, amount + 1):
            with open(os.path.join(arguments[2], "f%06d.jsonl" % number), "w") as file:
                file.write(tiny(number) + "\n")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1:])
