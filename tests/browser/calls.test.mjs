import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { audit, close, eventually, open, shot, signedIn, story } from "./driver.mjs";

const conversation = (id) => `/steno/conversations/${id}`;

/** Taps what the page's player sounds like. */
async function listen(page) {
  await page.locator("audio[data-player]").waitFor({ state: "attached" });
  await page.evaluate(() => {
    const element = document.querySelector("audio[data-player]");
    const context = new AudioContext();
    const analyser = new AnalyserNode(context, { fftSize: 8192, smoothingTimeConstant: 0 });
    context.createMediaElementSource(element).connect(analyser).connect(context.destination);
    const levels = new Float32Array(analyser.frequencyBinCount);
    // How loud a frequency is, in decibels.
    window.loud = (hz) => {
      analyser.getFloatFrequencyData(levels);
      return levels[Math.round((hz / context.sampleRate) * analyser.fftSize)];
    };
    void context.resume();
  });
}

const clock = (page) => page.locator("[data-clock]").getAttribute("data-clock").then(Number);

/** Waits until the player has played on past a second of the recording. */
async function playedTo(page, seconds) {
  for (const end = Date.now() + 15_000; ; ) {
    const at = (await clock(page)) / 1000;
    if (at >= seconds) return at;
    assert.ok(Date.now() < end, `the player stands at ${at} s, not at ${seconds} s`);
    await page.waitForTimeout(100);
  }
}

const hears = async (page, hz) => (await page.evaluate((f) => window.loud(f), hz)) > -50;

/** What the player is up to, for the message of a failure. */
const condition = (page) =>
  page.evaluate(() => {
    const a = document.querySelector("audio[data-player]");
    const spans = [...Array(a.buffered.length).keys()].map((i) => [a.buffered.start(i), a.buffered.end(i)]);
    return JSON.stringify({ paused: a.paused, ready: a.readyState, seeking: a.seeking, at: a.currentTime, spans, errors: document.querySelector(".deck").dataset.errors, complaint: document.querySelector(".deck").dataset.complaint, alert: document.querySelector("[role=alert]")?.textContent });
  });

async function assertHears(page, wanted) {
  for (const [hz, want] of Object.entries(wanted)) {
    await eventually(async () => assert.equal(await hears(page, Number(hz)), want, `${hz} Hz at ${(await clock(page)) / 1000} s, ${await condition(page)}`));
  }
}

/** Seeks by the slider, to a second since the first media. */
async function seek(page, seconds) {
  const slider = page.getByRole("slider", { name: "Position" });
  await slider.fill(String(seconds));
  await playedTo(page, seconds);
}

