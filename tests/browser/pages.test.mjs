import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import { audit, close, eventually, open, origin, shot, signedIn, story, visit } from "./driver.mjs";

const conversation = (id) => `/steno/conversations/${id}`;

/** Nothing ran, nothing was asked for elsewhere, nothing was complained about. */
function assertQuiet(seen) {
  assert.deepEqual(seen, { abroad: [], dialogs: [], complaints: [] });
}

async function assertAccessible(page, where) {
  assert.deepEqual(await audit(page), [], where);
}

const rows = (page) => page.getByRole("table").getByRole("row");

/** What hostile content would leave behind in the page itself. */
const leftovers = () => {
  const main = document.querySelector("main");
  const own = new Set(["about:srcdoc"]);
  return [
    ...main.querySelectorAll("img, script, style, object, embed, video, audio, base, link, meta, template, marquee, details, select, math, [onerror], [onload], [ontoggle], [onfocus], [srcset], [background], [name=body], [id=location]"),
    ...main.querySelectorAll("a[href]:not([href^='/steno/']), svg:not([aria-hidden=true]), iframe:not([sandbox=''])"),
  ].map((e) => e.outerHTML.slice(0, 200)).concat(window.pwned ? ["pwned"] : []).filter((x) => !own.has(x));
};

async function assertHarmless(page) {
  const messages = page.getByRole("region", { name: "Messages" });
  await messages.getByRole("article").nth(story.bodies.length - 1).waitFor();
  await page.waitForFunction(() => document.querySelectorAll("iframe").length > 0);
  for (const element of await page.locator("iframe").elementHandles()) {
    await element.scrollIntoViewIfNeeded();
    await (await element.contentFrame()).waitForLoadState("load");
  }
  assert.deepEqual(await page.evaluate(leftovers), []);
  for (const frame of page.frames().slice(1)) {
    const inside = await frame.evaluate(() => [...document.body.querySelectorAll("*")].filter((e) => e.attributes.length > (e.className === "target" ? 1 : 0) || /^(script|style|img|svg|math|iframe|form|input|object|embed|link|meta|a)$/i.test(e.localName)).map((e) => e.outerHTML));
    assert.deepEqual(inside, []);
  }
  assert.ok(page.url().endsWith(story.hostile));
}

