// Speaks to the daemon that served this page, and puts its figures into words.
//
// Paths are relative, so that the page also works behind a proxy's sub-folder. The token is kept
// in sessionStorage: it is gone with the tab, and never part of an address.

const TOKEN = "gemini-batchd.token";
const TIMEOUT_MS = 20_000;

/** The daemon said no; `message` tells why and what to do. */
export class Refused extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** Nobody answered. */
export class Gone extends Error {}

export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: (value) => sessionStorage.setItem(TOKEN, value),
  forget: () => sessionStorage.removeItem(TOKEN),
};

/** Reads `path`, such as `v1/status`. */
export const get = (path) => call("GET", path);

/** Asks for a change at `path`, such as `v1/jobs/01JD…:cancel`. */
export const post = (path) => call("POST", path);

function headers(more) {
  const value = token.get();
  return value ? { ...more, Authorization: `Bearer ${value}` } : more;
}

async function call(method, path) {
  let response;
  let body;
  try {
    response = await fetch(path, {
      method,
      headers: headers({ Accept: "application/json" }),
      cache: "no-store",
      credentials: "omit",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    body = await response.text();
  } catch (error) {
    throw new Gone(error.name === "TimeoutError" ? "it does not answer" : "nobody answers");
  }
  let value = null;
  try {
    value = JSON.parse(body);
  } catch {
    // What is no JSON did not come from the daemon, but from something in between.
    throw new Gone(`something else answers (HTTP ${response.status})`);
  }
  if (response.ok) return value;
  throw new Refused(response.status, value?.error?.message ?? `HTTP ${response.status}`);
}

/**
 * Gives every event after the number `after` to `take`, until the connection ends or `signal`
 * says so. A fetch, not an EventSource, because that can not send the token.
 */
export async function follow(after, take, signal) {
  const more = { Accept: "text/event-stream" };
  if (after !== null) more["Last-Event-ID"] = String(after);
  const response = await fetch("v1/events", {
    headers: headers(more),
    cache: "no-store",
    credentials: "omit",
    signal,
  });
  if (!response.ok || !response.body) throw new Refused(response.status, "no events");
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    for (let at = rest.indexOf("\n\n"); at >= 0; at = rest.indexOf("\n\n")) {
      const lines = rest.slice(0, at).split("\n");
      rest = rest.slice(at + 2);
      // This page was too slow for it: whoever asks again is told what was missed.
      if (lines.includes("event: dropped")) return;
      const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5));
      if (data.length > 0) take(JSON.parse(data.join("\n")));
    }
  }
}

// Words

const whole = new Intl.NumberFormat("en-GB");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dated = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

export const number = (value) => whole.format(value);
export const brief = (value) => short.format(value);
export const plural = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

/** Seconds as people say them: `35 s`, `2 h 10 min`, `3 d 4 h`. */
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return joined(Math.floor(s / 3600), "h", Math.floor((s % 3600) / 60), "min");
  return joined(Math.floor(s / 86_400), "d", Math.floor((s % 86_400) / 3600), "h");
}

const joined = (large, unit, small, part) => (small > 0 ? `${large} ${unit} ${small} ${part}` : `${large} ${unit}`);

/** Bytes as people say them. */
export function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let at = 0;
  let value = bytes;
  while (value >= 1000 && at < units.length - 1) {
    value /= 1000;
    at += 1;
  }
  return `${at === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[at]}`;
}

/** A moment: the time alone if it is of today, else with its day. */
export function moment(text) {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return text;
  return at.toDateString() === new Date().toDateString() ? clock.format(at) : dated.format(at);
}

/** Milliseconds since 1970 of a moment, or null. */
export function millis(text) {
  const at = text ? Date.parse(text) : NaN;
  return Number.isNaN(at) ? null : at;
}

// Elements

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; text goes in as text only. */
export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") node.addEventListener("click", value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** A moment as an element that tells the exact time when asked. */
export function timed(text) {
  return el("time", { datetime: text, title: text }, moment(text));
}

/** Sets a text only if it differs: what is selected or read aloud stays so. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Sets or removes an attribute only if it differs. */
export function mark(node, name, value) {
  if (value === null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** A table of texts; cells that are numbers stand to the right. */
export function table(caption, names, rows) {
  const cell = (value, tag) =>
    el(tag, { class: typeof value === "number" ? "n" : null }, typeof value === "number" ? number(value) : value instanceof Node ? value : String(value ?? "–"));
  const head = names.map(([name, numeric]) => el("th", { scope: "col", class: numeric ? "n" : null }, name));
  const body = rows.map(([first, ...others]) => {
    const th = cell(first, "th");
    th.setAttribute("scope", "row");
    return el("tr", {}, th, ...others.map((value) => cell(value, "td")));
  });
  return el("table", {}, el("caption", { class: "unseen" }, caption), el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
}
