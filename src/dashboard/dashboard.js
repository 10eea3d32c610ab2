// The page: what the daemon does, and what people may ask of it.
//
// It looks every few seconds, and at once when an event tells that something has changed. Whatever
// comes from outside goes in as text. Rows are kept and only brought up to date, so that the
// keyboard's place is not lost. Nothing is stored but the token (see client.js).

import { daily, daysTable, timeline, timelineTable } from "./charts.js";
import { Gone, Refused, el, follow, get, mark, millis, moment, number, plural, post, say, size, span, svg, timed, token } from "./client.js";

const $ = (id) => document.getElementById(id);
const sleep = (ms) => new Promise((later) => setTimeout(later, ms));

const PAGE = 50;
const LOOK_MS = 5_000;
const AGAIN_MS = 1_500;
const BETWEEN_MS = 700;
const CHARTS_MS = 60_000;
const CHARTS_BETWEEN_MS = 4_000;
const EVENTS_SHOWN = 100;
const NEEDS_SHOWN = 6;
const REDRAW_MS = 150;
const SAID_MS = 8_000;

let status = null;
let seen = null;
/** Null until they have come. */
let batches = null;
let days = [];
let events = [];
let lastEvent = 0;
let askedToRead = false;
/** Where the pages begin that were looked at: `null` is the first. */
let cursors = [null];
let nextCursor = null;
let openJob = null;

// What a job is, in a word and a tone

const OVER = ["done", "failed", "held", "cancelled"];
const TONES = { claimed: "busy", planned: "busy", active: "busy", merging: "busy", held: "warn", failed: "bad", cancelled: "quiet", done: "good" };
const isStuck = (job) => (job.chunks?.stuck ?? 0) > 0;
const needsPerson = (job) => job.state === "held" || job.state === "failed" || isStuck(job);

function stateOf(job) {
  if (isStuck(job)) return ["stuck", "warn"];
  if (job.on_hold && !OVER.includes(job.state)) return ["on hold", "warn"];
  if (job.state === "failed") return ["refused", "bad"];
  if (job.state === "done" && job.lines.failed > 0) return job.lines.answered > 0 ? ["partial", "warn"] : ["failed", "bad"];
  return [job.state, TONES[job.state] ?? "quiet"];
}

function waitingWords(job) {
  if (job.waiting_s === null || job.waiting_s === undefined) return "";
  const typical = job.typical_s ? `, typical ${span(job.typical_s)}` : "";
  return ` ${span(job.waiting_s)}${typical}`;
}

const phaseOf = (job) => `${job.phase}${waitingWords(job)}`;

// What may be asked of it

const VERBS = {
  release: { label: "Release" },
  hold: { label: "Hold" },
  retry: { label: "Retry" },
  cancel: {
    label: "Cancel",
    title: "Cancel this job?",
    text: (job) => `${job.file}: what is answered already comes into the outbox, the rest fails.`,
    yes: "Cancel the job",
  },
  delete: {
    label: "Delete",
    title: "Forget this job?",
    text: (job) => `${job.file}: its record goes, its files stay where they are.`,
    yes: "Forget it",
  },
};

function verbsOf(job) {
  if (job.state === "held") return ["release", "delete"];
  if (OVER.includes(job.state)) return job.state === "failed" || job.lines.failed > 0 ? ["retry", "delete"] : ["delete"];
  if (isStuck(job)) return ["release", "cancel"];
  // Somebody has cancelled it already.
  if (job.phase.startsWith("stopping")) return [];
  const first = job.on_hold ? "release" : "hold";
  return job.reason && !job.on_hold ? [first, "retry", "cancel"] : [first, "cancel"];
}

/** In a list a job that went well has no buttons, and others have two at most. */
const listedVerbs = (job) => verbsOf(job).filter((verb) => verb !== "delete" || job.state === "held").slice(-2);

function fillActions(place, job, verbs) {
  const wanted = verbs.join(" ");
  place.job = job;
  if (place.dataset.verbs === wanted) return;
  place.dataset.verbs = wanted;
  const buttons = verbs.map((verb) => el("button", { type: "button", "data-verb": verb, onclick: () => ask(place.job, verb) }, VERBS[verb].label, el("span", { class: "unseen" }, ` ${job.file}`)));
  place.replaceChildren(...buttons);
}

