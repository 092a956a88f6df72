"""An MQTT client that is not ours (paho-mqtt) in the situations that interoperability suites look at.

    paho_peer.py PORT DEVICE PASSWORD VERSION SITUATION

VERSION is 3 or 5. Ends with 0 when the gateway behaved, else with a traceback. No threads: the network is looked at only while
something is waited for.
"""

import json
import sys
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PORT, DEVICE, PASSWORD, VERSION, SITUATION = sys.argv[1:6]
V5 = VERSION == "5"
LIMIT = 15
REPORT = f"kerbside/v1/{DEVICE}/report"
DOWN = f"kerbside/v1/{DEVICE}/down/#"
# The gateway answers here to what is asked on STATUS: a message down that a device can order for itself.
STATUS = f"sys/product/{DEVICE}/status"
REPLIES = f"sys/product/{DEVICE}/status_reply"


def fix(lat):
    return json.dumps({"position": {"lat": lat, "lon": 112.75}})


def ask(tid):
    data = {"domain": "3", "type": 1, "sub_type": 0, "sub_devices": []}
    return json.dumps({"tid": tid, "bid": "b", "method": "update_topo", "timestamp": 1795219200000, "data": data})


def props(kind, **values):
    made = Properties(kind)
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Device:
    """One connection; everything that the gateway says is kept."""

    def __init__(self, client_id="paho", clean=True, manual_ack=False):
        protocol = mqtt.MQTTv5 if V5 else mqtt.MQTTv311
        self.clean = clean
        how = {} if V5 else {"clean_session": clean}
        self.c = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=protocol, manual_ack=manual_ack, **how)
        self.c.username_pw_set(DEVICE, PASSWORD)
        self.connack = self.ended = None
        self.messages, self.acks, self.grants, self.unsubscribed = [], {}, {}, {}
        self.c.on_connect = lambda c, u, flags, code, p: setattr(self, "connack", (flags, code, p))
        self.c.on_disconnect = lambda c, u, flags, code, p: setattr(self, "ended", (code, p))
        self.c.on_message = lambda c, u, m: self.messages.append(m)
        self.c.on_publish = lambda c, u, mid, code, p: self.acks.__setitem__(mid, (code, p))
        self.c.on_subscribe = lambda c, u, mid, codes, p: self.grants.__setitem__(mid, (codes, p))
        self.c.on_unsubscribe = lambda c, u, mid, codes, p: self.unsubscribed.__setitem__(mid, codes)

    def until(self, what, condition):
        end = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < end, f"waited in vain: {what}; {self.__dict__}"
            self.c.loop(0.05)

    def connect(self, keepalive=60, accepted=True, **properties):
        how = {}
        if V5:
            how = {"clean_start": self.clean, "properties": props(PacketTypes.CONNECT, **properties)}
        self.connack = self.ended = None
        self.c.connect("127.0.0.1", int(PORT), keepalive, **how)
        self.until("CONNACK", lambda: self.connack)
        flags, code, p = self.connack
        assert (code.value == 0) == accepted, code
        self.present, self.code, self.said = flags.session_present, code, p
        return self

    def publish(self, topic, payload, qos=1, retain=False, **properties):
        how = {"properties": props(PacketTypes.PUBLISH, **properties)} if V5 else {}
        mid = self.c.publish(topic, payload, qos, retain, **how).mid
        self.until("the message is sent", lambda: mid in self.acks)
        return self.acks[mid]

    def ask(self, tid):
        """Orders a message down; does not wait for its acknowledgement."""
        self.c.publish(STATUS, ask(tid), 1)

    def subscribe(self, filter, qos=1, identifier=None):
        if V5:
            more = {"SubscriptionIdentifier": identifier} if identifier else {}
            p = props(PacketTypes.SUBSCRIBE, **more)
            mid = self.c.subscribe(filter, options=SubscribeOptions(qos=qos), properties=p)[1]
        else:
            mid = self.c.subscribe(filter, qos)[1]
        self.until("SUBACK", lambda: mid in self.grants)
        codes, p = self.grants[mid]
        return codes[0].value, p

    def unsubscribe(self, filter):
        mid = self.c.unsubscribe(filter)[1]
        self.until("UNSUBACK", lambda: mid in self.unsubscribed)
        return [code.value for code in self.unsubscribed[mid]]

    def alive(self):
        assert self.publish(REPORT, fix(37.7))[0].value == 0

    def breaks(self):
        """The radio is gone: no DISCONNECT."""
        self.c._sock_close()

    def leaves(self, **properties):
        how = {"properties": props(PacketTypes.DISCONNECT, **properties)} if V5 else {}
        self.c.disconnect(**how)
        self.until("the connection is closed", lambda: self.ended)


