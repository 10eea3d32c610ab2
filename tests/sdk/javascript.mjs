// Uses the Batch API through Google's own SDK, unmodified, and checks what comes back.
//
// Usage: node javascript.mjs BASE_URL API_VERSION, with the SDK in node_modules above this file's
// copy. The last line it prints is the number of batches it made.

import assert from "node:assert/strict";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { ApiError, GoogleGenAI } from "@google/genai";

const MODEL = "gemini-2.5-flash";
const EMBEDDER = "gemini-embedding-001";
const DONE = ["JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED"];

const [baseUrl, apiVersion] = process.argv.slice(2);
const ai = new GoogleGenAI({ apiKey: "a-key-for-the-sdk", apiVersion, httpOptions: { baseUrl } });
const folder = await fs.mkdtemp(path.join(os.tmpdir(), "sdk-"));
const made = [];

async function finish(name) {
  for (let turn = 0; turn < 400; turn += 1) {
    const job = await ai.batches.get({ name });
    if (DONE.includes(job.state)) return job;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`${name} did not end`);
}

async function all(pager) {
  const items = [];
  for await (const item of pager) items.push(item);
  return items;
}

/** The status of a call that must be refused. */
async function statusOf(call) {
  try {
    await call;
  } catch (error) {
    assert(error instanceof ApiError, String(error));
    return error.status;
  }
  throw new Error("it was not refused");
}

/** The SDK brings downloads only into a file. */
async function download(name) {
  const downloadPath = path.join(folder, "results.jsonl");
  await ai.files.download({ file: name, downloadPath });
  const text = await fs.readFile(downloadPath, "utf8");
  return text.trimEnd().split("\n").map((line) => JSON.parse(line));
}

const row = (key, text) => ({ key, request: { contents: [{ parts: [{ text }] }] } });

async function fromAFile() {
  const file = path.join(folder, "requests.jsonl");
  const rows = Array.from({ length: 25 }, (_, n) => row(`k${n}`, `问题 ${n}`));
  await fs.writeFile(file, rows.map((r) => `${JSON.stringify(r)}\n`).join(""));
  const config = { displayName: "rows", mimeType: "application/jsonl" };
  const uploaded = await ai.files.upload({ file, config });
  assert.equal(uploaded.state, "ACTIVE");
  assert.equal(Number(uploaded.sizeBytes), (await fs.stat(file)).size);
  assert.equal((await ai.files.get({ name: uploaded.name })).displayName, "rows");
  const listed = await all(await ai.files.list({ config: { pageSize: 1 } }));
  assert(listed.some((one) => one.name === uploaded.name));

  let job = await ai.batches.create({ model: MODEL, src: uploaded.name, config: { displayName: "of a file" } });
  assert.equal(job.state, "JOB_STATE_PENDING");
  job = await finish(job.name);
  assert.equal(job.state, "JOB_STATE_SUCCEEDED");
  const answers = new Map((await download(job.dest.fileName)).map((a) => [a.key, a.response]));
  assert.deepEqual([...answers.keys()].sort(), rows.map((r) => r.key).sort());
  assert.equal(answers.get("k7").candidates[0].content.parts[0].text, "Echo of request: 问题 7");
  await ai.files.delete({ name: uploaded.name });
  assert.equal(await statusOf(ai.files.get({ name: uploaded.name })), 403);
  made.push(job.name);
}

async function inline() {
  const responseSchema = { type: "OBJECT", properties: { mood: { type: "STRING", enum: ["good", "bad"] } } };
  const src = [
    { contents: [{ role: "user", parts: [{ text: "first" }] }], metadata: { key: "one" } },
    {
      contents: [{ role: "user", parts: [{ text: "second" }] }],
      config: {
        temperature: 0.5,
        systemInstruction: { parts: [{ text: "Be brief." }] },
        responseMimeType: "application/json",
        responseSchema,
      },
    },
  ];
  let job = await ai.batches.create({ model: MODEL, src, config: { displayName: "inline" } });
  job = await finish(job.name);
  assert.equal(job.state, "JOB_STATE_SUCCEEDED");
  const [first, second] = job.dest.inlinedResponses;
  const text = (item) => item.response.candidates[0].content.parts[0].text;
  assert.equal(text(first), "Echo of request: first");
  assert.equal(first.metadata.key, "one");
  assert.deepEqual(JSON.parse(text(second)), { mood: "good" });
  const usage = first.response.usageMetadata;
  const parts = usage.promptTokenCount + usage.candidatesTokenCount + usage.thoughtsTokenCount;
  assert.equal(usage.totalTokenCount, parts);
  made.push(job.name);
}