async function ask(job, verb) {
  const { title, text, yes } = VERBS[verb];
  if (title && !(await confirmed(title, text(job), yes))) return;
  await change(`v1/jobs/${job.id}:${verb}`);
  if (verb === "delete" && openJob === job.id) $("job").close();
}

/** Asks for a change, with the token if it takes one, and says what came of it. */
async function change(path) {
  for (let again = false; ; again = true) {
    try {
      const answer = await post(path);
      tell(answer.job ? `${answer.job.file}: ${answer.said}` : answer.said);
      break;
    } catch (error) {
      if (error instanceof Refused && error.code === 401) {
        if (await askToken(again || token.get() !== null)) continue;
        return;
      }
      tell(error instanceof Gone ? `The daemon does not answer: ${error.message}. Nothing was changed that we know of.` : error.message, "bad");
      break;
    }
  }
  look();
}

function confirmed(title, text, yes) {
  say($("confirm-title"), title);
  say($("confirm-text"), text);
  say($("confirm-yes"), yes);
  return asked($("confirm"));
}

/** Opens a dialog; answers with whether it was ended with yes. */
function asked(dialog) {
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

async function askToken(wasWrong) {
  token.forget();
  const first = "Only who has it may change anything.";
  say($("token-title"), wasWrong ? "That was not the token" : "Token of this daemon");
  $("token-text").firstChild.textContent = `${wasWrong ? "The daemon made another one, or a sign is missing." : first} It stands in the file `;
  $("token-input").value = "";
  const yes = await asked($("token"));
  const value = $("token-input").value.trim();
  $("token-input").value = "";
  if (!yes || value === "") return false;
  token.set(value);
  $("forget-token").hidden = false;
  return true;
}

function tell(text, tone = null) {
  const line = el("p", { "data-tone": tone }, text);
  // A dialog lies above everything else, so it has to hold what is said meanwhile.
  const dialog = document.querySelector("dialog[open]");
  (dialog ?? document.body).append($("said"));
  $("said").append(line);
  setTimeout(() => line.remove(), SAID_MS);
}

// The head

function fillHead() {
  const { health, counts, queues = [] } = status;
  const stopped = health.draining ? "draining" : health.paused_by_operator ? "paused" : null;
  const [word, tone] = health.trouble ? ["trouble", "bad"] : stopped ? [stopped, "warn"] : health.paused ? ["paused", "warn"] : ["ok", "good"];
  say($("health"), word);
  mark($("health"), "data-tone", tone);
  const age = (millis(health.now) - millis(health.started)) / 1000;
  say($("daemon"), `Version ${health.daemon}, process ${health.pid}, up for ${span(age)}. Watches ${health.inbox} by ${health.watching}.`);
  const why = [health.trouble, health.paused !== health.trouble ? health.paused : null].filter(Boolean);
  if (health.draining) why.push("Draining: nothing new is taken; the daemon ends when what was taken is finished.");
  if (health.paused_by_operator && !health.paused) why.push("Paused: nothing new is taken or sent; what is at Google goes on.");
  banner(why.join(" · "), health.trouble ? "bad" : "warn");
  $("daemon-actions").hidden = false;
  $("pause-all").hidden = Boolean(health.paused_by_operator);
  $("resume-all").hidden = !(health.paused_by_operator || health.draining);
  $("drain").hidden = Boolean(health.draining);
  $("forget-token").hidden = token.get() === null;
  fillCounts(counts);
  fillNeeds(status.jobs, counts);
  fillQueues(queues);
}

function banner(text, tone) {
  say($("banner"), text);
  mark($("banner"), "data-tone", tone);
  $("banner").hidden = text === "";
}

const COUNTED = [["claimed", "Taken"], ["planned", "Planned"], ["active", "Active"], ["merging", "Merging"], ["held", "Held"], ["failed", "Refused"], ["cancelled", "Cancelled"], ["done", "Done"]];

function fillCounts(counts) {
  fillRows($("counts"), COUNTED, ([state]) => state, () => el("div", {}, el("dt"), el("dd")), (node, [state, label]) => {
    const count = counts[state] ?? 0;
    say(node.firstChild, label);
    say(node.lastChild, number(count));
    mark(node, "data-tone", count === 0 ? "zero" : state === "held" ? "warn" : state === "failed" ? "bad" : null);
  });
}

function fillNeeds(jobs, counts) {
  const mine = jobs.filter(needsPerson);
  const all = Math.max(mine.length, (counts.held ?? 0) + (counts.failed ?? 0) + mine.filter(isStuck).length);
  const shown = mine.slice(0, NEEDS_SHOWN);
  $("needs").hidden = mine.length === 0;
  say($("needs-count"), number(all));
  fillRows($("needs-list"), shown, (job) => job.id, makeJob, (node, job) => fillJob(node, job, verbsOf(job)));
  $("needs-more").hidden = all <= shown.length;
  say($("needs-more"), `And ${number(all - shown.length)} more: choose the state “Held” or “Refused” below.`);
  document.title = mine.length > 0 ? `(${number(all)}) gemini-batchd` : "gemini-batchd";
}

function fillQueues(queues) {
  const place = $("queue-rows");
  // One queue, and nothing to steer there: that is the daemon itself.
  $("queues").hidden = queues.length < 2 && !queues.some((queue) => queue.paused);
  const make = () => {
    const button = el("button", { type: "button", onclick: () => change(`v1/queues/${encodeURIComponent(row.queue.name)}:${row.queue.paused ? "resume" : "pause"}`) });
    const row = el("tr", {}, el("th", { scope: "row" }, el("span"), el("span", { class: "badge", "data-tone": "warn", hidden: true }, "paused")), el("td", { class: "n" }), el("td", { class: "n" }), el("td", { class: "n" }), el("td", { class: "b" }, button));
    return row;
  };
  fillRows(place, queues, (queue) => queue.name, make, (row, queue) => {
    row.queue = queue;
    const [name, waiting, active, held, last] = row.children;
    say(name.firstChild, queue.name);
    name.lastChild.hidden = !queue.paused;
    [[waiting, queue.waiting], [active, queue.active], [held, queue.held]].forEach(([cell, count]) => say(cell, number(count)));
    say(last.firstChild, queue.paused ? "Resume" : "Pause");
    mark(last.firstChild, "aria-label", `${queue.paused ? "Resume" : "Pause"} ${queue.name}`);
  });
  const known = queues.map((queue) => queue.name).join("\n");
  const select = $("filter-queue");
  if (select.known !== known) {
    const chosen = select.value;
    select.known = known;
    select.replaceChildren(el("option", { value: "" }, "All queues"), ...queues.map((queue) => el("option", { value: queue.name }, queue.name)));
    select.value = queues.some((queue) => queue.name === chosen) ? chosen : "";
  }
}

// Jobs

/** Brings the children of a list up to date: those that stay are kept where they are. */
function fillRows(list, items, key, make, fill) {
  const old = new Map([...list.children].map((node) => [node.dataset.key, node]));
  items.forEach((item, at) => {
    const name = String(key(item));
    let node = old.get(name);
    old.delete(name);
    if (!node) {
      node = make(item);
      node.dataset.key = name;
    }
    fill(node, item);
    const there = list.children[at];
    if (there !== node) list.insertBefore(node, there ?? null);
    // What went is removed at once, so that those after it need not be moved.
    for (const [gone, left] of old) {
      if (!items.some((one) => String(key(one)) === gone)) {
        left.remove();
        old.delete(gone);
      }
    }
  });
  for (const left of old.values()) left.remove();
}

function makeJob() {
  const name = el("button", { type: "button", class: "name", onclick: () => show(row.job.id) });
  const row = el("li", { class: "job" }, el("div", { class: "job-name" }, name, el("small")), el("div", { class: "job-state" }, el("span", { class: "badge" })), el("div", { class: "job-bar" }), el("div", { class: "job-under" }), el("div", { class: "actions" }));
  return row;
}

function fillJob(row, job, verbs) {
  row.job = job;
  const [name, state, bar, under, actions] = row.children;
  say(name.firstChild, job.file);
  mark(name.firstChild, "title", job.file);
  say(name.lastChild, `${job.id} · ${job.queue} · ${job.model}`);
  const [word, tone] = stateOf(job);
  say(state.firstChild, word);
  mark(state.firstChild, "data-tone", tone);
  fillBar(bar, job, OVER.includes(job.state) ? "" : phaseOf(job));
  say(under, job.reason ?? failuresOf(job));
  fillActions(actions, job, verbs);
}

function failuresOf(job) {
  const all = Object.entries(job.failures ?? {}).filter(([, count]) => count > 0);
  return all.length > 0 ? `Failed: ${all.map(([why, count]) => `${number(count)} ${why}`).join(", ")}` : "";
}

/** How far the lines of a job are, as a bar and in words, with what it does if that is given. */
function fillBar(place, job, phase = "") {
  const { total, answered, failed } = job.lines;
  if (!place.firstChild) {
    const bar = svg("svg", { class: "bar", "aria-hidden": "true", preserveAspectRatio: "none", viewBox: "0 0 100 6" }, svg("rect", { class: "ok", x: 0, y: 0 }), svg("rect", { class: "no", y: 0 }));
    place.append(bar, el("span", { class: "bar-text" }));
  }
  const [bar, text] = place.children;
  const part = (count) => (total > 0 ? (100 * count) / total : 0);
  mark(bar.children[0], "width", part(answered));
  mark(bar.children[1], "x", part(answered));
  mark(bar.children[1], "width", part(failed));
  const words = total === 0 ? "" : `${number(answered)} of ${plural(total, "line")}`;
  const bad = failed > 0 ? `${number(failed)} failed` : "";
  const doing = phase === "" ? "" : `${words === "" ? "" : " · "}${phase}`;
  const comma = bad === "" ? "" : ", ";
  if (text.textContent !== words + comma + bad + doing) text.replaceChildren(words, comma, bad === "" ? "" : el("b", {}, bad), doing);
  bar.classList.toggle("none-yet", total === 0);
}

function jobsPath() {
  const query = new URLSearchParams({ limit: PAGE, order: $("filter-order").value });
  for (const [name, id] of [["state", "filter-state"], ["queue", "filter-queue"], ["file", "filter-text"]]) {
    const value = $(id).value.trim();
    if (value !== "") query.set(name, value);
  }
  const after = cursors.at(-1);
  if (after !== null) query.set("after", after);
  return `v1/jobs?${query}`;
}

async function fillJobs() {
  const path = jobsPath();
  const page = await get(path);
  // The filter was changed meanwhile: another answer is on its way.
  if (path !== jobsPath()) return;
  const { jobs, total, next } = page;
  if (jobs.length === 0 && cursors.length > 1) {
    cursors = [null];
    look();
    return;
  }
  nextCursor = next;
  fillRows($("jobs"), jobs, (job) => job.id, makeJob, (node, job) => fillJob(node, job, listedVerbs(job)));
  const first = (cursors.length - 1) * PAGE;
  say($("jobs-count"), number(total));
  say($("page-where"), total === 0 ? "" : `${number(first + 1)} to ${number(first + jobs.length)} of ${number(total)}`);
  $("page-back").disabled = cursors.length === 1;
  $("page-on").disabled = next === null;
  document.querySelector(".pages").hidden = total <= PAGE;
  const filtered = ["filter-state", "filter-queue", "filter-text"].some((id) => $(id).value.trim() !== "");
  $("jobs-none").hidden = jobs.length > 0;
  say($("jobs-none"), filtered ? "No job is like that." : "No jobs yet. Drop a file into the inbox.");
}

function turn(to) {
  cursors = to;
  $("page-back").disabled = true;
  $("page-on").disabled = true;
  look();
}

// One job

function show(id) {
  openJob = id;
  for (const part of ["job-body", "job-trouble"]) $(part).hidden = true;
  say($("job-title"), "…");
  if (!$("job").open) $("job").showModal();
  $("job-title").focus();
  history.replaceState(null, "", `#job=${id}`);
  fillOpen();
}

async function fillOpen() {
  const id = openJob;
  try {
    const [job, told] = await Promise.all([get(`v1/jobs/${id}`), get(`v1/jobs/${id}/events?limit=200`)]);
    if (id !== openJob) return;
    fillDetails(job);
    fillEvents($("job-events"), told.events.toReversed());
    $("job-trouble").hidden = true;
    $("job-body").hidden = false;
  } catch (error) {
    if (id !== openJob || (error instanceof Gone && !$("job-body").hidden)) return;
    say($("job-title"), "Job");
    say($("job-trouble"), error instanceof Gone ? `The daemon does not answer: ${error.message}.` : error.message);
    $("job-trouble").hidden = false;
  }
}

function fillDetails(job) {
  say($("job-title"), job.file);
  const [word, tone] = stateOf(job);
  say($("job-badge"), word);
  mark($("job-badge"), "data-tone", tone);
  say($("job-phase"), phaseOf(job));
  fillBar($("job-bar"), job);
  say($("job-reason"), job.reason ?? "");
  $("job-reason").hidden = !job.reason;
  fillActions($("job-actions"), job, verbsOf(job));
  const { times, tokens } = job;
  const chunks = Object.entries(job.chunks ?? {}).map(([state, count]) => `${number(count)} ${state}`).join(", ");
  const kinds = ["prompt", "output", "thinking", "cached"].filter((kind) => tokens?.[kind] > 0);
  const spent = tokens ? [number(tokens.total), kinds.map((kind) => `${number(tokens[kind])} ${kind}`).join(", ")].filter(Boolean).join(": ") : null;
  const facts = [
    ["Id", job.id],
    ["Queue", `${job.queue}, model ${job.model}`],
    ["Size", job.bytes ? size(job.bytes) : null],
    ["Failed lines", failuresOf(job).replace(/^Failed: /, "") || null],
    ["Tokens", spent],
    ["Cost", job.cost && costOf(job.cost)],
    ["Answered from the cache", job.reused > 0 ? number(job.reused) : null],
    ["Chunks", chunks || null],
    ["Outbox", job.output ? `${job.output}.results.jsonl` : null],
    ["Sent from", job.opens && timed(job.opens)],
    ["Wanted by", job.deadline && el("span", {}, timed(job.deadline.by), `: ${deadlineOf(job.deadline)}`)],
    ["Taken", times.claimed && timed(times.claimed)],
    ["Read", times.planned && timed(times.planned)],
    ["First batch", times.first_create && timed(times.first_create)],
    ["Last results", times.last_result && timed(times.last_result)],
    ["Delivered", times.delivered && timed(times.delivered)],
  ];
  $("job-facts").replaceChildren(...facts.filter(([, value]) => value).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  say($("job-batches-count"), number(job.batches_total));
  $("job-batches").replaceChildren(job.batches.length > 0 ? batchTable(job.batches) : el("p", { class: "none" }, "None yet."));
}

function costOf({ currency, spent, set_aside, estimated, most, budget }) {
  const limit = budget ? `, of ${budget} at most` : "";
  const aside = Number(set_aside) > 0 ? `, and ${set_aside} set aside` : "";
  return `${spent} ${currency}${aside}; estimated ${estimated} to ${most}${limit}`;
}

/** How it stands with the moment for which results are wanted. */
function deadlineOf({ state, expected, late_s, rescued, uncertain, not_rescued }) {
  const late = late_s ? `late by about ${span(late_s)}` : null;
  const open = late ?? (expected ? `expected ${moment(expected)}, in time` : state === "danger" ? "in danger" : "nothing is known of the end yet");
  const how = { met: "kept", late: late ?? "late", missed: "missed", rescuing: "lines are asked one by one" }[state] ?? open;
  const asked = rescued > 0 ? `${number(rescued)} lines asked one by one` : null;
  const doubt = uncertain > 0 ? `${number(uncertain)} calls without an answer` : null;
  return [how, asked, doubt, not_rescued].filter(Boolean).join("; ");
}

function batchTable(list) {
  const head = ["Batch", "State", "Lines", "Answered", "Created", "Ended"];
  const numeric = (name) => (["Lines", "Answered"].includes(name) ? "n" : null);
  const rows = list.toReversed().map((batch) => {
    const place = `chunk ${batch.chunk}, attempt ${batch.attempt}`;
    const time = (text) => el("td", {}, text ? timed(text) : "–");
    return el("tr", {}, el("th", { scope: "row" }, el("code", {}, batch.name), el("div", { class: "note" }, place)), el("td", {}, batch.state), el("td", { class: "n" }, number(batch.lines)), el("td", { class: "n" }, batch.answered === null || batch.answered === undefined ? "–" : number(batch.answered)), time(batch.created), time(batch.ended));
  });
  return el("table", {}, el("thead", {}, el("tr", {}, ...head.map((name) => el("th", { scope: "col", class: numeric(name) }, name)))), el("tbody", {}, ...rows));
}

// Events

const EVENT_TONES = { held: "warn", failed: "bad", cancelled: "warn", uncertain: "warn", trouble: "bad", paused: "warn", draining: "warn", done: "good", delivered: "good", trouble_over: "good" };

function fillEvents(list, told) {
  const make = (event) => {
    const name = event.job ? el("button", { type: "button", class: "name", onclick: () => show(event.job) }, event.file ?? event.job) : null;
    const text = el("span", { class: "text" }, ...(name && list.id === "events" ? [name, ": "] : []), event.text);
    return el("li", { "data-tone": EVENT_TONES[event.kind] }, timed(event.time), el("span", { class: "kind" }, event.kind.replaceAll("_", " ")), text);
  };
  fillRows(list, told, (event) => `${event.seq} ${event.time}`, make, () => {});
}

function takeEvent(event) {
  if (event.seq <= lastEvent) return;
  lastEvent = event.seq;
  events.unshift(event);
  events.length = Math.min(events.length, EVENTS_SHOWN);
  drawEvents();
  look();
  if (/^batch_|^collected$|^delivered$/.test(event.kind)) lookAtCharts();
}

const drawEvents = spaced(async () => {
  fillEvents($("events"), events);
  $("events-none").hidden = events.length > 0;
}, 250);

async function followEvents() {
  for (;;) {
    try {
      // Asked anew each time: a daemon that lost its log counts from one again.
      const told = await get(`v1/events?limit=${EVENTS_SHOWN}`);
      events = told.events.toReversed();
      lastEvent = told.next;
      drawEvents();
      await follow(lastEvent, takeEvent);
    } catch {
      // The looks tell when the daemon is gone; here it is only tried again.
    }
    await sleep(AGAIN_MS);
  }
}

// Charts

function drawCharts() {
  if (batches === null) return;
  const now = status ? millis(status.health.now) : Date.now();
  const hours = Number($("timeline-span").value);
  timeline($("timeline"), batches, now, hours, show);
  daily($("days-lines"), days, [["k-good", (day) => day.answered], ["k-bad", (day) => day.failed]], "line");
  daily($("days-tokens"), days, [["k-remote", (day) => day.tokens?.prompt ?? 0], ["k-collect", (day) => (day.tokens?.output ?? 0) + (day.tokens?.thinking ?? 0)]], "token");
}

const lookAtCharts = spaced(async () => {
  try {
    const [one, other] = await Promise.all([get("v1/batches?limit=500&since=24h"), get("v1/days?days=30")]);
    batches = one.batches;
    days = other.days;
  } catch {
    return;
  }
  drawCharts();
  $("timeline-table").replaceChildren(timelineTable(batches));
  $("days-table").replaceChildren(daysTable(days));
}, CHARTS_BETWEEN_MS);

// Looking

/** Runs `work` one at a time, at most once in `between` ms; asked meanwhile, it runs once more. */
function spaced(work, between) {
  let running = false;
  let again = false;
  return async function run() {
    if (running) {
      again = true;
      return;
    }
    running = true;
    do {
      again = false;
      try {
        await work();
      } catch (error) {
        console.error(error);
      }
      await sleep(between);
    } while (again);
    running = false;
  };
}

const look = spaced(async () => {
  try {
    status = await get("v1/status");
    const wasGone = document.body.dataset.gone === "true";
    document.body.dataset.gone = "false";
    seen = new Date();
    fillHead();
    await fillJobs();
    if (openJob !== null) await fillOpen();
    document.body.dataset.ready = "true";
    if (wasGone) lookAtCharts();
  } catch (error) {
    await trouble(error);
  }
}, BETWEEN_MS);

async function trouble(error) {
  if (error instanceof Refused && error.code === 401 && !askedToRead) {
    askedToRead = true;
    if (await askToken(token.get() !== null)) {
      askedToRead = false;
      look();
      lookAtCharts();
      return;
    }
  }
  if (error instanceof Gone) {
    document.body.dataset.gone = "true";
    say($("health"), "gone");
    mark($("health"), "data-tone", "bad");
    document.title = "gone: gemini-batchd";
    const last = seen ? ` What is shown here is of ${moment(seen.toISOString())}.` : "";
    banner(`The daemon does not answer: ${error.message}.${last} This page goes on by itself as soon as the daemon is back.`, "bad");
  } else if (error instanceof Refused && error.code === 404 && cursors.length > 1) {
    cursors = [null];
    look();
  } else if (error instanceof Refused) {
    banner(error.message, "bad");
  } else {
    throw error;
  }
}

async function keepLooking() {
  for (;;) {
    const gone = document.body.dataset.gone === "true";
    await sleep(gone ? AGAIN_MS : LOOK_MS);
    // Nobody looks at a tab in the background; it catches up when it comes to the front.
    if (!document.hidden || gone) look();
  }
}

// Beginning

$("pause-all").addEventListener("click", () => change("v1/daemon:pause"));
$("resume-all").addEventListener("click", () => change("v1/daemon:resume"));
$("drain").addEventListener("click", async () => {
  const text = "Nothing new is taken from the inbox. What was taken is finished; then the daemon ends, and this page with it.";
  if (await confirmed("Let the daemon run dry?", text, "Drain")) change("v1/daemon:drain");
});
$("forget-token").addEventListener("click", () => {
  token.forget();
  $("forget-token").hidden = true;
  tell("The token is forgotten here.");
});
$("page-on").addEventListener("click", () => turn([...cursors, nextCursor]));
$("page-back").addEventListener("click", () => turn(cursors.slice(0, -1)));
$("token-no").addEventListener("click", () => $("token").close("no"));
$("job-close").addEventListener("click", () => $("job").close());
$("job").addEventListener("click", (event) => {
  // Beside the drawer.
  if (event.target === $("job")) {
    const box = $("job").getBoundingClientRect();
    if (event.clientX < box.left) $("job").close();
  }
});
$("job").addEventListener("close", () => {
  openJob = null;
  document.body.append($("said"));
  history.replaceState(null, "", location.pathname + location.search);
});
$("filter").addEventListener("submit", (event) => event.preventDefault());
for (const id of ["filter-state", "filter-queue", "filter-order"]) $(id).addEventListener("change", () => turn([null]));
let typed = 0;
$("filter-text").addEventListener("input", () => {
  clearTimeout(typed);
  typed = setTimeout(() => turn([null]), 200);
});
$("timeline-span").addEventListener("change", drawCharts);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) {
    look();
    lookAtCharts();
  }
});
const redraw = spaced(async () => {
  // While a window is pulled about, or drawn for a picture, it has many widths.
  await sleep(REDRAW_MS);
  drawCharts();
}, 0);
new ResizeObserver(redraw).observe($("timeline"));

look();
lookAtCharts();
followEvents();
keepLooking();
setInterval(() => document.hidden || lookAtCharts(), CHARTS_MS);
const linked = /^#job=([0-9A-Za-z]{4,26})$/.exec(location.hash);
if (linked) show(linked[1]);
