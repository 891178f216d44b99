import assert from "node:assert/strict";
import { stat } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import { audit, close, open, origin, shot, signedIn, story } from "./driver.mjs";

const quiet = { abroad: [], dialogs: [], complaints: [] };

async function assertAccessible(page, where) {
  assert.deepEqual(await audit(page), [], where);
}

const row = (page, text) => page.getByRole("row").filter({ hasText: text });

describe("control", { concurrency: 1 }, () => {
  before(open);
  after(close);

  test("a compliance officer starts a look-back and cancels it, and an administrator sees it", async () => {
    const { page, context, seen } = await signedIn("Omar Haddad", { reducedMotion: "reduce" }, "/steno/");
    await page.getByRole("link", { name: "Look-backs" }).click();
    await page.getByRole("heading", { name: "No look-backs" }).waitFor();
    await page.getByRole("button", { name: "Start a look-back" }).click();
    assert.ok(await page.getByRole("button", { name: "Start", exact: true }).isDisabled(), "a look-back on nobody is offered");
    await page.getByRole("combobox", { name: "Recorded user or team" }).click();
    await page.getByRole("combobox", { name: "Recorded user or team" }).fill("equities");
    await page.getByRole("option", { name: "Equities Floor (team)" }).click();
    await page.getByLabel("Reason").fill("The regulator asked for November.");
    await page.getByLabel("From").fill("2017-01-01");
    await assertAccessible(page, "starting a look-back");
    await shot(page, "lookbacks-start");
    await page.getByRole("button", { name: "Start", exact: true }).click();
    await page.getByText("at most 31 days in one look-back").last().waitFor();
    const days = (n) => new Date(Date.now() - n * 86_400_000).toISOString().slice(0, 10);
    await page.getByLabel("From").fill(days(20));
    await page.getByLabel("To", { exact: false }).last().fill(days(1));
    await page.getByRole("button", { name: "Start", exact: true }).click();
    await row(page, "The regulator asked for November.").getByText("Queued").waitFor();
    await assertAccessible(page, "look-backs");
    await page.getByRole("button", { name: "Cancel the look-back: The regulator asked for November." }).click();
    await row(page, "The regulator asked for November.").getByText("Canceled").waitFor();
    await shot(page, "lookbacks");
    // The browser itself complains of the one request that was refused.
    assert.deepEqual({ ...seen, complaints: seen.complaints.filter((c) => !c.includes("status of 422")) }, quiet);
    await context.close();

    const other = await signedIn("Nina Weber", { reducedMotion: "reduce" }, "/steno/lookbacks");
    await row(other.page, "The regulator asked for November.").getByText("Omar Haddad").waitFor();
    assert.equal(await other.page.getByRole("button", { name: "Start a look-back" }).count(), 0);
    await other.page.getByRole("link", { name: "Recorded users" }).click();
    await row(other.page, "Equities Floor").getByText("Team", { exact: true }).waitFor();
    await row(other.page, "Ben Carter").getByText("Graph answered 404 MailboxNotEnabledForRESTAPI").waitFor();
    await assertAccessible(other.page, "people with a team and what was not read");
    await shot(other.page, "people-capture");
    assert.deepEqual(other.seen, quiet);
    await other.context.close();
  });

  test("a compliance officer places a hold, and another one releases it", async () => {
    const { page, context, seen } = await signedIn("Omar Haddad", { reducedMotion: "reduce" }, "/steno/");
    await page.getByRole("link", { name: "Legal holds" }).click();
    await page.getByRole("heading", { name: "No legal holds" }).waitFor();
    await assertAccessible(page, "no holds");
    await page.getByRole("button", { name: "Place a hold" }).click();
    assert.ok(await page.getByRole("button", { name: "Place hold" }).isDisabled(), "a hold on nothing is offered");
    await page.getByLabel("Matter").fill("Inquiry 7");
    await page.getByRole("combobox", { name: "Custodians" }).click();
    await page.getByRole("combobox", { name: "Custodians" }).fill("chi");
    await page.getByRole("menuitemcheckbox", { name: "Chiara Rossi" }).click();
    await page.keyboard.press("Escape");
    await page.getByLabel("Conversations").fill("no such id");
    await assertAccessible(page, "placing a hold");
    await shot(page, "holds-place");
    await page.getByRole("button", { name: "Place hold" }).click();
    await page.getByText("a conversation id of 2 bytes that is none").first().waitFor();
    await page.getByLabel("Conversations").fill("");
    await page.getByRole("button", { name: "Place hold" }).click();
    await row(page, "Inquiry 7").getByText("Holds", { exact: true }).waitFor();
    await row(page, "Inquiry 7").getByText("Chiara Rossi").waitFor();
    await page.getByRole("button", { name: "Ask for the release of Inquiry 7" }).click();
    await page.getByLabel("Reason").fill("The inquiry was closed on Friday.");
    await page.getByRole("button", { name: "Ask for release" }).click();
    await row(page, "Inquiry 7").getByText("Holds, release asked for").waitFor();
    await assertAccessible(page, "holds");
    await shot(page, "holds");
    await page.getByRole("link", { name: "Approvals" }).click();
    await page.getByText("You asked for this").waitFor();
    assert.equal(await page.getByRole("button", { name: "Approve" }).count(), 0);
    await context.close();

    const second = await signedIn("Ines Duarte", { reducedMotion: "reduce" }, "/steno/approvals");
    await second.page.getByText("The inquiry was closed on Friday.").waitFor();
    await second.page.getByText("Omar Haddad").first().waitFor();
    await assertAccessible(second.page, "approvals");
    await shot(second.page, "approvals");
    await second.page.getByRole("button", { name: "Approve" }).click();
    await second.page.getByRole("heading", { name: "Nothing waits for approval" }).waitFor();
    await second.page.getByRole("link", { name: "Legal holds" }).click();
    await row(second.page, "Inquiry 7").getByText("Released, grace period").waitFor();
    assert.deepEqual(second.seen, quiet);
    await second.context.close();
    // The refusal of a wrong id is an answer of 422, which a browser complains about.
    assert.deepEqual({ ...seen, complaints: seen.complaints.filter((c) => !c.includes("422")) }, quiet);
  });

  test("an auditor reads the whole trail, narrows it and takes it along; others see what they did", async () => {
    const { page, context, seen } = await signedIn("Aida Kovac", { reducedMotion: "reduce" }, "/steno/trail");
    await page.getByText(/\d+ entr(y|ies), oldest first/).waitFor();
    await row(page, "Hold placed").getByText("Omar Haddad").waitFor();
    await row(page, "Hold released").getByText("Ines Duarte").waitFor();
    await assertAccessible(page, "trail");
    await shot(page, "trail");
    await page.getByRole("combobox", { name: "Action" }).click();
    await page.getByRole("option", { name: "Hold placed" }).click();
    await page.getByText("1 entry, oldest first").waitFor();
    const download = page.waitForEvent("download");
    await page.getByRole("button", { name: "Download as a table" }).click();
    assert.equal((await download).suggestedFilename(), "custody.csv");
    assert.equal(await page.getByRole("link", { name: "Approvals" }).count(), 1);
    await page.goto(`${origin}/steno/trail?from=2024-01-01&to=2024-01-02`);
    await page.getByRole("heading", { name: "No entries" }).waitFor();
    await page.goto(`${origin}/steno/trail?from=2024-01-02&to=2024-01-01`);
    await page.getByText("The end is before the start.").waitFor();
    assert.deepEqual(seen, quiet);
    await context.close();

    const own = await signedIn("Sofia Lindqvist", {}, "/steno/trail");
    await own.page.getByText("What you did yourself.").waitFor();
    await own.page.getByRole("row").getByText("You", { exact: true }).first().waitFor();
    assert.equal(await own.page.getByText("Omar Haddad").count(), 0);
    assert.equal(await own.page.getByRole("link", { name: "Legal holds" }).count(), 0);
    await own.context.close();
  });

  test("an export is ordered from a conversation, and its package downloads whole", async () => {
    const { page, context, seen } = await signedIn("Omar Haddad", { reducedMotion: "reduce" }, `/steno/conversations/${story.desk}`);
    await page.getByRole("link", { name: "Export this conversation" }).click();
    assert.equal(await page.getByLabel("Conversations").inputValue(), story.desk);
    assert.ok(await page.getByRole("button", { name: "Order", exact: true }).isDisabled(), "an export without a reason is offered");
    await page.getByLabel("Case").fill("Case 7");
    await page.getByLabel("Reason").fill("The regulator asked for it.");
    await assertAccessible(page, "ordering an export");
    await shot(page, "exports-order");
    await page.getByRole("button", { name: "Order", exact: true }).click();
    await row(page, "Case 7").getByText("Ready", { exact: true }).waitFor();
    await assertAccessible(page, "exports");
    await shot(page, "exports");
    const download = page.waitForEvent("download");
    await page.getByRole("button", { name: "Download the package of Case 7" }).click();
    const file = await download;
    assert.match(file.suggestedFilename(), /^steno-export-[0-9a-f]{32}\.zip$/);
    assert.equal((await stat(await file.path())).size, 8 * 1024 * 1024 + 800);
    assert.deepEqual(seen, quiet);
    await context.close();
  });

  test("an auditor sees what was missing of whom and takes the signed statement along; a supervisor sees her desk", async () => {
    const { page, context, seen } = await signedIn("Aida Kovac", { reducedMotion: "reduce" }, "/steno/");
    await page.getByRole("link", { name: "Coverage" }).click();
    await page.getByText("Something is missing").waitFor();
    assert.equal(await page.getByText("Nothing is missing").count(), 1);
    await assertAccessible(page, "coverage");
    await shot(page, "coverage");
    await row(page, "Something is missing").getByRole("link").click();
    const custodians = page.getByRole("table", { name: "By custodian" });
    await custodians.getByRole("row").filter({ hasText: "Ben Carter" }).filter({ hasText: "No recording" }).waitFor();
    assert.equal(await custodians.getByText("Amara Okafor").count(), 0, "a line with nothing open is not shown first");
    await page.getByRole("table", { name: "Capture gaps in calls" }).getByText("No recording, 25:00").waitFor();
    await page.getByText("Calls to emergency services").waitFor();
    await assertAccessible(page, "coverage of a day");
    await shot(page, "coverage-day");
    await page.getByRole("button", { name: "Show all" }).click();
    await custodians.getByText("Amara Okafor").first().waitFor();
    for (const [button, name] of [["Download the statement", /^coverage-\d{4}-\d\d-\d\d-1\.json$/], ["Download its signature", /\.sig$/]]) {
      const download = page.waitForEvent("download");
      await page.getByRole("button", { name: button }).click();
      assert.match((await download).suggestedFilename(), name);
    }
    assert.deepEqual(seen, quiet);
    await context.close();

    const desk = await signedIn("Sofia Lindqvist", { reducedMotion: "reduce" }, "/steno/coverage");
    await desk.page.getByText("Nothing is missing").first().waitFor();
    assert.equal(await desk.page.getByText("Something is missing").count(), 0, "another desk's gap is shown");
    await desk.page.getByRole("row").getByRole("link").first().click();
    await desk.page.getByText("Nothing failed and nothing is open.").waitFor();
    assert.equal(await desk.page.getByRole("button", { name: "Download the statement" }).count(), 0);
    assert.equal(await desk.page.getByText("Ben Carter").count(), 0);
    assert.deepEqual(desk.seen, quiet);
    await desk.context.close();
  });
});