// Two at a time: a page waits more than it works.
describe("portal", { concurrency: 2 }, () => {
  before(open);
  after(close);

  test("a supervisor signs in by choosing an account and finds the list of conversations", async () => {
    const { page, context, seen } = await visit();
    await page.goto(`${origin}/steno/`);
    await page.getByRole("heading", { name: "Sign in to Steno" }).waitFor();
    await assertAccessible(page, "before sign-in");
    await shot(page, "sign-in");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("button", { name: "Sofia Lindqvist" }).click();
    await page.getByRole("heading", { level: 1, name: "Conversations" }).waitFor();
    await rows(page).nth(50).waitFor();
    await rows(page).filter({ hasText: "Grace Kim, Amara Okafor, Chiara Rossi" }).first().waitFor();
    await assertAccessible(page, "list");
    await shot(page, "list");
    assertQuiet(seen);
    await context.close();
  });

  test("tokens stay in the tab: no cookie is set by the portal and nothing lies in local storage", async () => {
    const { page, context } = await signedIn("Sofia Lindqvist");
    const cookies = (await context.cookies()).filter((c) => c.path.startsWith("/steno"));
    assert.deepEqual(cookies, []);
    const kept = await page.evaluate(() => Object.entries({ ...localStorage }).filter(([k, v]) => /token|secret/i.test(k) || /eyJ/.test(v)).map(([k]) => k));
    assert.deepEqual(kept, []);
    await context.close();
  });

  test("the list goes on by its cursor and narrows by person and date", async () => {
    const { page, context, seen } = await signedIn("Sofia Lindqvist");
    await page.getByRole("button", { name: "Load more" }).click();
    await rows(page).nth(60).waitFor();
    assert.equal(await page.getByRole("button", { name: "Load more" }).count(), 0);
    await page.getByRole("combobox", { name: "Recorded user" }).fill("chi");
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    await page.waitForURL(/person=/);
    await page.getByText("2 conversations, newest first").waitFor();
    await page.getByRole("button", { name: "Clear filters" }).click();
    await rows(page).nth(50).waitFor();
    await page.getByLabel("To").fill("2024-01-31");
    await page.getByText("The end is before the start.").waitFor();
    await page.getByLabel("From").fill("2024-01-01");
    await page.getByRole("heading", { name: "No conversations found" }).waitFor();
    await assertAccessible(page, "empty list");
    await shot(page, "list-empty");
    await page.reload();
    await page.getByRole("heading", { name: "No conversations found" }).waitFor();
    await page.getByRole("button", { name: "Search the last year" }).click();
    await rows(page).nth(50).waitFor();
    assertQuiet(seen);
    await context.close();
  });

  test("a thread shows edits, deletions, quotes, reactions, attachments and system events, and says that it was read", async () => {
    const { page, context, seen } = await signedIn("Sofia Lindqvist");
    await page.getByRole("link", { name: "Grace Kim, Amara Okafor, Chiara Rossi" }).first().click();
    const messages = page.getByRole("region", { name: "Messages" });
    await messages.getByText("I will call the client at 16:30, after the fixing.").waitFor();
    const edited = messages.getByRole("article").filter({ hasText: "16:30" });
    await edited.getByText("Edited", { exact: true }).waitFor();
    assert.equal(await messages.getByText("I will call the client at 15:00.").count(), 0);
    await edited.getByRole("button", { name: "1 earlier version" }).click();
    await messages.getByText("I will call the client at 15:00.").waitFor();
    const deleted = messages.getByRole("article").filter({ hasText: "Captured before" });
    await deleted.getByText("Move it to my private phone.").waitFor();
    const frame = page.frameLocator("iframe").first();
    assert.equal(await frame.locator("blockquote").innerText(), "Grace Kim\n\nCan you show me 50k at the close?");
    assert.match(await frame.locator("body").innerText(), /limits are here <https:\/\/intranet\.contoso\.example\/limits\?desk=equities>/);
    assert.equal(await frame.locator("a, [href]").count(), 0);
    await messages.getByText("👍 × 2").waitFor();
    await messages.getByText("Block trades, week 47.xlsx").waitFor();
    await messages.getByText("cod.\ufffdfdp.exe").waitFor();
    await messages.getByText("System event: members added").waitFor();
    assert.match(await page.locator("[data-event]").innerText(), /^[0-9a-f]{16}-[0-9a-f]{16}$/);
    await deleted.getByRole("button", { name: "Details" }).click();
    await deleted.getByText("SHA-256").first().waitFor();
    await assertAccessible(page, "conversation");
    await page.frameLocator("iframe").last().getByText("41.25").waitFor();
    await page.setViewportSize({ width: 1280, height: 1700 });
    await shot(page, "conversation");
    assertQuiet(seen);
    await context.close();
  });

  test("frames are as high as what they hold", async () => {
    const { page, context } = await signedIn("Sofia Lindqvist", {}, conversation(story.desk));
    for (const width of [1280, 320]) {
      await page.setViewportSize({ width, height: 900 });
      await page.locator("iframe").last().scrollIntoViewIfNeeded();
      await eventually(async () => {
        for (const element of await page.locator("iframe").elementHandles()) {
          const frame = await element.contentFrame();
          const { own, wanted } = await frame.evaluate(() => ({ own: innerHeight, wanted: document.body.getBoundingClientRect().height }));
          assert.ok(own >= wanted && wanted > 0 && own - wanted <= 48, `at ${width} px a frame of ${own} px holds ${wanted} px`);
        }
      });
    }
    await context.close();
  });

  test("the original is saved byte for byte, and its digest is checked", async () => {
    const { page, context, seen } = await signedIn("Sofia Lindqvist", {}, conversation(story.desk));
    const message = page.getByRole("article").filter({ hasText: "16:30" });
    await message.getByRole("button", { name: "Details" }).click();
    const [download] = await Promise.all([page.waitForEvent("download"), message.getByRole("button", { name: "Download original" }).first().click()]);
    const saved = JSON.parse(await readFile(await download.path(), "utf8"));
    assert.equal(saved.body.content, "<p>I will call the client at 15:00.</p>");
    await message.getByText("Saved; SHA-256 matches").waitFor();
    assertQuiet(seen);
    await page.route("**/original", (r) => r.fulfill({ body: "{}" }));
    await message.getByRole("button", { name: "Download original" }).last().click();
    await message.getByText("Not saved: the bytes do not have this SHA-256").waitFor();
    await context.close();
  });

  test("an attachment says what became of it, and is saved under a harmless name", async () => {
    const { page, context, seen } = await signedIn("Sofia Lindqvist", {}, conversation(story.desk));
    const message = page.getByRole("article").filter({ hasText: "The file is below" });
    await message.getByText("5.2 MB, as it was when it was sent").waitFor();
    await message.getByText("Not in the archive: lies with the sender's organization").waitFor();
    const [download] = await Promise.all([page.waitForEvent("download"), message.getByRole("button", { name: "Download Block trades, week 47.xlsx" }).click()]);
    assert.match(download.suggestedFilename(), /^attachment-[0-9a-f]{12}\.xlsx$/);
    assert.equal(await readFile(await download.path(), "utf8"), "block trades\n".repeat(400_000));
    await message.getByText("Saved", { exact: true }).waitFor();
    assert.equal(await message.getByRole("button", { name: /^Download cod/ }).count(), 0);
    assertQuiet(seen);
    await context.close();
  });

  test("a conversation says when versions are still being stored and when it is cut", async () => {
    const { page, context, seen } = await signedIn("Sofia Lindqvist");
    await page.route("**/messages", async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, json: { ...(await response.json()), pending: 2, truncated: true } });
    });
    await page.goto(origin + conversation(story.desk));
    await page.getByText("2 versions are still being stored.").waitFor();
    await page.getByText("larger than one page may show").waitFor();
    await assertAccessible(page, "pending and cut");
    await shot(page, "pending");
    assertQuiet(seen);
    await context.close();
  });

  test("a thread leads to its other days", async () => {
    const { page, context, seen } = await signedIn("Sofia Lindqvist", {}, conversation(story.desk));
    await page.getByRole("button", { name: "Show this thread's other days" }).click();
    await page.getByRole("complementary").getByRole("listitem").getByRole("link").click();
    await page.getByText("Two blocks to work today.").waitFor();
    assert.ok(page.url().endsWith(story.before));
    assertQuiet(seen);
    await context.close();
  });

  test("a long thread is laid out in steps, and an item that is no message is shown as what it is", async () => {
    const { page, context, seen } = await signedIn("Omar Haddad", {}, conversation(story.long));
    await page.getByText("300 of 350 messages").waitFor();
    await page.getByRole("button", { name: "Show more" }).click();
    await page.getByText("Fill 350 of the morning.").waitFor();
    await page.goto(origin + conversation(story.unclear));
    await page.getByText("Could not be read as a message").waitFor();
    await page.getByText('"body":"no chat named"').waitFor();
    await assertAccessible(page, "unclear item");
    assertQuiet(seen);
    await context.close();
  });

  test("hostile messages run nothing, ask for nothing and leave nothing outside their frame", async () => {
    const { page, context, seen } = await signedIn("Sofia Lindqvist", {}, conversation(story.hostile));
    await assertHarmless(page);
    assertQuiet(seen);
    await shot(page, "hostile");
    await context.close();
  });

  test("the pages stand alone against hostile messages that the server let through", async () => {
    const { page, context, seen } = await signedIn("Sofia Lindqvist");
    await page.route("**/messages", async (route) => {
      const response = await route.fetch();
      const body = await response.json();
      body.messages.forEach((m, i) => m.versions.forEach((v) => {
        v.html = story.bodies[i];
        v.text = story.bodies[i];
      }));
      await route.fulfill({ response, json: body });
    });
    await page.goto(origin + conversation(story.hostile));
    await assertHarmless(page);
    // To parse hostile markup at all makes the browser report what its policy would refuse.
    assertQuiet({ ...seen, complaints: seen.complaints.filter((c) => !c.includes("Content Security Policy")) });
    await context.close();
  });

  const armed = "<body><script>parent.pwned=1;alert(1)</script><img src=data:, onerror=alert(2)><a href='javascript:alert(3)'>loaded</a>";

  test("the sandbox of a frame runs nothing, even without the policy of the pages", async () => {
    const { page, context, seen } = await signedIn("Sofia Lindqvist", { bypassCSP: true }, conversation(story.desk));
    await page.locator("iframe").first().evaluate((f, markup) => {
      f.srcdoc = markup;
    }, armed);
    await page.frameLocator("iframe").first().getByText("loaded").click();
    assert.equal(await page.evaluate(() => window.pwned), undefined);
    assert.deepEqual(seen.dialogs, []);
    await context.close();
  });

  test("the policy of the pages takes markup from no string", async () => {
    const { page, context } = await signedIn("Sofia Lindqvist", {}, conversation(story.desk));
    await page.locator("iframe").first().waitFor();
    for (const how of ["srcdoc", "innerHTML", "eval"]) {
      const refused = await page.evaluate(([how, markup]) => {
        try {
          if (how === "srcdoc") document.querySelector("iframe").srcdoc = markup;
          else if (how === "innerHTML") document.querySelector("main").innerHTML = markup;
          else setTimeout(markup);
          return "";
        } catch (e) {
          return e.name;
        }
      }, [how, armed]);
      assert.equal(refused, "TypeError", how);
    }
    await context.close();
  });

  test("a supervisor sees the people of her desks alone, and what is not hers is as if it did not exist", async () => {
    const { page, context, seen } = await signedIn("Sofia Lindqvist", {}, "/steno/people");
    const people = page.getByRole("table");
    await people.getByText("Amara Okafor").waitFor();
    assert.equal(await people.getByText("Ben Carter").count(), 0);
    await assertAccessible(page, "people");
    await people.getByText("Communications DLP plan missing").waitFor();
    await shot(page, "people");
    assertQuiet(seen);
    const answers = [];
    for (const id of [story.rates, story.rates.replace(/^./, "0").replace(/^./, (c) => (story.rates[0] === c ? "1" : c))]) {
      await page.goto(origin + conversation(id));
      await page.getByRole("heading", { name: "Nothing to see here" }).waitFor();
      answers.push(await page.getByRole("main").innerText());
    }
    assert.equal(answers[0], answers[1]);
    await assertAccessible(page, "not found");
    await shot(page, "not-found");
    await context.close();
  });

  test("a compliance officer sees every desk", async () => {
    const { page, context, seen } = await signedIn("Omar Haddad");
    await page.getByRole("link", { name: "Ben Carter, Grace Kim" }).click();
    await page.getByText("Too wide for me.").waitFor();
    assertQuiet(seen);
    await context.close();
  });

  test("an administrator is told that she sees no content, and sees who is recorded", async () => {
    const { page, context, seen } = await signedIn("Nina Weber");
    await page.getByRole("heading", { name: "Your role shows no conversations" }).waitFor();
    await assertAccessible(page, "administrator");
    await shot(page, "administrator");
    await page.getByRole("link", { name: "See recorded users" }).click();
    await page.getByRole("table").getByText("Ben Carter").waitFor();
    assertQuiet(seen);
    await context.close();
  });

  test("somebody without a role is told so", async () => {
    const { page, context, seen } = await signedIn("Paul Novak");
    await page.getByRole("heading", { name: "You have no role in Steno" }).waitFor();
    await assertAccessible(page, "no role");
    assertQuiet(seen);
    await context.close();
  });

  test("a busy archive is asked again by itself, and one that does not answer can be asked again", async () => {
    const { page, context } = await signedIn("Sofia Lindqvist");
    let busy = 1;
    await page.route("**/v1/conversations?**", (r) => (busy-- > 0 ? r.fulfill({ status: 429, headers: { "Retry-After": "2" }, json: { status: 429, title: "Too many requests" } }) : r.continue()));
    await page.getByRole("link", { name: "Recorded users" }).click();
    await page.getByRole("link", { name: "Conversations" }).click();
    await page.getByRole("heading", { name: "Too many requests" }).waitFor();
    await assertAccessible(page, "too many requests");
    await rows(page).nth(50).waitFor();
    await page.unrouteAll();
    let down = true;
    await page.route("**/messages", (r) => (down ? r.fulfill({ status: 503, json: { status: 503, title: "Unavailable", detail: "Try again in a moment." } }) : r.continue()));
    await rows(page).filter({ hasText: "Grace Kim" }).first().getByRole("link").click();
    await page.getByRole("heading", { name: "The archive does not answer" }).waitFor();
    await assertAccessible(page, "unavailable");
    down = false;
    await page.getByRole("button", { name: "Try again" }).click();
    await page.getByRole("article").first().waitFor();
    await context.close();
  });

  test("a sign-in that has ended comes back to the same page", async () => {
    const { page, context } = await signedIn("Sofia Lindqvist");
    await page.route("**/v1/**", (r) => r.fulfill({ status: 401, json: { status: 401, title: "Sign in" } }));
    await page.goto(origin + conversation(story.desk));
    await page.getByRole("heading", { name: "Your sign-in has ended" }).waitFor();
    await assertAccessible(page, "signed out");
    await page.unrouteAll();
    await page.getByRole("button", { name: "Sign in again" }).click();
    await page.getByRole("button", { name: "Sofia Lindqvist" }).click();
    await page.getByRole("article").first().waitFor();
    assert.ok(page.url().endsWith(story.desk));
    await context.close();
  });

  test("an old token is renewed without a frame, and when that ends a sign-in is asked for", async () => {
    const { page, context, seen } = await visit();
    const grants = [];
    await page.route(/\/oauth2\/v2\.0\/token/, async (route) => {
      const grant = new URLSearchParams(route.request().postData()).get("grant_type");
      grants.push(grant);
      if (grants.length > 3) return route.fulfill({ status: 400, json: { error: "invalid_grant", error_description: "AADSTS70008: expired", error_codes: [70008] } });
      const response = await route.fetch();
      return route.fulfill({ response, json: { ...(await response.json()), expires_in: 1, ext_expires_in: 1 } });
    });
    await page.goto(`${origin}/steno/people`);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("button", { name: "Sofia Lindqvist" }).click();
    await page.getByRole("table").waitFor();
    assert.deepEqual(new Set(grants), new Set(["authorization_code", "refresh_token"]));
    assertQuiet(seen);
    grants.length = 4;
    await page.getByRole("link", { name: "Conversations" }).click();
    await page.getByRole("heading", { name: "Your sign-in has ended" }).waitFor();
    assert.equal(page.frames().length, 1);
    await context.close();
  });

  test("signing out forgets the sign-in", async () => {
    const { page, context, seen } = await signedIn("Sofia Lindqvist");
    await page.getByRole("button", { name: "Sofia Lindqvist" }).click();
    await page.getByRole("menuitem", { name: "Sign out" }).waitFor();
    await assertAccessible(page, "menu");
    await page.getByRole("menuitem", { name: "Sign out" }).click();
    await page.getByRole("heading", { name: "Sign in to Steno" }).waitFor();
    await page.goto(origin + conversation(story.desk));
    await page.getByRole("heading", { name: "Sign in to Steno" }).waitFor();
    assertQuiet(seen);
    await context.close();
  });

  test("everything is reached by keyboard: list, conversation, earlier versions and back", async () => {
    const { page, context } = await signedIn("Sofia Lindqvist");
    await rows(page).nth(50).waitFor();
    const tabTo = async (role, name) => {
      for (let i = 0; i < 80; i++) {
        await page.keyboard.press("Tab");
        if (await page.getByRole(role, { name }).evaluateAll((all) => all.includes(document.activeElement))) return;
      }
      assert.fail(`no way to ${role} ${name} by Tab`);
    };
    await page.evaluate(() => document.activeElement?.blur());
    await tabTo("link", "Skip to content");
    await page.keyboard.press("Enter");
    await tabTo("link", "Grace Kim, Amara Okafor, Chiara Rossi");
    await page.keyboard.press("Enter");
    await page.getByRole("region", { name: "Messages" }).waitFor();
    assert.equal(await page.evaluate(() => document.activeElement.id), "main");
    await tabTo("button", "1 earlier version");
    await page.keyboard.press("Space");
    await page.getByText("As of").first().waitFor();
    await page.goBack();
    await rows(page).nth(50).waitFor();
    await context.close();
  });

  test("pages reflow at 320 px, in dark and in forced colors", async () => {
    const { page, context, seen } = await signedIn("Omar Haddad", { viewport: { width: 320, height: 640 }, colorScheme: "dark", reducedMotion: "reduce" });
    for (const [path, name] of [["/steno/", "list"], [conversation(story.desk), "conversation"], [conversation(story.hostile), "hostile"], ["/steno/people", "people"], ["/steno/trail", "trail"]]) {
      await page.goto(origin + path);
      await page.locator("main :is(table, article)").first().waitFor();
      const width = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(width <= 320, `${name} is ${width} px wide`);
      await assertAccessible(page, `${name}, dark, narrow`);
      await shot(page, `${name}-narrow-dark`);
    }
    await page.setViewportSize({ width: 1280, height: 900 });
    for (const scheme of ["dark", "light"]) {
      await page.emulateMedia({ colorScheme: scheme, forcedColors: scheme === "light" ? "active" : "none" });
      await page.goto(origin + conversation(story.desk));
      await page.getByRole("article").first().waitFor();
      await assertAccessible(page, scheme);
      await shot(page, scheme === "dark" ? "conversation-dark" : "conversation-forced-colors");
    }
    assertQuiet(seen);
    await context.close();
  });
});
