// A stand-in for the daemon: the page's files, and ten thousand made-up jobs behind the same
// interface. It is for looking at the page and for testing how it copes with many.
//
// By itself: node fixture.mjs FOLDER_OF_THE_PAGE [PORT]. The token is `secret`.

import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { pathToFileURL } from "node:url";

const TYPES = { html: "text/html; charset=utf-8", css: "text/css; charset=utf-8", js: "text/javascript; charset=utf-8" };
const POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const NAMES = ["reviews/today", "names", "translate", "questions-zh", "reviews/2026-11", "产品说明", "support/tickets-and-their-very-long-name-which-nobody-can-read-in-one-line", "<img src=x onerror=alert(1)>"];
const MODELS = ["gemini-2.5-flash", "gemini-2.5-flash-lite", "gemini-2.5-pro"];
const HOUR = 3600;

export const TOKEN = "secret";

/** Starts it; `count` jobs, the last ones under way. */
export async function start(folder, count, port = 0) {
  const began = Math.floor(Date.now() / 1000);
  const at = (ago) => new Date((began - ago) * 1000).toISOString().replace(/\.\d+/, "");
  const jobs = Array.from({ length: count }, (_, n) => job(n, count, at));
  const events = [];
  const clients = new Set();
  const tell = (kind, text, one = null) => {
    const event = { seq: events.length + 1, time: new Date().toISOString().replace(/\.\d+/, ""), job: one?.id ?? null, file: one?.file ?? null, kind, text };
    events.push(event);
    for (const client of clients) client.write(`id: ${event.seq}\ndata: ${JSON.stringify(event)}\n\n`);
  };
  tell("started", "version 0.1.0 started");
  for (const one of jobs.slice(-12)) tell("claimed", "is taken out of the inbox", one);
  tell("held", "the same content was sent before", jobs[3] ?? jobs[0]);
  const state = { jobs, events, clients, tell, at, paused: false, queues: new Set(), draining: false };
  const server = http.createServer((request, response) => answer(state, folder, request, response));
  await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
  const stop = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return { url: `http://127.0.0.1:${server.address().port}`, port: server.address().port, tell, jobs, stop };
}

function job(n, count, at) {
  const left = count - n;
  const state = n % 997 === 3 ? "held" : n % 613 === 5 ? "failed" : left <= 9 ? "active" : left <= 12 ? "planned" : n % 211 === 0 ? "cancelled" : "done";
  const total = 40 + ((n * 7919) % 5000);
  const over = ["done", "cancelled"].includes(state);
  const failed = n % 9 === 0 && (over || state === "active") ? 1 + (n % 17) : 0;
  const answered = over ? total - failed : state === "active" ? Math.floor((total * (left - 1)) / 10) : 0;
  const ago = Math.floor(left * 240);
  const held = "the same content was sent before, as names.jsonl, and answered. Release it to have it answered again";
  const refused = "no line is valid; line 1, column 8: a request needs contents. Mend it and drop it again";
  return {
    id: `01KAJ${String(n).padStart(5, "0")}0000000000000000`,
    file: `${NAMES[n % NAMES.length]}-${n}.jsonl`,
    queue: n % NAMES.length < 5 ? "default" : "reviews",
    model: MODELS[n % MODELS.length],
    state,
    phase: { active: "waiting at Google", planned: "waiting for its turn", done: "complete", cancelled: "cancelled", held: "waits for a person", failed: "refused" }[state],
    reason: { held, failed: refused }[state] ?? null,
    lines: state === "failed" || state === "held" ? { total: 0, answered: 0, failed: 0, open: 0 } : { total, answered, failed, open: total - answered - failed },
    chunks: state === "active" ? { running: 2, settled: 1 } : {},
    batches: over || state === "active" ? [batch(n, total, at, ago, over)] : [],
    batches_total: over || state === "active" ? 1 : 0,
    output: over ? NAMES[n % NAMES.length] : null,
    times: { claimed: at(ago + 900), planned: at(ago + 898), first_create: at(ago + 880), last_result: over ? at(ago) : null, delivered: over ? at(ago) : null },
    tokens: over ? { prompt: total * 180, output: total * 61, thinking: total * 22, cached: 0, total: total * 263 } : null,
    failures: over && failed > 0 ? { blocked: failed } : {},
    on_hold: left === 4,
    waiting_s: state === "active" ? 600 + left * 811 : null,
    typical_s: state === "active" && n % 3 > 0 ? 2100 : null,
    bytes: total * 731,
  };
}

