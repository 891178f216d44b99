// Starts the browser and watches what pages do: every request, every dialog, every
// complaint of the console.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import { chromium } from "playwright-core";
import { answerFaults } from "./schema.mjs";

export const origin = process.env.ORIGIN;
export const story = JSON.parse(process.env.STORY);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

let browser;

export async function open() {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: [
      "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
      "--disable-sync", "--disable-dev-shm-usage", "--autoplay-policy=no-user-gesture-required",
    ],
  });
}

export const close = () => browser?.close();

/** A browser of its own, and what it was seen to do. */
export async function visit(options = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, locale: "en-US", timezoneId: "Europe/Vienna", viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const seen = { abroad: [], dialogs: [], complaints: [] };
  context.on("request", (r) => {
    const url = r.url();
    if (!url.startsWith(origin + "/") && !url.startsWith("data:") && !url.startsWith("blob:") && url !== "about:srcdoc" && url !== "about:blank") seen.abroad.push(url);
  });
  page.on("requestfinished", async (request) => {
    const response = await request.response();
    const type = response.headers()["content-type"] ?? "";
    try {
      seen.complaints.push(...answerFaults(request.method(), request.url(), response.status(), type, type.includes("json") ? await response.text() : ""));
    } catch (e) {
      // A page that was left takes its answers with it.
      if (!/No resource|No data found|has been closed|Target page/.test(String(e))) seen.complaints.push(String(e));
    }
  });
  page.on("dialog", (d) => {
    seen.dialogs.push(d.message());
    void d.dismiss();
  });
  page.on("console", (m) => {
    if (m.type() === "error" || m.type() === "warning") seen.complaints.push(m.text());
  });
  page.on("pageerror", (e) => seen.complaints.push(String(e)));
  page.on("popup", (p) => seen.complaints.push(`popup ${p.url()}`));
  return { page, context, seen };
}

/** Signs in as a person by the sign-in page, and waits until the portal is there. */
export async function signedIn(name, options = {}, path = "/steno/") {
  const visitor = await visit(options);
  const { page } = visitor;
  await page.goto(origin + path);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("button", { name }).click();
  await page.getByRole("heading", { level: 1 }).waitFor();
  await page.getByRole("button", { name }).waitFor();
  return visitor;
}

/** What axe finds wrong with the page as it stands. */
export async function audit(page) {
  // A control that was just enabled still has the pale colors of a disabled one until the browser has drawn its transition to the end.
  await page.evaluate(async () => {
    for (let frames = 0; frames < 2; frames++) await new Promise(requestAnimationFrame);
    const ending = document.getAnimations().filter((a) => Number.isFinite(a.effect?.getComputedTiming().endTime));
    await Promise.all(ending.map((a) => a.finished.catch(() => {})));
  });
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() =>
    window.axe.run(
      { exclude: [["[data-tabster-dummy]"]] },
      { iframes: false, resultTypes: ["violations"], runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"] },
    ),
  );
  return violations.flatMap((v) => v.nodes.map((n) => `${v.id}: ${n.target.join(" ")}: ${n.failureSummary}`));
}

/** Repeats a check until it holds, and lets its last failure through when it does not within 20 s: a loaded machine takes its time. */
export async function eventually(check) {
  for (const end = Date.now() + 20_000; ; ) {
    try {
      return await check();
    } catch (e) {
      if (Date.now() > end) throw e;
      await setTimeout(50);
    }
  }
}

/** Leaves a picture of what is in view, for people to look at. */
export const shot = (page, name) => page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}.png`) });
