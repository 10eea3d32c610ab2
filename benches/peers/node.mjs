// A client of the Batch API with Google's Node SDK that reads and writes line by line.
//
// Usage: node.mjs BASE_URL INPUT OUTPUT
import { createReadStream, createWriteStream } from "node:fs";
import { open, rm } from "node:fs/promises";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { once } from "node:events";
import { GoogleGenAI } from "@google/genai";

const [url, source, target] = process.argv.slice(2);
const ai = new GoogleGenAI({ apiKey: "any", httpOptions: { baseUrl: url } });

const uploaded = await ai.files.upload({
  file: source,
  config: { displayName: "peer", mimeType: "application/jsonl" },
});
let job = await ai.batches.create({ model: "gemini-2.5-flash", src: uploaded.name });
while (job.state !== "JOB_STATE_SUCCEEDED" && job.state !== "JOB_STATE_FAILED") {
  await sleep(100);
  job = await ai.batches.get({ name: job.name });
}
const results = `${target}.download`;
await ai.files.download({ file: job.dest.fileName, downloadPath: results });

const lines = (path) => createInterface({ input: createReadStream(path), crlfDelay: Infinity });
const where = new Map();
let start = 0;
for await (const line of lines(results)) {
  const length = Buffer.byteLength(line) + 1;
  where.set(JSON.parse(line).key, [start, length]);
  start += length;
}
const answers = await open(results, "r");
const out = createWriteStream(target);
for await (const request of lines(source)) {
  const [from, length] = where.get(JSON.parse(request).key);
  const line = Buffer.alloc(length);
  await answers.read(line, 0, length, from);
  if (!out.write(line)) await once(out, "drain");
}
out.end();
await once(out, "finish");
await answers.close();
await rm(results);
