// A headless Chromium for a test of the page, and what is asked of the page again and again.

import assert from "node:assert/strict";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { chromium } from "playwright-core";

const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const PATIENCE_MS = 60_000;

/** Opens a browser with a profile of its own, gives it to `test`, and takes it away again. */
export async function withBrowser(executablePath, test) {
  const profile = await fs.mkdtemp(path.join(os.tmpdir(), "page-"));
  const viewport = { width: 1280, height: 900 };
  const browser = await chromium.launchPersistentContext(profile, { executablePath, headless: true, args: FLAGS, viewport, locale: "en-GB", timezoneId: "UTC" });
  try {
    browser.setDefaultTimeout(PATIENCE_MS);
    await test(browser);
  } finally {
    await browser.close();
    await fs.rm(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** The page at `url`. What goes wrong in it is kept in `page.wrong`. */
export async function open(browser, url) {
  const page = await browser.newPage();
  page.wrong = [];
  page.on("pageerror", (error) => page.wrong.push(`error: ${error.stack}`));
  page.on("dialog", (dialog) => page.wrong.push(`dialog: ${dialog.message()}`));
  page.on("console", (message) => {
    // A daemon that is gone on purpose makes the browser say so.
    const expected = /Failed to load resource|net::ERR_/.test(message.text());
    if (message.type() === "error" && !expected) page.wrong.push(`console: ${message.text()}`);
  });
  await page.addInitScript(() => {
    globalThis.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => globalThis.violations.push(`${event.violatedDirective}: ${event.blockedURI}`));
  });
  await page.goto(url);
  await page.waitForSelector("body[data-ready=true]");
  return page;
}

/** Nothing went wrong so far, and the page's policy was kept. */
export async function isSound(page) {
  assert.deepEqual(await page.evaluate(() => globalThis.violations), []);
  assert.deepEqual(page.wrong, []);
}

/** Waits until `what` of the page is true. */
export async function until(page, what, argument, why) {
  try {
    await page.waitForFunction(what, argument, { timeout: PATIENCE_MS });
  } catch {
    const text = await page.evaluate(() => document.body.innerText);
    throw new Error(`${why} did not come about. The page says:\n${text}`);
  }
}

/** The row of a job, by its file. */
export const row = (page, file, list = "#jobs") => page.locator(`${list} > .job`, { has: page.getByRole("button", { name: file, exact: true }) });

/** Goes through the page with the Tab key alone; answers with every button and field that was reached. */
export async function tabbed(page) {
  await page.evaluate(() => {
    document.activeElement?.blur();
    document.querySelectorAll("[data-reached]").forEach((node) => node.removeAttribute("data-reached"));
  });
  for (let turn = 0; turn < 600; turn += 1) {
    await page.keyboard.press("Tab");
    const again = await page.evaluate(() => {
      const node = document.activeElement;
      // Behind the last one comes the first.
      if (!node || node === document.body) return false;
      const before = node.hasAttribute("data-reached");
      // What has the focus must show it.
      const style = getComputedStyle(node);
      const shows = style.outlineStyle !== "none" || node.tagName === "SUMMARY" || node.classList.contains("skip");
      node.setAttribute("data-reached", shows ? "shown" : "unseen");
      return before;
    });
    if (again) break;
  }
  return page.evaluate(() => {
    const all = [...document.querySelectorAll("button, input, select, summary")];
    const there = all.filter((node) => !node.disabled && node.checkVisibility());
    return { there: there.length, missed: there.filter((node) => node.dataset.reached !== "shown").map((node) => `${node.outerHTML} ${node.dataset.reached ?? "not reached"}`) };
  });
}

/** Pictures of the whole page, or of what is to be seen of it: light and dark on a desk, and on a phone. */
export async function pictures(page, folder, name, fullPage = true) {
  await fs.mkdir(folder, { recursive: true });
  const looks = [["light", "light", 1280, 900], ["dark", "dark", 1280, 900], ["phone", "light", 360, 740]];
  for (const [look, colorScheme, width, height] of looks) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width, height });
    // Charts are drawn anew for the width there is.
    await page.waitForFunction(() => {
      const drawn = [...document.querySelectorAll(".chart > svg")];
      return drawn.every((chart) => Math.abs(chart.width.baseVal.value - Math.max(240, chart.parentElement.clientWidth)) <= 42);
    });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert(wide <= 0, `${name} on a ${look}: ${wide} px too wide`);
    await page.screenshot({ path: path.join(folder, `${name}-${look}.png`), fullPage });
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 1280, height: 900 });
}
