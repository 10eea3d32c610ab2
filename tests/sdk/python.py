"""Uses the Batch API through Google's own SDK, unmodified, and checks what comes back.

Usage: python.py BASE_URL API_VERSION

The last line it prints is the number of batches it made.
"""

import asyncio
import io
import json
import pathlib
import sys
import tempfile
import time

import pydantic
from google import genai
from google.genai import errors, types

MODEL = "gemini-2.5-flash"
EMBEDDER = "gemini-embedding-001"
DONE = {"JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED"}


def finish(client, name):
    for _ in range(400):
        job = client.batches.get(name=name)
        if job.state.name in DONE:
            return job
        time.sleep(0.02)
    raise AssertionError(f"{name} did not end")


def row(key, text):
    return {"key": key, "request": {"contents": [{"parts": [{"text": text}]}]}}


def from_a_file(client, folder):
    path = folder / "requests.jsonl"
    rows = [row(f"k{n}", f"问题 {n}") for n in range(25)]
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    config = types.UploadFileConfig(display_name="rows", mime_type="application/jsonl")
    uploaded = client.files.upload(file=str(path), config=config)
    assert uploaded.state.name == "ACTIVE", uploaded
    assert uploaded.size_bytes == path.stat().st_size, uploaded
    assert client.files.get(name=uploaded.name).display_name == "rows"
    assert uploaded.name in [f.name for f in client.files.list(config={"page_size": 5})]

    job = client.batches.create(model=MODEL, src=uploaded.name, config={"display_name": "of a file"})
    assert job.state.name == "JOB_STATE_PENDING", job
    job = finish(client, job.name)
    assert job.state.name == "JOB_STATE_SUCCEEDED", job
    content = client.files.download(file=job.dest.file_name).decode("utf-8")
    answers = {a["key"]: a["response"] for a in map(json.loads, content.splitlines())}
    assert set(answers) == {r["key"] for r in rows}, answers.keys()
    said = answers["k7"]["candidates"][0]["content"]["parts"][0]["text"]
    assert said == "Echo of request: 问题 7", said
    for answer in answers.values():
        types.GenerateContentResponse.model_validate(answer)

    client.files.delete(name=uploaded.name)
    try:
        client.files.get(name=uploaded.name)
    except errors.ClientError as error:
        assert error.code == 403, error
    else:
        raise AssertionError("a deleted file is still there")
    return job.name


def inline(client):
    schema = {"type": "OBJECT", "properties": {"mood": {"type": "STRING", "enum": ["good", "bad"]}}}
    requests = [
        {"contents": [{"role": "user", "parts": [{"text": "first"}]}]},
        {
            "contents": [{"role": "user", "parts": [{"text": "second"}]}],
            "config": {
                "temperature": 0.5,
                "system_instruction": {"parts": [{"text": "Be brief."}]},
                "response_mime_type": "application/json",
                "response_schema": schema,
            },
        },
    ]
    job = client.batches.create(model=MODEL, src=requests, config={"display_name": "inline"})
    job = finish(client, job.name)
    assert job.state.name == "JOB_STATE_SUCCEEDED", job
    first, second = job.dest.inlined_responses
    assert first.response.text == "Echo of request: first", first
    assert json.loads(second.response.text) == {"mood": "good"}, second
    usage = first.response.usage_metadata
    parts = usage.prompt_token_count + usage.candidates_token_count + usage.thoughts_token_count
    assert usage.total_token_count == parts, usage
    return job.name


