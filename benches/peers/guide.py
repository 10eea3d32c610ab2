"""The Batch API with Google's Python SDK, as its guide shows it: the results as one string.

Usage: guide.py BASE_URL INPUT OUTPUT
"""

import json
import sys
import time

from google import genai
from google.genai import types


def main(url, source, target):
    client = genai.Client(api_key="any", http_options=types.HttpOptions(base_url=url))
    uploaded_file = client.files.upload(
        file=source,
        config=types.UploadFileConfig(display_name="peer", mime_type="jsonl"),
    )
    batch_job = client.batches.create(model="gemini-2.5-flash", src=uploaded_file.name)
    while batch_job.state.name not in ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED"):
        time.sleep(0.1)
        batch_job = client.batches.get(name=batch_job.name)
    content = client.files.download(file=batch_job.dest.file_name).decode("utf-8")
    answers = {}
    for line in content.split("\n"):
        if line:
            parsed = json.loads(line)
            answers[parsed["key"]] = parsed
    with open(source, encoding="utf-8") as requests, open(target, "w", encoding="utf-8") as out:
        for request in requests:
            answer = answers[json.loads(request)["key"]]
            out.write(json.dumps(answer, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
