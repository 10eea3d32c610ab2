// The page with ten thousand jobs, of a stand-in for the daemon.
//
// Usage: node many.mjs CHROMIUM FOLDER_OF_THE_PAGE FOLDER_FOR_PICTURES

import assert from "node:assert/strict";
import { isSound, open, pictures, row, tabbed, until, withBrowser } from "./browser.mjs";
import { TOKEN, start } from "./fixture.mjs";

const [executablePath, folder, shots] = process.argv.slice(2);
const COUNT = 10_000;

const fixture = await start(folder, COUNT);
await withBrowser(executablePath, async (browser) => {
  const page = await open(browser, fixture.url);
  const where = page.locator("#page-where");
  const rows = page.locator("#jobs > .job");

  // Pages of fifty, there and back.
  assert.equal(await where.innerText(), "1 to 50 of 10,000");
  assert.equal(await rows.count(), 50);
  const first = await rows.first().innerText();
  await page.getByRole("button", { name: "More", exact: true }).click();
  await until(page, () => document.querySelector("#page-where").textContent.startsWith("51 to 100"), null, "the second page");
  assert.notEqual(await rows.first().innerText(), first);
  assert.equal(await rows.count(), 50);
  await page.getByRole("button", { name: "Back", exact: true }).click();
  await until(page, () => document.querySelector("#page-where").textContent.startsWith("1 to 50"), null, "the first page again");
  assert.equal(await rows.first().innerText(), first);

  // Filters, alone and together; markup in a name is a name.
  await page.locator("#filter-state").selectOption({ label: "Held" });
  await until(page, () => document.querySelectorAll("#jobs > .job").length === 11, null, "the held ones alone");
  await page.locator("#filter-state").selectOption({ label: "All states" });
  await page.getByPlaceholder("File name").fill("onerror");
  await until(page, () => document.querySelector("#jobs-count").textContent === "1,250", null, "those with a part of a name");
  assert.match(await rows.first().innerText(), /<img src=x onerror=alert\(1\)>/);
  assert.equal(await page.locator("main img").count(), 0);
  await page.getByPlaceholder("File name").fill("no such file");
  await until(page, () => !document.querySelector("#jobs-none").hidden, null, "no job like that");
  await page.getByPlaceholder("File name").fill("");
  await until(page, () => document.querySelector("#page-where").textContent === "1 to 50 of 10,000", null, "all of them again");

  // A row that stays keeps the keyboard's place while others come and go.
  const held = row(page, "translate-9994.jsonl").getByRole("button", { name: "Cancel" });
  await held.focus();
  fixture.jobs.push({ ...fixture.jobs[COUNT - 1], id: "01KAJ990000000000000000000", file: "newcomer.jsonl" });
  fixture.tell("claimed", "is taken out of the inbox", fixture.jobs[COUNT]);
  await until(page, () => document.querySelector("#jobs .name").textContent === "newcomer.jsonl", null, "the newcomer");
  assert.match(await page.evaluate(() => document.activeElement.textContent), /Cancel translate-9994/);

  const { there, missed } = await tabbed(page);
  assert.deepEqual(missed, []);
  assert(there > 60, `${there} buttons and fields only`);

  // Charts have what screen readers need.
  assert.match(await page.locator("#timeline svg").getAttribute("aria-label"), /\d+ batches in the last 24 hours/);
  await page.locator("summary").first().click();
  assert.equal(await page.locator("#timeline-table tbody tr").count(), 300);
  await page.locator("summary").first().click();

  await pictures(page, shots, "many");

  // One job in full, from the keyboard, and back to where one was.
  await row(page, "translate-9994.jsonl").getByRole("button", { name: "translate-9994.jsonl", exact: true }).focus();
  await page.keyboard.press("Enter");
  await until(page, () => document.querySelector("#job").open && !document.querySelector("#job-body").hidden, null, "the details");
  await pictures(page, shots, "many-job", false);
  await page.keyboard.press("Escape");
  await until(page, () => !document.querySelector("#job").open, null, "the end of the details");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "translate-9994.jsonl");

  // A wrong token is told and asked for again; a right one is asked for once.
  await page.getByRole("button", { name: "Pause", exact: true }).first().click();
  await page.getByLabel("Token", { exact: true }).fill("wrong");
  await page.keyboard.press("Enter");
  await until(page, () => document.querySelector("#token-title").textContent === "That was not the token", null, "the second question");
  await page.screenshot({ path: `${shots}/token.png` });
  await page.getByLabel("Token", { exact: true }).fill(TOKEN);
  await page.keyboard.press("Enter");
  await until(page, () => document.querySelector("#health").textContent === "paused", null, "the pause");
  await page.getByRole("button", { name: "Resume", exact: true }).click();
  await until(page, () => document.querySelector("#health").textContent === "ok", null, "the end of the pause");
  assert.equal(await page.evaluate(() => document.querySelector("#token").open), false);

  // The first picture comes soon: nothing is waited for but this machine.
  const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
  console.log(`first paint after ${Math.round(paint)} ms`);
  await isSound(page);
});
await fixture.stop();
console.log("all well");