def embeddings(client, folder):
    """Inline and from a file, as the SDK sends them: without a key or metadata on inline rows."""
    texts = ["one", "two", "one"]
    source = {"inlined_requests": {"contents": texts, "config": {"output_dimensionality": 64}}}
    job = client.batches.create_embeddings(model=EMBEDDER, src=source, config={"display_name": "e"})
    job = finish(client, job.name)
    assert job.state.name == "JOB_STATE_SUCCEEDED", job
    vectors = [r.response.embedding.values for r in job.dest.inlined_embed_content_responses]
    assert [len(vector) for vector in vectors] == [64] * 3, vectors
    assert vectors[0] == vectors[2] != vectors[1]
    assert abs(sum(value * value for value in vectors[0]) - 1) < 1e-4

    path = folder / "embeddings.jsonl"
    rows = [
        {"key": f"e{n}", "request": {"content": {"parts": [{"text": text}]}, "output_dimensionality": 8}}
        for n, text in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    config = types.UploadFileConfig(mime_type="application/jsonl")
    uploaded = client.files.upload(file=str(path), config=config)
    of_file = client.batches.create_embeddings(model=EMBEDDER, src={"file_name": uploaded.name})
    of_file = finish(client, of_file.name)
    content = client.files.download(file=of_file.dest.file_name).decode("utf-8")
    answers = {a["key"]: a["response"]["embedding"]["values"] for a in map(json.loads, content.splitlines())}
    assert {key: len(values) for key, values in answers.items()} == {"e0": 8, "e1": 8, "e2": 8}, answers
    return [job.name, of_file.name]


def one_by_one(client):
    """A single request, on the tier that a batch costs; older SDKs know no tiers."""
    config = {"max_output_tokens": 100}
    knows_tiers = "service_tier" in types.GenerateContentConfig.model_fields
    if knows_tiers:
        config["service_tier"] = "flex"
    answer = client.models.generate_content(model=MODEL, contents="just one", config=config)
    assert answer.text == "Echo of request: just one", answer
    tier = {name.lower(): value for name, value in answer.sdk_http_response.headers.items()}["x-gemini-service-tier"]
    assert tier == ("flex" if knows_tiers else "standard"), tier


def in_pieces(client, folder):
    """Larger than a piece of an upload, which is 8 MiB; once from a path, once from a stream."""
    path = folder / "large.jsonl"
    filler = "词" * 150_000
    path.write_text("".join(json.dumps(row(f"p{n}", f"{filler} {n}"), ensure_ascii=False) + "\n" for n in range(22)), "utf-8")
    assert path.stat().st_size > 9 << 20
    config = types.UploadFileConfig(mime_type="application/jsonl", name="files/large-rows")
    from_path = client.files.upload(file=str(path), config=config)
    assert from_path.name == "files/large-rows", from_path
    stream = io.BytesIO(path.read_bytes())
    from_stream = client.files.upload(file=stream, config={"mime_type": "application/jsonl"})
    assert from_path.size_bytes == from_stream.size_bytes == path.stat().st_size
    assert from_path.sha256_hash == from_stream.sha256_hash
    job = finish(client, client.batches.create(model=MODEL, src=from_stream.name).name)
    content = client.files.download(file=job.dest.file_name).decode("utf-8")
    assert len(content.splitlines()) == 22
    for uploaded in (from_path, from_stream):
        client.files.delete(name=uploaded.name)
    return job.name


def of_the_guide(client, folder):
    """The guide: a config for each request, a schema from a class, a poll until it is over."""

    class Recipe(pydantic.BaseModel):
        recipe_name: str
        ingredients: list[str]

    requests = [
        {
            "contents": [{"parts": [{"text": "List a few popular cookie recipes."}], "role": "user"}],
            "config": {"response_mime_type": "application/json", "response_schema": list[Recipe]},
        },
        {
            "contents": [{"parts": [{"text": "Write a short poem about clouds."}]}],
            "config": {
                "system_instruction": {"parts": [{"text": "You are a cat. Your name is Neko."}]},
                "temperature": 0.5,
                "tools": [{"google_search": {}}],
            },
        },
    ]
    job = client.batches.create(model="models/gemini-3.5-flash", src=requests, config={"display_name": "inlined-requests-job-1"})
    completed = {"JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED"}
    while job.state.name not in completed:
        time.sleep(0.02)
        job = client.batches.get(name=job.name)
    assert job.state.name == "JOB_STATE_SUCCEEDED" and job.error is None, job
    recipes = json.loads(job.dest.inlined_responses[0].response.text)
    assert all(isinstance(recipe["ingredients"], list) for recipe in recipes), recipes

    path = folder / "my-batch-requests.jsonl"
    rows = [
        {"key": "request-1", "request": {"contents": [{"parts": [{"text": "Describe the process of photosynthesis."}]}]}},
        {"key": "request-2", "request": {"contents": [{"parts": [{"text": "What are the main ingredients in a Margherita pizza?"}]}], "generation_config": {"temperature": 0.7}}},
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    uploaded = client.files.upload(file=str(path), config=types.UploadFileConfig(display_name="my-batch-requests", mime_type="jsonl"))
    of_file = client.batches.create(model="gemini-3.5-flash", src=uploaded.name, config={"display_name": "file-upload-job-1"})
    of_file = finish(client, of_file.name)
    content = client.files.download(file=of_file.dest.file_name).decode("utf-8")
    assert [json.loads(line)["key"] for line in content.splitlines()] == ["request-1", "request-2"]
    return [job.name, of_file.name]


async def without_blocking(client):
    """The same calls of the client that does not block."""
    source = [{"contents": [{"parts": [{"text": "at once"}]}]}]
    job = await client.aio.batches.create(model=MODEL, src=source, config={"display_name": "async"})
    for _ in range(400):
        job = await client.aio.batches.get(name=job.name)
        if job.state.name in DONE:
            break
        await asyncio.sleep(0.02)
    assert job.dest.inlined_responses[0].response.text == "Echo of request: at once", job
    stream = io.BytesIO(json.dumps(row("k", "x")).encode())
    uploaded = await client.aio.files.upload(file=stream, config={"mime_type": "application/jsonl"})
    names = [file.name async for file in await client.aio.files.list(config={"page_size": 1})]
    assert uploaded.name in names, names
    await client.aio.files.delete(name=uploaded.name)
    names = [batch.name async for batch in await client.aio.batches.list(config={"page_size": 2})]
    assert job.name in names, names
    return job.name


def cancelled_and_deleted(client, others):
    job = client.batches.create(
        model=MODEL, src=[{"contents": [{"parts": [{"text": "late"}]}]}], config={"display_name": "late"}
    )
    client.batches.cancel(name=job.name)
    job = finish(client, job.name)
    assert job.state.name in ("JOB_STATE_CANCELLED", "JOB_STATE_SUCCEEDED"), job
    listed = {j.name: j for j in client.batches.list(config={"page_size": 2})}
    assert set(listed) >= {job.name, *others}, listed.keys()
    assert listed[job.name].display_name == "late"
    for name in [job.name, *others]:
        client.batches.delete(name=name)
        try:
            client.batches.get(name=name)
        except errors.ClientError as error:
            assert error.code == 404, error
        else:
            raise AssertionError(f"{name} is still there")


def refused(client):
    try:
        client.batches.create(model="gemini-none", src=[{"contents": [{"parts": [{"text": "x"}]}]}])
    except errors.ClientError as error:
        assert error.code == 404 and error.status == "NOT_FOUND", error
    else:
        raise AssertionError("an unknown model was accepted")


def main():
    base_url, version = sys.argv[1:]
    options = types.HttpOptions(base_url=base_url, api_version=version)
    client = genai.Client(api_key="a-key-for-the-sdk", http_options=options)
    with tempfile.TemporaryDirectory() as folder:
        made = [from_a_file(client, pathlib.Path(folder)), inline(client)]
        made += embeddings(client, pathlib.Path(folder))
        made += [in_pieces(client, pathlib.Path(folder))]
        made += of_the_guide(client, pathlib.Path(folder))
    made += [asyncio.run(without_blocking(client))]
    cancelled_and_deleted(client, made)
    one_by_one(client)
    refused(client)
    print(len(made) + 1)


main()
