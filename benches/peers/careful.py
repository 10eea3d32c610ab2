"""A careful client of the Batch API with Google's Python SDK: nothing is held in memory that need not be.

Usage: careful.py BASE_URL INPUT OUTPUT

The SDK uploads, creates and polls; it can only download into memory, so the download goes through
the HTTP library that it brings along. Of the results only offsets are kept.
"""

import json
import os
import sys
import time

from google import genai
from google.genai import types

try:
    import httpx
except ImportError:
    import httpx2 as httpx

BLOCK = 256 * 1024


def main(url, source, target):
    client = genai.Client(api_key="any", http_options=types.HttpOptions(base_url=url))
    config = types.UploadFileConfig(display_name="peer", mime_type="application/jsonl")
    uploaded = client.files.upload(file=source, config=config)
    job = client.batches.create(model="gemini-2.5-flash", src=uploaded.name)
    while job.state.name not in ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED"):
        time.sleep(0.1)
        job = client.batches.get(name=job.name)
    results = target + ".download"
    download(f"{url}/download/v1beta/{job.dest.file_name}:download?alt=media", results)
    reorder(source, results, target)
    os.remove(results)


def download(url, path):
    with httpx.stream("GET", url, headers={"x-goog-api-key": "any"}, timeout=60) as answer:
        answer.raise_for_status()
        with open(path, "wb", buffering=BLOCK) as out:
            for block in answer.iter_raw(BLOCK):
                out.write(block)


def reorder(source, results, target):
    where = {}
    with open(results, "rb", buffering=BLOCK) as lines:
        start = 0
        for line in lines:
            where[json.loads(line)["key"]] = (start, len(line))
            start += len(line)
    with (
        open(source, "rb", buffering=BLOCK) as requests,
        open(results, "rb") as lines,
        open(target, "wb", buffering=BLOCK) as out,
    ):
        for request in requests:
            start, length = where[json.loads(request)["key"]]
            lines.seek(start)
            out.write(lines.read(length))
        out.flush()
        os.fsync(out.fileno())


if __name__ == "__main__":
    main(*sys.argv[1:])
