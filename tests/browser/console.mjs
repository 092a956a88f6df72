// One operator's session in a real browser: console.mjs ADDRESS TOKEN CHROMIUM SCREENSHOT.
// Prints one line per step; any failure ends with code 1. Waits for conditions only.
import { chromium } from "playwright-core";

const [address, token, executablePath, screenshot] = process.argv.slice(2);
const LIMIT = 40_000;
const browser = await chromium.launch({
  executablePath,
  args: [
    "--headless=new", "--no-sandbox", "--enable-unsafe-swiftshader", "--use-gl=angle", "--use-angle=swiftshader",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
    "--autoplay-policy=no-user-gesture-required",
  ],
});
const page = await browser.newPage({ viewport: { width: 1600, height: 900 }, locale: "en-US" });
page.setDefaultTimeout(LIMIT);
const complaints = [];
page.on("console", (message) => {
  if (message.type() !== "error") return;
  // A wrong token on purpose, a stream not published yet, a session already over: answers, not faults.
  const { url } = message.location();
  const expected = /status of 401/.test(message.text()) || (/status of 404/.test(message.text()) && /\/whep(\/|$)/.test(url));
  if (!expected) complaints.push(`${message.text()} ${url}`);
});
page.on("pageerror", (fault) => complaints.push(String(fault)));
const foreign = [];
page.on("request", (request) => {
  const url = request.url();
  if (!url.startsWith(address) && !/^(data|blob):/.test(url)) foreign.push(url);
});
// Statistics of every connection the console makes.
await page.addInitScript(() => {
  const Native = window.RTCPeerConnection;
  window.testPeers = [];
  window.RTCPeerConnection = class extends Native {
    constructor(...args) {
      super(...args);
      window.testPeers.push(this);
    }
  };
});
const byId = (id) => page.getByTestId(id);

const framesDecoded = () =>
  page.evaluate(async () => {
    let frames = 0;
    for (const peer of window.testPeers) {
      if (peer.connectionState !== "connected") continue;
      for (const stat of (await peer.getStats()).values()) {
        if (stat.type === "inbound-rtp" && stat.kind === "video") frames = Math.max(frames, stat.framesDecoded ?? 0);
      }
    }
    return frames;
  });

async function until(what, look) {
  const deadline = Date.now() + LIMIT;
  for (;;) {
    const value = await look();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`waited ${LIMIT} ms in vain: ${what}`);
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(done)));
  }
}

async function plays(device) {
  await byId(`device-row-${device}`).click();
  const video = byId("video").first();
  await video.waitFor();
  await until(`${device}: frames are decoded`, async () => (await framesDecoded()) > 5);
  const at = await video.evaluate((element) => element.currentTime);
  await until(`${device}: currentTime advances`, () => video.evaluate((element, from) => element.currentTime > from + 1, at));
  console.log(`plays ${device}`);
}

try {
  await page.goto(address);
  await byId("login-token").fill("wrong");
  await byId("login-submit").click();
  await until("a wrong token is refused", async () => (await byId("login-token").isVisible()) && (await page.getByText(/token|令牌/i).count()) > 0);
  await byId("login-token").fill(token);
  await byId("login-submit").click();
  await byId("feed-state").waitFor();
  console.log("logged in");

  const where = () =>
    page.evaluate(() => {
      const devices = window.kerbside.store.devices ?? window.kerbside.store.state?.devices;
      const device = devices.get ? devices.get("ev-01") : devices["ev-01"];
      return device?.position ? [device.position.lat, device.position.lon] : null;
    });
  const before = await until("ev-01 has a position", where);
  await until("ev-01 moves", async () => {
    const now = await where();
    return now && (now[0] !== before[0] || now[1] !== before[1]);
  });
  console.log("moves ev-01");

  await plays("bc-01");
  await plays("uav-01");

  const delivered = page.locator('[data-testid^="event-row-"] [data-delivery-joint="delivered"], [data-testid^="event-row-"][data-delivery-joint="delivered"]');
  await delivered.first().waitFor();
  console.log("delivered");

  const text = await page.locator("body").innerText();
  await byId("lang-switch").click();
  await until("the language changes", async () => (await page.locator("body").innerText()) !== text && /[\u4e00-\u9fff]/.test(await page.locator("body").innerText()));
  console.log("language switched");

  await page.screenshot({ path: screenshot });
  if (foreign.length) throw new Error(`the console asks other servers: ${foreign.slice(0, 5).join(", ")}`);
  if (complaints.length) throw new Error(`the browser complains: ${complaints.slice(0, 5).join(" | ")}`);
} catch (fault) {
  await page.screenshot({ path: screenshot }).catch(() => {});
  console.error(String(fault), complaints.slice(0, 10));
  process.exitCode = 1;
} finally {
  await browser.close();
}
