#!/usr/bin/python3
"""One live H.264 camera over RTP in, any number of RTSP readers out: gst-rtsp-server with shared media.

gst_relay.py RTSP_PORT RTP_PORT: rtsp://127.0.0.1:RTSP_PORT/cam from RTP (payload type 96) to 127.0.0.1:RTP_PORT.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
    f"( udpsrc address=127.0.0.1 port={sys.argv[2]} buffer-size=2000000 "
    'caps="application/x-rtp,media=video,clock-rate=90000,encoding-name=H264,payload=96" '
    "! rtph264depay ! h264parse ! rtph264pay name=pay0 pt=96 mtu=1212 config-interval=-1 )"
)
factory.set_shared(True)
# The least it can do, as for the others: no queue of its own in front of a reader.
factory.set_latency(0)
server.get_mount_points().add_factory("/cam", factory)
server.attach(None)
GLib.MainLoop().run()
