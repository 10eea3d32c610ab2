// The page of a real daemon, from the first file to the daemon's end and return.
//
// Usage: node daemon.mjs CHROMIUM URL SPOOL FOLDER_FOR_PICTURES. What the test around it has to do
// is asked for on standard output, a line `do: …`; it answers with a line when it is done.

import assert from "node:assert/strict";
import fs from "node:fs/promises";
import path from "node:path";
import readline from "node:readline";
import { isSound, open, pictures, row, tabbed, until, withBrowser } from "./browser.mjs";

const [executablePath, url, spool, shots] = process.argv.slice(2);
const answers = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Has the test do something: `advance`, `stop` or `start`. */
async function ask(what) {
  process.stdout.write(`do: ${what}\n`);
  assert.equal((await answers.next()).value, "done");
}

async function drop(name, count, text) {
  const lines = Array.from({ length: count }, (_, n) => JSON.stringify({ key: `k${n}`, request: { contents: [{ parts: [{ text: `${text} ${n}` }] }] } }));
  const aside = path.join(spool, ".dropped");
  await fs.writeFile(aside, `${lines.join("\n")}\n`);
  await fs.rename(aside, path.join(spool, "inbox", name));
}

const stateIs = (page, file, state) =>
  until(page, ([file, state]) => [...document.querySelectorAll("#jobs > .job")].some((job) => job.querySelector(".name").textContent === file && job.querySelector(".badge").textContent === state), [file, state], `${file}: ${state}`);

await withBrowser(executablePath, async (browser) => {
  const page = await open(browser, url);
  assert.match(await page.locator("#jobs-none").innerText(), /No jobs yet/);

  // A file goes from the inbox to the outbox before one's eyes.
  await drop("first.jsonl", 20, "question");
  await until(page, () => document.querySelector("#jobs .bar-text")?.textContent.includes("waiting at Google"), null, "the first batch");
  assert.match(await row(page, "first.jsonl").locator(".bar-text").innerText(), /^0 of 20 lines/);
  await ask("advance");
  await stateIs(page, "first.jsonl", "done");
  assert.match(await row(page, "first.jsonl").locator(".bar-text").innerText(), /^20 of 20 lines/);
  const bar = await row(page, "first.jsonl").locator(".bar .ok").getAttribute("width");
  assert.equal(bar, "100");
  assert((await page.locator("#events li").count()) >= 4, "events are told");

  // The same again waits for a person, who lets it go: the token is asked for once.
  await drop("again.jsonl", 20, "question");
  await until(page, () => document.querySelector("#needs-list .name")?.textContent === "again.jsonl", null, "the held one");
  await pictures(page, shots, "daemon-held");
  const token = (await fs.readFile(path.join(spool, "state/control.token"), "utf8")).trim();
  await row(page, "again.jsonl", "#needs-list").getByRole("button", { name: "Release" }).click();
  await page.getByLabel("Token", { exact: true }).fill(token);
  await page.keyboard.press("Enter");
  await until(page, () => document.querySelector("#needs").hidden, null, "the release");
  await stateIs(page, "again.jsonl", "active");

  // One is stopped; that is asked back, but not the token.
  await drop("stopped.jsonl", 5, "never answered");
  await stateIs(page, "stopped.jsonl", "active");
  await row(page, "stopped.jsonl").getByRole("button", { name: "Cancel" }).click();
  await page.getByRole("button", { name: "Cancel the job" }).click();
  await until(page, () => document.querySelector("#said").textContent !== "", null, "what came of it");
  await ask("advance");
  await stateIs(page, "stopped.jsonl", "cancelled");
  await stateIs(page, "again.jsonl", "done");
  const { missed } = await tabbed(page);
  assert.deepEqual(missed, []);

  // All about one.
  await page.getByRole("button", { name: "first.jsonl", exact: true }).first().click();
  await until(page, () => !document.querySelector("#job-body").hidden && document.querySelector("#job-events li") !== null, null, "the details");
  const facts = await page.locator("#job-facts").innerText();
  assert.match(facts, /Tokens\s+\d+/);
  assert.match(facts, /Wanted by\s[^\n]*: kept/);
  assert.match(facts, /Cost\s+0\.\d+ USD; estimated 0\.\d+ to 0\.\d+\n/);
  assert.equal(await page.locator("#job-batches tbody tr").count(), 1);
  await pictures(page, shots, "daemon-job", false);
  await page.keyboard.press("Escape");

  // The daemon goes, and comes back.
  await ask("stop");
  await until(page, () => document.querySelector("#health").textContent === "gone", null, "word of its end");
  assert.match(await page.locator("#banner").innerText(), /does not answer/);
  await pictures(page, shots, "daemon-gone");
  await ask("start");
  await until(page, () => document.querySelector("#health").textContent === "ok" && document.querySelector("#banner").hidden, null, "its return");
  await drop("afterwards.jsonl", 3, "one more");
  await stateIs(page, "afterwards.jsonl", "active");
  await ask("advance");
  await stateIs(page, "afterwards.jsonl", "done");
  await isSound(page);
  await pictures(page, shots, "daemon");
});
console.log("all well");
process.exit(0);