async function embeddings() {
  const inlinedRequests = { contents: ["one", "two", "one"], config: { outputDimensionality: 64 } };
  let job = await ai.batches.createEmbeddings({ model: EMBEDDER, src: { inlinedRequests }, config: { displayName: "e" } });
  job = await finish(job.name);
  const vectors = job.dest.inlinedEmbedContentResponses.map((item) => item.response.embedding.values);
  assert.deepEqual(vectors.map((vector) => vector.length), [64, 64, 64]);
  assert.deepEqual(vectors[0], vectors[2]);
  assert.notDeepEqual(vectors[0], vectors[1]);

  const rows = ["a", "b"].map((text, n) => ({
    key: `e${n}`,
    request: { content: { parts: [{ text }] }, outputDimensionality: 8 },
  }));
  const bytes = new Blob([rows.map((r) => `${JSON.stringify(r)}\n`).join("")]);
  const uploaded = await ai.files.upload({ file: bytes, config: { mimeType: "application/jsonl" } });
  let ofFile = await ai.batches.createEmbeddings({ model: EMBEDDER, src: { fileName: uploaded.name } });
  ofFile = await finish(ofFile.name);
  const lengths = (await download(ofFile.dest.fileName)).map((line) => line.response.embedding.values.length);
  assert.deepEqual(lengths, [8, 8]);
  made.push(job.name, ofFile.name);
}

/** Larger than a piece of an upload, which is 8 MiB; once from a path, once from a blob. */
async function inPieces() {
  const file = path.join(folder, "large.jsonl");
  const filler = "词".repeat(150_000);
  const rows = Array.from({ length: 22 }, (_, n) => row(`p${n}`, `${filler} ${n}`));
  await fs.writeFile(file, rows.map((r) => `${JSON.stringify(r)}\n`).join(""));
  const { size } = await fs.stat(file);
  assert(size > 9 << 20);
  const mimeType = "application/jsonl";
  const fromPath = await ai.files.upload({ file, config: { mimeType, name: "files/large-rows" } });
  assert.equal(fromPath.name, "files/large-rows");
  const blob = new Blob([await fs.readFile(file)]);
  const fromBlob = await ai.files.upload({ file: blob, config: { mimeType } });
  assert.deepEqual([Number(fromPath.sizeBytes), Number(fromBlob.sizeBytes)], [size, size]);
  assert.equal(fromPath.sha256Hash, fromBlob.sha256Hash);
  const job = await finish((await ai.batches.create({ model: MODEL, src: fromBlob.name })).name);
  assert.equal((await download(job.dest.fileName)).length, 22);
  for (const { name } of [fromPath, fromBlob]) await ai.files.delete({ name });
  made.push(job.name);
}

async function cancelledAndDeleted() {
  const src = [{ contents: [{ parts: [{ text: "late" }] }] }];
  let job = await ai.batches.create({ model: MODEL, src, config: { displayName: "late" } });
  await ai.batches.cancel({ name: job.name });
  job = await finish(job.name);
  assert(["JOB_STATE_CANCELLED", "JOB_STATE_SUCCEEDED"].includes(job.state), job.state);
  made.push(job.name);
  const listed = await all(await ai.batches.list({ config: { pageSize: 2 } }));
  for (const name of made) assert(listed.some((one) => one.name === name), name);
  for (const name of made) {
    await ai.batches.delete({ name });
    assert.equal(await statusOf(ai.batches.get({ name })), 404);
  }
}

try {
  await fromAFile();
  await inline();
  await embeddings();
  await inPieces();
  await cancelledAndDeleted();
  const src = [{ contents: [{ parts: [{ text: "x" }] }] }];
  assert.equal(await statusOf(ai.batches.create({ model: "gemini-none", src })), 404);
  console.log(made.length);
} finally {
  await fs.rm(folder, { recursive: true });
}
