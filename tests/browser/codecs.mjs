// Codecs in a real browser: codecs.mjs ADDRESS TOKEN PASSWORD CHROMIUM; bc-01 publishes b (B-frames), h265, and sound
// (H.264 with AAC); the browser itself publishes av1 and plays it back. Prints one line per step; a failure ends with 1.
import { chromium } from "playwright-core";

const [address, token, password, executablePath] = process.argv.slice(2);
const browser = await chromium.launch({
  executablePath,
  args: [
    "--headless=new", "--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--autoplay-policy=no-user-gesture-required",
  ],
});
const page = await browser.newPage();
await page.goto(`${address}/healthz`);
await page.evaluate(() => {
  const LIMIT = 40_000;
  const post = (path, bearer, sdp) =>
    fetch(path, { method: "POST", headers: { "Content-Type": "application/sdp", Authorization: `Bearer ${bearer}` }, body: sdp });
  window.until = async (what, look) => {
    const deadline = Date.now() + LIMIT;
    for (;;) {
      const value = await look();
      if (value) return value;
      if (Date.now() > deadline) throw new Error(`waited ${LIMIT} ms in vain: ${what}`);
      await new Promise((done) => requestAnimationFrame(done));
    }
  };
  const stats = async (pc, type) => {
    for (const stat of (await pc.getStats()).values()) if (stat.type === type && stat.kind === "video") return stat;
    return {};
  };
  // The answer's status and text if it is refused; otherwise decodes so many frames and gives the statistics.
  window.play = async (stream, bearer, frames) => {
    const pc = new RTCPeerConnection();
    const video = document.createElement("video");
    Object.assign(video, { muted: true, autoplay: true });
    document.body.append(video);
    pc.ontrack = ({ track }) => { if (track.kind === "video") video.srcObject = new MediaStream([track]); };
    for (const kind of ["video", "audio"]) pc.addTransceiver(kind, { direction: "recvonly" });
    await pc.setLocalDescription(await pc.createOffer());
    const answer = await post(`/${stream}/whep`, bearer, pc.localDescription.sdp);
    const text = await answer.text();
    if (!answer.ok) return { status: answer.status, text };
    await pc.setRemoteDescription({ type: "answer", sdp: text });
    await until(`${stream}: ${frames} frames`, async () => ((await stats(pc, "inbound-rtp")).framesDecoded ?? 0) >= frames);
    await until(`${stream}: shown`, () => video.currentTime > 1 && video.videoWidth > 0);
    const { framesReceived, framesDecoded, framesDropped, pliCount } = await stats(pc, "inbound-rtp");
    return { status: answer.status, framesReceived, framesDecoded, framesDropped, pliCount };
  };
  window.publishAv1 = async (stream, bearer) => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 320, height: 180 });
    document.body.append(canvas);
    const paint = canvas.getContext("2d");
    const draw = (now) => {
      paint.fillStyle = `hsl(${(now / 20) % 360} 80% 50%)`;
      paint.fillRect(0, 0, 320, 180);
      requestAnimationFrame(draw);
    };
    requestAnimationFrame(draw);
    const pc = (window.publisher = new RTCPeerConnection());
    const sender = pc.addTransceiver(canvas.captureStream(15).getVideoTracks()[0], { direction: "sendonly" });
    const codecs = RTCRtpSender.getCapabilities("video").codecs.filter((c) => c.mimeType === "video/AV1");
    sender.setCodecPreferences(codecs);
    await pc.setLocalDescription(await pc.createOffer());
    const answer = await post(`/${stream}/whip`, bearer, pc.localDescription.sdp);
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${answer.status} ${text}`);
    await pc.setRemoteDescription({ type: "answer", sdp: text });
    await until("AV1 is sent", async () => ((await stats(pc, "outbound-rtp")).framesEncoded ?? 0) > 5);
  };
});

const fail = (what, got) => { throw new Error(`${what}: ${JSON.stringify(got)}`); };
try {
  const b = await page.evaluate((t) => play("bc-01/b", t, 25), token);
  // Each frame that its decoder cannot take would make it ask for a key frame (10 of 202 decoded, 5 requests a second, when
  // B-frames are sent). What a busy machine drops after decoding says nothing.
  if (b.pliCount > 2 || b.framesDecoded < b.framesReceived / 2) fail("B-frames", b);
  console.log("plays bc-01/b", JSON.stringify(b));
  const h265 = await page.evaluate((t) => play("bc-01/h265", t, 25), token);
  if (h265.status === 406 && /carries H265 .*AAC; the offer takes .*H264/.test(h265.text)) console.log("refused bc-01/h265", h265.text);
  else if (h265.status === 201) console.log("refused bc-01/h265: not at all, this browser plays it");
  else fail("H.265", h265);
  const sound = await page.evaluate((t) => play("bc-01/sound", t, 25), token);
  if (sound.status !== 201) fail("H.264 with AAC", sound);
  console.log("plays bc-01/sound without its AAC");
  await page.evaluate((p) => publishAv1("bc-01/av1", p), password);
  console.log("publishes AV1");
  const av1 = await page.evaluate((t) => play("bc-01/av1", t, 25), token);
  if (av1.status !== 201 || av1.framesDecoded < av1.framesReceived / 2) fail("AV1", av1);
  console.log("plays bc-01/av1", JSON.stringify(av1));
} catch (fault) {
  console.error(String(fault));
  process.exitCode = 1;
} finally {
  await browser.close();
}