function batch(n, lines, at, ago, over) {
  return { name: `batches/${(n * 48271).toString(36)}k2w9o8evd6lrjn08b92xr74sbh1rbv`, chunk: 0, attempt: 1, state: over ? "SUCCEEDED" : "RUNNING", lines, created: at(ago + 880), ended: over ? at(ago + 60) : null, answered: over ? lines : null };
}

function timeline({ jobs, at }) {
  return jobs.filter((one) => one.batches.length > 0).slice(-300).reverse().map((one, n) => {
    const [made] = one.batches;
    const over = made.ended !== null;
    const ago = Math.floor((n + 1) * 280 + ((n * 7919) % 900));
    const took = 1200 + ((n * 104729) % (over ? 2 * HOUR : 300));
    const created = over ? ago + took : 300 + ((n * 613) % 4000);
    return { name: made.name, job: one.id, file: one.file, chunk: 0, attempt: 1, state: n % 23 === 11 ? "EXPIRED" : made.state, lines: made.lines, queued: at(created + 200 + (n % 5) * 400), created: at(created), ended: over ? at(ago) : null, collected: over ? at(ago - 120) : null };
  });
}

function daysOf() {
  return Array.from({ length: 30 }, (_, n) => {
    const day = new Date(Date.now() - (29 - n) * 24 * HOUR * 1000).toISOString().slice(0, 10);
    const lines = [5, 6].includes(n % 7) ? 0 : 9000 + ((n * 7919) % 21000);
    const failed = Math.floor(lines / (n % 4 === 0 ? 9 : 60));
    return { day, jobs: Math.ceil(lines / 2500), lines, answered: lines - failed, failed, tokens: { prompt: lines * 180, output: lines * 61, thinking: lines * 22, cached: 0, total: lines * 263 } };
  });
}

function answer(state, folder, request, response) {
  const url = new URL(request.url, "http://fixture");
  const json = (value, code = 200) => {
    response.writeHead(code, { "Content-Type": "application/json" });
    response.end(JSON.stringify(value));
  };
  const refuse = (code, status, message) => json({ error: { status, message } }, code);
  if (request.method === "POST") {
    if (request.headers.authorization !== `Bearer ${TOKEN}`) return refuse(401, "UNAUTHENTICATED", "changes need the token of state/control.token");
    return change(state, url.pathname, json, refuse);
  }
  const name = url.pathname === "/" ? "index.html" : url.pathname.slice(1);
  if (/^[a-z]+\.(html|css|js)$/.test(name)) {
    response.writeHead(200, { "Content-Type": TYPES[path.extname(name).slice(1)], "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer" });
    return response.end(fs.readFileSync(path.join(folder, name)));
  }
  const one = /^\/v1\/jobs\/(\w+)(\/events)?$/.exec(url.pathname);
  if (one) {
    const found = state.jobs.find((job) => job.id.startsWith(one[1].toUpperCase()));
    if (!found) return refuse(404, "NOT_FOUND", `no job's id begins with "${one[1]}"`);
    return json(one[2] ? { version: 1, events: eventsOf(found, state), next: 9 } : found);
  }
  switch (url.pathname) {
    case "/v1/status":
      return json(snapshot(state));
    case "/v1/jobs":
      return json(page(state.jobs, url.searchParams));
    case "/v1/batches":
      return json({ version: 1, batches: timeline(state) });
    case "/v1/days":
      return json({ version: 1, days: daysOf() });
    case "/v1/events":
      if (request.headers.accept !== "text/event-stream") return json({ version: 1, events: state.events.slice(-100), next: state.events.length });
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      response.write(": hello\n\n");
      state.clients.add(response);
      response.on("close", () => state.clients.delete(response));
      return undefined;
    default:
      return refuse(404, "NOT_FOUND", "no such route");
  }
}

