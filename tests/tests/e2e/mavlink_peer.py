"""A drone that we did not write: pymavlink, over UDP, five times a second until it is killed.

mavlink_peer.py PORT LATITUDE KEY: KEY is 64 hexadecimal digits, or "-" for unsigned frames. Prints each position's frame.
"""

import socket
import sys
import time

from pymavlink.dialects.v20 import common as m

port, lat, key = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
mav = m.MAVLink(None, srcSystem=1, srcComponent=1)
if key != "-":
    mav.signing.secret_key = bytes.fromhex(key)
    mav.signing.link_id = 3
    mav.signing.timestamp = int((time.time() - 1420070400) * 100000)
    mav.signing.sign_outgoing = True
started = time.monotonic()
north = int(lat * 1e7)
while True:
    boot = int((time.monotonic() - started) * 1000) + 60000
    for message in [
        m.MAVLink_heartbeat_message(2, 12, 209, 0x04040000, 4, 3),
        m.MAVLink_system_time_message(int(time.time() * 1e6), boot),
        m.MAVLink_gps_raw_int_message(0, 3, north, 1127500000, 812345, 80, 120, 500, 0, 14, 792345, 1500, 2500, 300, 0, 0),
        m.MAVLink_battery_status_message(0, 0, 0, 2530, [4150, 4148, 4151] + [65535] * 7, -1, -1, -1, 87),
        m.MAVLink_radio_status_message(1, 2, 3, 4, 5, 6, 7),
    ]:
        sock.sendto(message.pack(mav), ("127.0.0.1", port))
    position = m.MAVLink_global_position_int_message(boot, north, 1127500000, 812345, 60000, 150, -75, -20, 9000)
    frame = position.pack(mav)
    sock.sendto(frame, ("127.0.0.1", port))
    print(frame.hex(), flush=True)
    time.sleep(0.2)
