// How soon the dashboard is to be seen: `node page.mjs CHROMIUM URL ROUNDS` prints two medians in
// milliseconds, the first paint with content and the first row of jobs, each with a fresh profile.

import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { chromium } from "playwright-core";

const [executablePath, url, rounds] = process.argv.slice(2);
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"];

const median = (values) => values.sort((one, other) => one - other)[Math.floor(values.length / 2)];

async function once() {
  const profile = await fs.mkdtemp(path.join(os.tmpdir(), "page-"));
  const browser = await chromium.launchPersistentContext(profile, { executablePath, headless: true, args: FLAGS });
  try {
    const page = await browser.newPage();
    // The first page of a browser pays for the browser's own start.
    await page.goto("data:text/html,<p>warm</p>");
    await page.goto(url);
    const row = await page.waitForFunction(() => document.querySelector("#jobs > .job") && performance.now());
    const paint = await page.waitForFunction(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
    return { paint: await paint.jsonValue(), row: await row.jsonValue() };
  } finally {
    await browser.close();
    await fs.rm(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

const seen = [];
for (let round = 0; round < Number(rounds); round += 1) seen.push(await once());
console.log(`${median(seen.map((one) => one.paint))} ${median(seen.map((one) => one.row))}`);
