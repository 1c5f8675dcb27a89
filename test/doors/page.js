// page.js URL CHROMIUM SCREENSHOT - the page, as somebody uses it.
import {chromium} from "playwright-core";
import {ok, done} from "./ok.js";

const [url, executablePath, screenshot] = process.argv.slice(2);
const browser = await chromium.launch({executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]});
const page = await browser.newPage({viewport: {width: 1000, height: 760}});
const faults = [];
page.on("console", m => { if (m.type() === "error" && !/401/.test(m.text())) faults.push(m.text()); });
page.on("pageerror", e => faults.push(String(e)));

await page.goto(url + "/");
await page.getByLabel("Role").fill("al");
await page.getByLabel("Password").fill("wrong");
await page.getByRole("button", {name: "Sign in"}).click();
await page.getByText("password authentication failed").waitFor();
ok(true, "a wrong password is told");
await page.getByLabel("Role").fill("al");
await page.getByLabel("Password").fill("secret");
await page.keyboard.press("Enter");
await page.getByLabel("Your message").waitFor();
ok(true, "a role signs in, with the keyboard");

await page.getByLabel("Your message").fill("What is 47 + 35?");
await page.getByRole("button", {name: "Send"}).click();
await page.getByText("tokens read").waitFor({timeout: 60000});
const answer = page.locator(".turn.assistant").first();
await answer.getByText("82", {exact: true}).waitFor();
ok(true, "a reply streams in");
ok(!(await answer.locator("details").evaluate(d => d.open)), "its reasoning folds away");
ok(/7 \+ 5/.test(await answer.locator("details .body").textContent()), "and is there");
await answer.locator("summary").click();
ok(await answer.locator("details .body").isVisible(), "and unfolds");
if (screenshot) await page.screenshot({path: screenshot});

// A reply and a row that try to be markup.
await page.route("**/v1/chat/completions", route => route.fulfill({status: 200, contentType: "text/event-stream",
  body: `data: ${JSON.stringify({choices: [{index: 0, delta: {content: "<img src=x onerror='window.hurt=1'><script>window.hurt=1</script>"}}]})}\n\ndata: [DONE]\n\n`}));
await page.getByLabel("Your message").fill("<b onmouseover='window.hurt=1'>bold</b>");
await page.keyboard.press("Control+Enter");
await page.getByText("<img src=x").waitFor();
ok(await page.evaluate(() => window.hurt === undefined && document.querySelector(".turn img, .turn b, .turn script") === null), "markup is text");
await page.unroute("**/v1/chat/completions");

// A reply that takes for as long as it is looked at.
await page.route("**/v1/chat/completions", () => {});
await page.getByLabel("Your message").fill("What can you do?");
await page.getByRole("button", {name: "Send"}).click();
await page.getByRole("button", {name: "Stop"}).click();
await page.getByText("Stopped.", {exact: true}).first().waitFor();
ok(true, "stop stops");
ok(await page.locator("#said").evaluate(s => s.textContent === "Stopped." && getComputedStyle(s).display !== "none"), "and is said");

// Another view while a reply is written.
await page.getByLabel("Your message").fill("What can you do?");
await page.getByRole("button", {name: "Send"}).click();
await page.getByRole("tab", {name: "Usage"}).click();
await page.getByRole("heading", {name: "Bill"}).waitFor();
await page.getByRole("tab", {name: "Conversation"}).click();
await page.getByRole("button", {name: "Stop"}).click();
await page.locator(".turn.assistant").nth(3).getByText("Stopped.").waitFor();
ok(true, "tabs open while a reply is written, which goes on");
await page.unroute("**/v1/chat/completions");