def every_quality_of_service():
    d = Device().connect()
    for n, qos in enumerate([0, 1, 2]):
        code, _ = d.publish(REPORT, fix(37.70 + n * 0.001), qos, retain=qos == 1)
        assert code.value == 0, code
    d.leaves()


def many_at_once():
    d = Device().connect()
    mids = [d.c.publish(REPORT, fix(37.7 + n * 1e-5), 1 + n % 2).mid for n in range(300)]
    d.until("300 acknowledgements", lambda: all(m in d.acks for m in mids))
    assert all(d.acks[m][0].value == 0 for m in mids)


def client_ids():
    d = Device("").connect()
    if V5:
        assert len(d.said.AssignedClientIdentifier) == 32
        Device("", clean=False).connect()
    else:
        # paho itself does not send such a CONNECT: see the raw one of the admission tests.
        d.alive()
    Device("x" * 200).connect(accepted=False)


def wrong_password():
    d = Device()
    d.c.username_pw_set(DEVICE, "wrong")
    d.connect(accepted=False)
    if V5:
        assert d.code.value == 0x86 and "device id" in d.said.ReasonString


def take_over():
    one, two = Device("same").connect(), Device("same").connect()
    one.until("the first is closed", lambda: one.ended)
    if V5:
        assert one.ended[0].value == 0x8E and "client id" in one.ended[1].ReasonString
    two.alive()


def subscriptions():
    d = Device().connect()
    for qos in [0, 1, 2]:
        assert d.subscribe(DOWN, qos)[0] == qos
    refused = {"#": 0x87, f"kerbside/v1/other/down/#": 0x87, "$SYS/#": 0x87, f"$share/g/{DOWN}": 0x9E}
    for filter, code in refused.items():
        got, p = d.subscribe(filter)
        assert got == (code if V5 else 0x80), (filter, got)
        if V5:
            assert p.ReasonString
    codes = d.unsubscribe(DOWN)
    again = d.unsubscribe(DOWN)
    if V5:
        assert (codes, again) == ([0], [0x11])
    d.alive()


def answers_down():
    for qos in [0, 1, 2]:
        d = Device(f"q{qos}").connect()
        assert d.subscribe(REPLIES, qos)[0] == qos
        d.ask("t1")
        d.until("the answer", lambda: d.messages)
        m = d.messages[0]
        assert m.topic == REPLIES and json.loads(m.payload)["tid"] == "t1"
        assert m.qos == min(qos, 1) and not m.retain
        d.unsubscribe(REPLIES)
        d.ask("t2")
        d.alive()
        assert len(d.messages) == 1, "not subscribed any more"
        d.leaves()


def redelivery():
    keep = {"SessionExpiryInterval": 600} if V5 else {}
    d = Device("kept", clean=False, manual_ack=True).connect(**keep)
    assert not d.present
    d.subscribe(REPLIES, 1)
    d.ask("t1")
    d.until("the answer", lambda: d.messages)
    assert not d.messages[0].dup
    d.breaks()
    d = Device("kept", clean=False).connect(**keep)
    assert d.present
    d.until("the answer once more", lambda: d.messages)
    assert d.messages[0].dup and json.loads(d.messages[0].payload)["tid"] == "t1"
    d.alive()
    d.breaks()
    d = Device("kept", clean=False).connect(**keep)
    d.alive()
    assert d.present and not d.messages, "acknowledged: not a third time"
    d.leaves()
    assert not Device("kept").connect().present, "clean start"


def session_expiry():
    d = Device("kept", clean=False).connect(SessionExpiryInterval=4_000_000)
    assert d.said.SessionExpiryInterval == 3600, "no longer than the gateway keeps it"
    d.subscribe(DOWN)
    d.leaves()
    d = Device("kept", clean=False).connect(SessionExpiryInterval=600)
    assert d.present
    d.leaves(SessionExpiryInterval=0)
    d = Device("kept", clean=False).connect()
    assert not d.present
    # Without an expiry it ends with the connection, and cannot be prolonged at the last moment.
    d.c.disconnect(properties=props(PacketTypes.DISCONNECT, SessionExpiryInterval=600))
    assert not Device("kept", clean=False).connect().present


