"""A WebRTC peer that is not ours (aiortc): publishes by WHIP or views by WHEP.

    aiortc_peer.py publish|view URL TOKEN

Says `state=…` at each change of the connection, and `frame=N WIDTHxHEIGHT` for each picture decoded (view). Ends when it is
killed, or with 1 when the gateway refuses.
"""

import asyncio
import sys
import urllib.error
import urllib.request

from aiortc import RTCPeerConnection, RTCRtpSender, RTCSessionDescription, VideoStreamTrack


def say(text):
    print(text, flush=True)


def post(url, token, sdp):
    headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, data=sdp.encode(), headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as fault:
        say(f"refused {fault.code} {fault.read().decode()}")
        sys.exit(1)


async def count(track):
    frames = 0
    while True:
        frame = await track.recv()
        frames += 1
        say(f"frame={frames} {frame.width}x{frame.height}")


async def main(what, url, token):
    peer = RTCPeerConnection()

    @peer.on("connectionstatechange")
    def changed():
        say(f"state={peer.connectionState}")

    tasks = []

    @peer.on("track")
    def track(medium):
        tasks.append(asyncio.ensure_future(count(medium)))

    if what == "publish":
        # Green pictures, 640x480, 30 a second.
        video = peer.addTransceiver(VideoStreamTrack(), direction="sendonly")
    else:
        video = peer.addTransceiver("video", direction="recvonly")
    codecs = RTCRtpSender.getCapabilities("video").codecs
    video.setCodecPreferences([c for c in codecs if c.mimeType in ("video/H264", "video/rtx")])
    await peer.setLocalDescription(await peer.createOffer())
    sdp = await asyncio.to_thread(post, url, token, peer.localDescription.sdp)
    await peer.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:4]))