// What is made anew keeps the focus. All that is read is one JSON text, however long it takes.
const accepted = new Set();
await page.route("**/mcp", async route => {
  accepted.add(await route.request().headerValue("accept"));
  const answer = await (await route.fetch()).json();
  if (/jobs/.test(route.request().postData())) answer.result.contents[0].text = JSON.stringify({rows: [8, 7].map(id => ({id, state: "pending", attempts: 0, prompt: String(Math.random())}))});
  await route.fulfill({json: answer});
});
await page.getByRole("tab", {name: "Jobs"}).click();
await page.getByRole("button", {name: "Cancel job 7"}).focus();
const drawn = await page.locator("main").textContent();
await page.waitForFunction(text => document.querySelector("main").textContent !== text, drawn, {timeout: 20000});
ok(await page.evaluate(() => document.activeElement.getAttribute("aria-label")) === "Cancel job 7", "a view that is made anew keeps the focus");
ok([...accepted].join() === "application/json", "answers that are read at once come at once", [...accepted]);
await page.unroute("**/mcp");

// What runs, as a bar while its prompt is read.
await page.route("**/mcp", async route => {
  const answer = await (await route.fetch()).json();
  if (/activity/.test(route.request().postData())) answer.result.contents[0].text = JSON.stringify({rows: [
    {request: 1, user: "al", function: "generate", state: "prefill", prompt_tokens: 200, prefilled: 50, generated: 0, prompt: "<b>x</b>"},
    {request: 2, user: "al", function: "generate", state: "decode", prompt_tokens: 10, prefilled: 10, generated: 7, prompt: "y"}]});
  await route.fulfill({json: answer});
});
await page.getByRole("tab", {name: "Activity"}).click();
await page.getByText("7 written").waitFor();
ok(await page.getByLabel("tokens read").evaluate(p => p.value / p.max) === 0.25, "what runs has a bar");
await page.unroute("**/mcp");

// A training, whose texts are those of test/t/063_gateway_clients.pl.
await page.getByRole("tab", {name: "Trainings"}).click();
await page.getByRole("button", {name: "<img src=x"}).click();
const curve = page.getByRole("img", {name: "cispo, step 3 of 3, done"});
await curve.waitFor();
ok(await curve.locator("polyline").evaluate(l => l.points.length === 3 && l.points[0].y > l.points[2].y), "its curve is drawn");
ok(await curve.locator("circle").count() === 2, "held-out rows are points");
await page.getByText("<script>window.hurt=1</script> of step 3").first().waitFor();
ok(true, "with its newest answers");
await page.getByLabel("of step").selectOption("1");
await page.getByText("<script>window.hurt=1</script> of step 1").first().waitFor();
await page.locator("details", {hasText: "<i>why</i>"}).locator("summary").click();
await page.getByText("<i>why</i>").waitFor();
ok(await page.getByText("of step 3", {exact: false}).count() === 0, "and those of another step");
await page.waitForTimeout(6000);
ok(await page.getByText("<i>why</i>").isVisible(), "what is unfolded stays so");
ok(await page.evaluate(() => window.hurt === undefined && document.querySelector("main img, main b, main i, main script") === null), "none of it is markup");

for (const [tab, text] of [["Activity", "m1-nano"], ["Jobs", "Annotators"], ["Usage", "complete"]]) {
  await page.getByRole("tab", {name: tab}).click();
  await page.getByText(text).first().waitFor();
  ok(true, `${tab} is shown`);
}
await page.getByRole("tab", {name: "Usage"}).press("ArrowLeft");
ok(await page.evaluate(() => document.activeElement.textContent) === "Trainings", "arrows move among the tabs");
await page.emulateMedia({colorScheme: "dark"});
ok(await page.evaluate(() => getComputedStyle(document.body).backgroundColor) === "rgb(20, 23, 26)", "dark where that is wanted");
ok(await page.evaluate(() => { const s = document.createElement("script"); s.textContent = "window.hurt = 1"; document.body.append(s); return window.hurt === undefined; }), "no other script runs");
await page.getByRole("button", {name: "Sign out"}).click();
await page.getByLabel("Password").waitFor();
ok(faults.filter(f => !/Content Security Policy/.test(f)).length === 0, "nothing went wrong in the page", faults);
await browser.close();
done();
