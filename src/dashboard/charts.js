// The two charts: batches along the time, and sums for each day. Drawn as SVG at the width there
// is, so that letters keep their size on a phone; each has a table with the same figures.

import { brief, el, millis, moment, number, plural, span, svg, table } from "./client.js";

const LEFT = 12;
const RIGHT = 12;
const LANE = 12;
const LANE_THIN = 6;
const LANES_ROOMY = 24;
const LANES_MAX = 80;
const HOUR = 3_600_000;
const hour = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });

/** Draws the batches of the last `hours`; `open` is called with the job of one that is clicked. */
export function timeline(place, list, now, hours, open) {
  const width = Math.max(280, place.clientWidth);
  const from = now - hours * HOUR;
  const bars = list.map((batch) => ({ batch, ...stretch(batch, now) })).filter((bar) => bar.end >= from);
  if (bars.length === 0) {
    const words = hours === 1 ? "No batches in the last hour." : `No batches in the last ${hours} hours.`;
    place.replaceChildren(svg("svg", { width, height: 76 }, svg("text", { x: width / 2, y: 43, "text-anchor": "middle", class: "quiet" }, words)));
    return;
  }
  // Clocks differ: what lies ahead of this one is drawn as now.
  const x = (at) => LEFT + ((Math.min(Math.max(at, from), now) - from) / (now - from)) * (width - LEFT - RIGHT);
  const { lanes, left } = packed(bars, x);
  const lane = lanes > LANES_ROOMY ? LANE_THIN : LANE;
  const gap = lane === LANE ? 4 : 2;
  const bottom = 10 + lanes * (lane + gap);
  const height = bottom + 26;
  const drawn = svg("svg", { width, height, role: "img", "aria-label": told(bars, hours) });
  for (const tick of ticks(from, now, width)) {
    drawn.append(
      svg("line", { x1: x(tick.at), x2: x(tick.at), y1: 0, y2: bottom, class: "rule" }),
      svg("text", { x: x(tick.at), y: height - 8, "text-anchor": tick.anchor }, tick.text),
    );
  }
  drawn.append(svg("line", { x1: LEFT, x2: width - RIGHT, y1: bottom, y2: bottom, class: "base" }));
  for (const bar of bars) {
    if (bar.lane === null) continue;
    const y = 8 + bar.lane * (lane + gap);
    const group = svg("g", { "data-job": bar.batch.job }, svg("title", {}, words(bar.batch)));
    for (const [start, end, kind] of bar.parts) {
      if (end < from) continue;
      const wide = Math.max(x(end) - x(start), kind === "k-remote" || kind === "k-bad" ? 2 : 0);
      if (wide > 0) group.append(svg("rect", { x: Math.min(x(start), width - RIGHT - wide), y, width: wide, height: lane, rx: Math.min(2, wide / 2), class: kind }));
    }
    group.addEventListener("click", () => open(bar.batch.job));
    drawn.append(group);
  }
  place.replaceChildren(drawn);
  if (left > 0) place.append(el("p", { class: "none" }, `${plural(left, "more batch", "more batches")} of this time not drawn; the table has them.`));
}

/** The same batches as a table, newest first. */
export function timelineTable(list) {
  const at = (text) => (text ? moment(text) : "–");
  const rows = list.map((batch) => [batch.file, batch.chunk, batch.state, batch.lines, at(batch.queued), at(batch.created), at(batch.ended), at(batch.collected)]);
  const names = [["File"], ["Chunk", true], ["State"], ["Lines", true], ["Ready"], ["Created"], ["Ended"], ["Fetched"]];
  return table("Batches", names, rows);
}

/** Where a batch begins and ends, and its parts; what is still open reaches to now. */
function stretch(batch, now) {
  const created = millis(batch.created);
  const queued = millis(batch.queued) ?? created ?? now;
  const ended = millis(batch.ended);
  const collected = millis(batch.collected);
  const parts = [[queued, created ?? now, "k-queued"]];
  const bad = ["FAILED", "EXPIRED", "CANCELLED"].includes(batch.state);
  // What was collected has ended, even if nobody noted when.
  const left = ended ?? collected ?? now;
  if (created !== null) parts.push([created, left, bad ? "k-bad" : "k-remote"]);
  if (ended !== null && !bad) parts.push([ended, collected ?? now, "k-collect"]);
  return { parts, start: queued, end: Math.max(...parts.map((part) => part[1])), lane: null };
}

/** Gives each bar the first lane that is free; answers with how many there are, and how many bars found none. */
function packed(bars, x) {
  const free = [];
  let left = 0;
  bars.sort((one, other) => one.start - other.start);
  for (const bar of bars) {
    let lane = free.findIndex((end) => end + 2 <= x(bar.start));
    if (lane < 0) lane = free.length;
    if (lane >= LANES_MAX) {
      left += 1;
      continue;
    }
    free[lane] = Math.max(x(bar.end), x(bar.start) + 2);
    bar.lane = lane;
  }
  return { lanes: Math.max(3, free.length), left };
}