describe("calls", { concurrency: 2 }, () => {
  before(open);
  after(close);

  test("an ended call plays, seeks and switches between everybody and one party, as it sounded, without an error of the player", async () => {
    const { page, context, seen } = await signedIn("Sofia Lindqvist", {}, conversation(story.call));
    await page.getByRole("heading", { level: 1, name: "Order of the morning" }).waitFor();
    await listen(page);
    assert.equal(await page.locator("[data-lane]").count(), 3);
    await page.getByRole("button", { name: "Play" }).click();
    await playedTo(page, 1.5);
    await assertHears(page, { 400: true, 1000: false });
    await seek(page, 14); // second 15: both speak
    await assertHears(page, { 400: true, 1000: true });
    await page.getByRole("radio", { name: "+4930123456" }).click();
    await seek(page, 15);
    await assertHears(page, { 400: false, 1000: true });
    await page.getByRole("radio", { name: "Amara Okafor" }).click();
    await seek(page, 16);
    await assertHears(page, { 400: true, 1000: false });
    await page.getByRole("radio", { name: "Everybody" }).click();
    await seek(page, 25); // second 26: the telephone alone
    await assertHears(page, { 400: false, 1000: true });
    assert.equal(await page.locator(".deck").getAttribute("data-errors"), "0", await condition(page));
    assert.deepEqual(seen, { abroad: [], dialogs: [], complaints: [] });
    await context.close();
  });

  test("lanes are drawn from peaks, gaps are hatched and told in words, speed changes the pace", async () => {
    const { page, context, seen } = await signedIn("Sofia Lindqvist", {}, conversation(story.call));
    await page.locator("path.wave").first().waitFor({ state: "attached" });
    assert.equal(await page.locator("path.wave").count(), 2);
    assert.equal(await page.locator("[data-gap=lost]").count(), 1);
    assert.equal(await page.locator("[data-gap=paused]").count(), 1);
    assert.match(await page.locator("[data-lane] ul").first().textContent(), /Recording paused from .*: card number/);
    await page.getByText("(by Omar", { exact: false }).first().waitFor();
    await page.getByLabel("Speed").selectOption("2");
    await page.getByRole("button", { name: "Play" }).click();
    await playedTo(page, 0.5);
    const [from, began] = [await clock(page), Date.now()];
    await page.waitForTimeout(3000);
    const pace = ((await clock(page)) - from) / (Date.now() - began);
    assert.ok(pace > 1.6 && pace < 2.4, `pace ${pace}`);
    await page.getByRole("button", { name: "Pause" }).click();
    assert.deepEqual(await audit(page), []);
    await shot(page, "call");
    assert.deepEqual(seen, { abroad: [], dialogs: [], complaints: [] });
    await context.close();
  });

  test("the shared screen is shown while it was shared, in step with the sound", async () => {
    const { page, context } = await signedIn("Sofia Lindqvist", {}, conversation(story.call));
    await page.locator("video[data-picture]").waitFor({ state: "attached" });
    await page.getByRole("button", { name: "Play" }).click();
    await playedTo(page, 0.3);
    await seek(page, 8); // second 9: three seconds into the screen
    await eventually(async () => {
      const v = await page.evaluate(() => {
        const v = document.querySelector("video[data-picture]");
        return { width: v.videoWidth, shown: v.style.visibility, time: v.currentTime, rs: v.readyState, err: v.error?.message, r: performance.getEntriesByType('resource').filter((x) => x.name.includes('/screen')).map((x) => x.name.slice(-30) + x.responseStatus) };
      });
      const at = (await clock(page)) / 1000 + 1 - 6;
      assert.equal(v.width, 320, JSON.stringify(v));
      assert.equal(v.shown, "visible");
      assert.ok(Math.abs(v.time - at) < 0.6 || Math.abs(v.time - at - 6) < 0.6, `picture at ${v.time}, sound at ${at}`);
    });
    await seek(page, 22); // the screen has ended
    await eventually(async () => assert.equal(await page.evaluate(() => document.querySelector("video[data-picture]").style.visibility), "hidden"));
    await context.close();
  });

  test("a running call can be watched and says that it runs", async () => {
    const { page, context, seen } = await signedIn("Sofia Lindqvist", {}, conversation(story.live));
    await page.getByText("running", { exact: false }).first().waitFor();
    await listen(page);
    await page.getByRole("button", { name: "Play" }).click();
    await page.getByRole("button", { name: "Pause" }).waitFor();
    await seek(page, 14);
    await assertHears(page, { 400: true, 1000: true });
    await page.getByRole("button", { name: "Go to now" }).waitFor();
    assert.equal(await page.locator(".deck").getAttribute("data-errors"), "0", await condition(page));
    await shot(page, "running-call");
    assert.deepEqual(seen, { abroad: [], dialogs: [], complaints: [] });
    await context.close();
  });

  test("calls stand in the list with their direction and their length", async () => {
    const { page, context } = await signedIn("Sofia Lindqvist");
    const row = page.getByRole("row").filter({ hasText: "Order of the morning" });
    await row.filter({ hasText: "running" }).first().waitFor();
    await row.filter({ hasText: "Incoming telephone call" }).filter({ hasText: /0:\d\d/ }).first().waitFor();
    await context.close();
  });
});