function eventsOf(one, { at }) {
  const event = (seq, ago, kind, text) => ({ seq, time: at(ago), job: one.id, file: one.file, kind, text });
  return [event(1, 2000, "claimed", "is taken out of the inbox"), event(2, 1990, "planned", `${one.lines.total} lines, 1 chunk`), event(3, 1980, "batch_created", "batches/abc for chunk 0, attempt 1")];
}

function snapshot({ jobs, at, paused, draining, queues }) {
  const counts = {};
  for (const one of jobs) counts[one.state] = (counts[one.state] ?? 0) + 1;
  const health = { daemon: "0.1.0", pid: 4242, inbox: "/var/lib/gemini-batchd/inbox", watching: "events", started: at(93_784), now: new Date().toISOString(), paused: null, trouble: null, draining, paused_by_operator: paused };
  const needy = jobs.filter((one) => one.state === "held");
  const live = jobs.filter((one) => ["active", "planned"].includes(one.state));
  const over = jobs.filter((one) => ["done", "failed", "cancelled"].includes(one.state)).reverse();
  const queue = (name) => ({ name, paused: queues.has(name), waiting: live.filter((one) => one.queue === name && one.state === "planned").length, active: live.filter((one) => one.queue === name && one.state === "active").length, held: needy.filter((one) => one.queue === name).length });
  return { version: 1, health, counts, queues: [queue("default"), queue("reviews")], jobs: [...needy, ...live, ...over].slice(0, 200), jobs_total: jobs.length };
}

function page(jobs, query) {
  const states = (query.get("state") ?? "").split(",").filter(Boolean);
  const part = (query.get("file") ?? "").toLowerCase();
  let found = jobs.filter((one) => (states.length === 0 || states.includes(one.state)) && one.file.toLowerCase().includes(part) && (!query.get("queue") || one.queue === query.get("queue")));
  if (query.get("order") !== "oldest") found = found.toReversed();
  const total = found.length;
  const after = query.get("after");
  if (after) found = found.slice(found.findIndex((one) => one.id === after) + 1);
  const limit = Number(query.get("limit") ?? 100);
  return { version: 1, jobs: found.slice(0, limit), total, next: found.length > limit ? found[limit - 1].id : null };
}

function change(state, pathname, json, refuse) {
  const asked = /^\/v1\/(jobs|queues|daemon)\/?([^:]*):(\w+)$/.exec(decodeURIComponent(pathname));
  if (!asked) return refuse(404, "NOT_FOUND", "no such route");
  const [, what, name, verb] = asked;
  state.tell("command", `${verb} ${name}`);
  if (what === "daemon") {
    state.paused = verb === "pause";
    state.draining = verb === "drain";
    return json({ version: 1, said: `The daemon: ${verb}` });
  }
  if (what === "queues") {
    if (verb === "pause") state.queues.add(name);
    else state.queues.delete(name);
    return json({ version: 1, said: `The queue ${name}: ${verb}` });
  }
  const one = state.jobs.find((job) => job.id === name);
  if (!one) return refuse(404, "NOT_FOUND", "no such job");
  if (verb === "cancel") Object.assign(one, { state: "cancelled", phase: "cancelled", waiting_s: null });
  if (verb === "release") Object.assign(one, { state: "claimed", phase: "taking the file", reason: null, on_hold: false });
  if (verb === "hold") one.on_hold = true;
  if (verb === "delete") state.jobs.splice(state.jobs.indexOf(one), 1);
  return json({ version: 1, job: one, said: `${verb} was asked for` });
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [folder, port] = process.argv.slice(2);
  const { url } = await start(folder, 10_000, Number(port ?? 0));
  console.log(url);
}