/** Round moments to write below the axis, as many as there is room for. */
function ticks(from, now, width) {
  const minutes = [10, 30, 60, 120, 180, 240, 360];
  const room = Math.max(2, Math.floor(width / 90));
  const step = (minutes.find((m) => (now - from) / (m * 60_000) <= room) ?? 720) * 60_000;
  const zone = new Date(now).getTimezoneOffset() * 60_000;
  const found = [];
  for (let at = Math.ceil((from - zone) / step) * step + zone; at <= now; at += step) {
    const near = (at - from) / (now - from);
    found.push({ at, text: hour.format(at), anchor: near < 0.04 ? "start" : near > 0.96 ? "end" : "middle" });
  }
  return found;
}

function told(bars, hours) {
  const open = bars.filter(({ batch }) => batch.created && !batch.ended && !batch.collected).length;
  const time = hours === 1 ? "the last hour" : `the last ${hours} hours`;
  return `${plural(bars.length, "batch", "batches")} in ${time}, ${number(open)} of them at Google now. The table below has each.`;
}

function words(batch) {
  const parts = [`${batch.file}, chunk ${batch.chunk}, attempt ${batch.attempt}`, `${batch.state}, ${plural(batch.lines, "line")}`];
  const [created, ended] = [millis(batch.created), millis(batch.ended)];
  if (created !== null) parts.push(`created ${moment(batch.created)}`);
  if (created !== null && ended !== null) parts.push(`ended ${moment(batch.ended)}, after ${span((ended - created) / 1000)}`);
  return parts.join("\n");
}

/** Bars for each day: `series` is a list of `[class, day => number]`, stacked in this order. */
export function daily(place, days, series, what) {
  const width = Math.max(240, place.clientWidth);
  const height = 148;
  const [top, bottom] = [24, height - 24];
  const sums = days.map((day) => series.reduce((sum, [, of]) => sum + of(day), 0));
  const most = Math.max(...sums, 0);
  const total = sums.reduce((sum, one) => sum + one, 0);
  const label = `${plural(total, what)} in ${days.length} days, at most ${number(most)} a day. The table below has each day.`;
  const drawn = svg("svg", { width, height, role: "img", "aria-label": label });
  const step = (width - LEFT - RIGHT) / Math.max(1, days.length);
  const tall = (value) => (most > 0 ? (value / most) * (bottom - top) : 0);
  drawn.append(
    svg("line", { x1: LEFT, x2: width - RIGHT, y1: top - 0.5, y2: top - 0.5, class: "rule" }),
    svg("text", { x: LEFT, y: top - 7 }, most > 0 ? brief(most) : `No ${what}s yet`),
    svg("line", { x1: LEFT, x2: width - RIGHT, y1: bottom + 0.5, y2: bottom + 0.5, class: "base" }),
  );
  days.forEach((day, at) => {
    const x = LEFT + at * step;
    const group = svg("g", {}, svg("title", {}, `${dayName(day.day)}: ${plural(sums[at], what)}`), svg("rect", { x, y: top, width: step, height: bottom - top, fill: "transparent" }));
    let y = bottom;
    for (const [kind, of] of series) {
      const high = tall(of(day));
      // A little is not nothing.
      const shown = high > 0 ? Math.max(high, 1) : 0;
      y -= shown;
      if (shown > 0) group.append(svg("rect", { x: x + step * 0.14, y, width: step * 0.72, height: shown, class: kind }));
    }
    drawn.append(group);
  });
  if (days.length > 0) {
    const at = (index) => LEFT + (index + 0.5) * step;
    const last = days.length - 1;
    drawn.append(
      svg("text", { x: LEFT, y: height - 7 }, dayName(days[0].day)),
      svg("text", { x: at(Math.floor(last / 2)), y: height - 7, "text-anchor": "middle" }, dayName(days[Math.floor(last / 2)].day)),
      svg("text", { x: width - RIGHT, y: height - 7, "text-anchor": "end" }, dayName(days[last].day)),
    );
  }
  place.replaceChildren(drawn);
}

/** The days as a table, the newest first. */
export function daysTable(days) {
  const names = [["Day (UTC)"], ["Files", true], ["Lines", true], ["Answered", true], ["Failed", true], ["Prompt tokens", true], ["Output", true], ["Thinking", true]];
  const rows = days.toReversed().map((day) => [day.day, day.jobs, day.lines, day.answered, day.failed, day.tokens?.prompt ?? 0, day.tokens?.output ?? 0, day.tokens?.thinking ?? 0]);
  return table("The last 30 days", names, rows);
}

const dayName = (day) => new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" }).format(new Date(`${day}T00:00:00Z`));
