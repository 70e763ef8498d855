// Drives the status page in headless Chromium, as tests/integration/page.rs starts it:
//
//   node page.mjs <address of Signalbox> <folder with node_modules> <folder for screenshots>
//
// Once it has seen everything it asks for a restart of the server by the line `restart, please`.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";

const [address, modules, pictures] = process.argv.slice(2);
const require = createRequire(join(modules, "page.mjs"));
const { chromium } = require("playwright-core");
const axe = require("axe-core");

const LIMIT = 20_000;
const VIEWS = [
  ["desk, light", { width: 1280, height: 900 }, "light"],
  ["desk, dark", { width: 1280, height: 900 }, "dark"],
  ["phone, light", { width: 390, height: 844 }, "light"],
  ["phone, dark", { width: 390, height: 844 }, "dark"],
];

// A machine for tests may run as root, where Chromium has no sandbox; it opens nothing but our own page.
const options = { executablePath: process.env.SIGNALBOX_TEST_CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] };
const browser = await chromium.launch(options).catch((error) => {
  throw new Error(`Chromium cannot be started from ${options.executablePath}; tests/run installs it. ${error}`);
});
const page = await browser.newPage({ viewport: VIEWS[0][1] });
page.setDefaultTimeout(LIMIT);

const errors = [];
let is_away = false;
page.on("pageerror", (error) => errors.push(String(error)));
page.on("console", (message) => {
  // The browser itself says of each request that it found no server.
  const is_expected = is_away && message.text().includes("net::ERR_");
  if (["error", "warning"].includes(message.type()) && !is_expected) errors.push(message.text());
});
const strangers = [];
page.on("request", (request) => request.url().startsWith(`${address}/`) || strangers.push(request.url()));

const step = (what) => console.log(`page: ${what}`);
const state = () => page.locator("#state-text");
const answer = () => page.locator("#answer");

async function until(what, holds) {
  const begun = Date.now();
  while (!(await holds())) {
    if (Date.now() - begun > LIMIT) {
      await page.screenshot({ path: join(pictures, "failed.png"), fullPage: true });
      assert.fail(`waited in vain until ${what}; errors: ${errors.join("; ")}`);
    }
    await page.waitForTimeout(100);
  }
}

const says = (locator, words) => until(`${locator} says ${words}`, async () => (await locator.innerText()).includes(words));

/** Calls an endpoint, as an application does. */
async function call(endpoint, times) {
  const calls = Array.from({ length: times }, () =>
    fetch(`${address}/invocations`, { method: "POST", headers: { "content-type": "application/json", "x-endpoint": endpoint }, body: '{"inputs": ["a secret"]}' }));
  return (await Promise.all(calls)).map((answer) => answer.status);
}

step("shows live numbers");
await page.goto(address);
await says(state(), "Ready");
const echo = page.getByRole("article", { name: "Endpoint echo" });
await says(echo, "no requests of late");
assert.deepEqual(new Set(await call("echo", 40)), new Set([200]));
await until("the rate of the endpoint is shown", async () => /[1-9].*\/s, p50 .* p95 /.test(await echo.locator("header").innerText()));
const main = echo.getByRole("row", { name: /^main/ });
await says(main.locator("td.share"), "100 %");
await until("the plot has a sample", async () => /at most .*\/s/.test(await echo.locator("figure").first().innerText()));
await until("partitions are shown", async () => (await page.locator("#partition-rows tr").count()) === 4);

step("shows a fault with its reason, and nothing of the request");
assert.deepEqual(await call("broken", 1), [503]);
const faults = page.locator("#fault-rows");
await says(faults, "503 TEMPORARILY_UNAVAILABLE");
await says(faults, "broken / nowhere");
assert.ok(!(await page.content()).includes("a secret"));

step("sends a request, and says which route it took and why");
await page.getByRole("combobox", { name: "Endpoint" }).selectOption("echo");
await page.getByRole("textbox", { name: "Headers, one a line" }).fill("x-tier: gold");
await page.getByRole("textbox", { name: "Body" }).fill('{"inputs": [1]}');
await page.getByRole("button", { name: "Send" }).click();
await says(answer(), "Route gold: 200");
await says(answer(), "Its condition is the first that holds.");
await says(answer(), "request.headers.get('x-tier') == 'gold'");
await says(answer(), '"predictions"');
await page.getByRole("textbox", { name: "Headers, one a line" }).fill("");
await page.getByRole("button", { name: "Only show the route" }).click();
await says(answer(), "Route main");
await says(answer(), "does not hold");
await page.getByRole("textbox", { name: "Headers, one a line" }).fill("no colon");
await page.getByRole("button", { name: "Send" }).click();
await says(answer(), "a header is “name: value”");

step("asks before it acts");
const canary = page.getByRole("article", { name: "Endpoint careful" }).getByRole("row", { name: /^candidate/ });
await says(canary, "canary at 10 %, step 1 of 2");
const dialog = page.getByRole("dialog");
await canary.getByRole("button", { name: "Abort the canary candidate" }).click();
await says(dialog, "Abort the canary candidate of careful?");
assert.equal(await page.evaluate(() => document.activeElement.id), "confirm-no");
await page.keyboard.press("Escape");
await until("the dialog is closed", async () => !(await dialog.isVisible()));
await says(canary, "canary at 10 %");
await canary.getByRole("button", { name: "Abort the canary candidate" }).click();
await dialog.getByRole("button", { name: "Abort" }).click();
await says(canary, "canary taken back");
// The same by the keyboard alone.
await canary.getByRole("button", { name: "Restart the canary candidate" }).focus();
await page.keyboard.press("Enter");
await says(dialog, "Restart the canary candidate of careful?");
await page.keyboard.press("Tab");
await page.keyboard.press("Enter");
await says(canary, "canary at 10 %");

step("can be used by everybody");
await page.evaluate(() => window.scrollTo(0, 0));
await page.evaluate(axe.source);
for (const [view, size, scheme] of VIEWS) {
  await page.setViewportSize(size);
  await page.emulateMedia({ colorScheme: scheme });
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const shown = violations.map(({ id, impact, nodes }) => `${id} (${impact}): ${nodes.map((node) => node.target).join(", ")}`);
  const serious = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
  assert.equal(serious.length, 0, `${view}: ${shown.join("; ")}`);
  if (shown.length > 0) step(`${view}: ${shown.join("; ")}`);
  const excess = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(excess, 0, `${view}: the page scrolls sideways by ${excess} px`);
  await page.screenshot({ path: join(pictures, `${view.replace(", ", "-")}.png`), fullPage: true });
}
await page.setViewportSize(VIEWS[0][1]);
await page.reload();
await page.keyboard.press("Tab");
assert.equal(await page.evaluate(() => document.activeElement.className), "skip");

step("survives a restart of the server");
await says(state(), "Ready");
await page.getByRole("textbox", { name: "Body" }).fill("kept");
is_away = true;
console.log("restart, please");
await says(state(), "No answer since");
console.log("it is gone");
await until("the server is back", async () => (await state().innerText()) === "Ready");
is_away = false;
assert.equal(await page.getByRole("textbox", { name: "Body" }).inputValue(), "kept");
await says(echo, "no requests of late");
await call("echo", 10);
await until("the rate is shown again", async () => /[1-9].*\/s, p50/.test(await echo.locator("header").innerText()));

assert.deepEqual(errors, []);
assert.deepEqual(strangers, []);
await browser.close();
step("all is well");