def limits():
    d = Device().connect(keepalive=0)
    assert d.said.ServerKeepAlive == 1200
    assert d.said.ReceiveMaximum == 64 and d.said.TopicAliasMaximum == 16
    assert d.said.MaximumPacketSize == 262144
    assert d.said.SharedSubscriptionAvailable == 0 and d.said.SubscriptionIdentifierAvailable == 1
    d.c.publish(REPORT, b"x" * 10_000_000, 1)
    d.until("the connection is closed", lambda: d.ended)
    # Closed while it still sends: the reason may be lost on the way.
    assert d.ended[0].value in (0x95, 0x80), d.ended
    Device().connect().alive()


def what_the_client_takes():
    d = Device().connect(MaximumPacketSize=180)
    d.subscribe(REPLIES)
    d.ask("x" * 64)
    d.ask("small")
    d.until("the small answer", lambda: d.messages)
    assert [json.loads(m.payload)["tid"] for m in d.messages] == ["small"]
    d.leaves()
    d = Device().connect(MaximumPacketSize=40)
    assert d.subscribe("#")[1].json() == {}, "no room for words"
    d.leaves()
    d = Device(manual_ack=True).connect(ReceiveMaximum=1)
    d.subscribe(REPLIES)
    d.ask("one")
    d.ask("two")
    d.until("the first answer", lambda: d.messages)
    d.alive()
    assert len(d.messages) == 1, "the second waits for the acknowledgement of the first"
    d.c.ack(d.messages[0].mid, 1)
    d.until("the second answer", lambda: len(d.messages) == 2)


def topic_alias():
    d = Device().connect()
    assert d.publish(REPORT, fix(37.71), TopicAlias=16)[0].value == 0
    assert d.publish("", fix(37.72), TopicAlias=16)[0].value == 0
    d.c.publish(REPORT, fix(37.73), 1, properties=props(PacketTypes.PUBLISH, TopicAlias=17))
    d.until("the connection is closed", lambda: d.ended)
    assert d.ended[0].value == 0x94, d.ended


def foreign_topics():
    d = Device().connect()
    topic = "kerbside/v1/other/report"
    if V5:
        code, p = d.publish(topic, fix(1.0))
        assert code.value == 0x87 and "own device id" in p.ReasonString, code
        # paho releases a message that PUBREC refused, and tells of the answer to that.
        code, p = d.publish(topic, fix(1.0), 2)
        assert code.value == 0x92 and p.ReasonString, code
        d.alive()
        d = Device("quiet").connect(RequestProblemInformation=0)
        code, p = d.publish(topic, fix(1.0))
        assert code.value == 0x87 and not hasattr(p, "ReasonString")
    else:
        d.c.publish(topic, fix(1.0), 1)
        d.until("the connection is closed", lambda: d.ended)


def forbidden_will():
    d = Device()
    d.c.will_set("kerbside/v1/other/report", fix(1.0))
    d.connect(accepted=False)
    if V5:
        assert d.code.value == 0x87 and "will" in d.said.ReasonString


def will():
    """Breaks off: the test looks for what the will says, and that the device is gone."""
    d = Device()
    d.c.will_set(REPORT, json.dumps({"battery_pct": int(VERSION)}), 1, retain=True)
    d.connect().alive()
    d.breaks()


def properties():
    d = Device().connect(UserProperty=("a", "b"), RequestResponseInformation=1)
    code, _ = d.publish(
        REPORT,
        fix(37.7),
        PayloadFormatIndicator=1,
        MessageExpiryInterval=60,
        ContentType="application/json",
        ResponseTopic="some/where",
        CorrelationData=b"1",
        UserProperty=[("a", "1"), ("a", "2")],
    )
    assert code.value == 0
    d.subscribe(REPLIES, identifier=268_435_455)
    d.ask("t1")
    d.until("the answer", lambda: d.messages)
    assert d.messages[0].properties.SubscriptionIdentifier == [268_435_455]


def enhanced_authentication():
    d = Device().connect(accepted=False, AuthenticationMethod="SCRAM-SHA-1", AuthenticationData=b"x")
    assert d.code.value == 0x8C


globals()[SITUATION]()
