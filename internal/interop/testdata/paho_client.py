# A client with paho-mqtt: commands come in as lines of JSON, what happens goes out so. See driver_test.go.
import json
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

lock = threading.Lock()


def say(name, event, **more):
    with lock:
        print(json.dumps({"client": name, "event": event, **more}), flush=True)


def number(code):
    return code if isinstance(code, int) else code.value


def to_paho(kind, given):
    if given is None:
        return None
    p = Properties(kind)
    names = {"content_type": "ContentType", "response_topic": "ResponseTopic", "expiry": "MessageExpiryInterval",
             "alias": "TopicAlias", "delay": "WillDelayInterval"}
    for key, name in names.items():
        if given.get(key):
            setattr(p, name, given[key])
    if given.get("correlation"):
        p.CorrelationData = given["correlation"].encode()
    if given.get("text"):
        p.PayloadFormatIndicator = 1
    for pair in given.get("user") or []:
        p.UserProperty = tuple(pair)
    return p


def from_paho(p):
    out = {}
    for key, name in {"content_type": "ContentType", "response_topic": "ResponseTopic", "expiry": "MessageExpiryInterval",
                      "alias": "TopicAlias", "identifiers": "SubscriptionIdentifier"}.items():
        if hasattr(p, name):
            out[key] = getattr(p, name)
    if hasattr(p, "CorrelationData"):
        out["correlation"] = p.CorrelationData.decode()
    if hasattr(p, "PayloadFormatIndicator"):
        out["text"] = p.PayloadFormatIndicator == 1
    if hasattr(p, "UserProperty"):
        out["user"] = [list(pair) for pair in p.UserProperty]
    return out


class Client:
    def __init__(self, name, do):
        self.name, self.v5, self.aliases, self.qos = name, do["version"] == 5, {}, {}
        args = {"client_id": do["id"], "protocol": do["version"], "reconnect_on_failure": False}
        if hasattr(mqtt, "CallbackAPIVersion"):  # paho-mqtt 2
            args["callback_api_version"] = mqtt.CallbackAPIVersion.VERSION1
        if not self.v5:
            args["clean_session"] = do["clean"]
        c = self.c = mqtt.Client(**args)
        c.on_message = self.on_message
        c.on_connect = lambda c, u, flags, code, *_: say(
            name, "connected" if number(code) == 0 else "refused", code=number(code), present=bool(flags["session present"]))
        c.on_subscribe = lambda c, u, mid, codes, *_: say(name, "subscribed", codes=[number(q) for q in codes])
        c.on_publish = lambda c, u, mid: say(name, "published", code=0)
        c.on_disconnect = lambda c, u, code, *_: say(name, "disconnected", code=number(code))
        if do.get("user"):
            c.username_pw_set(do["user"], do["password"])
        if do.get("ca"):
            c.tls_set(do["ca"], do.get("cert") or None, do.get("key") or None)
        if w := do.get("will"):
            c.will_set(w["topic"], w["payload"], w["qos"], w["retain"], to_paho(PacketTypes.WILLMESSAGE, w.get("properties") if self.v5 else None))
        more = {}
        if self.v5:
            p = Properties(PacketTypes.CONNECT)
            if do.get("expiry"):
                p.SessionExpiryInterval = do["expiry"]
            if do.get("aliases"):
                p.TopicAliasMaximum = do["aliases"]
            more = {"clean_start": do["clean"], "properties": p}
        c.connect("127.0.0.1", do["port"], **more)
        c.loop_start()

    def on_message(self, c, u, m):
        properties = from_paho(m.properties) if self.v5 else {}
        topic = m.topic
        if alias := properties.get("alias"):  # paho leaves them to the program
            topic = self.aliases[alias] = topic or self.aliases[alias]
        say(self.name, "message", topic=topic, payload=m.payload.decode(), qos=m.qos, retain=bool(m.retain), properties=properties)

    def subscribe(self, do):
        if self.v5 and do.get("identifier"):
            p = Properties(PacketTypes.SUBSCRIBE)
            p.SubscriptionIdentifier = do["identifier"]
            self.c.subscribe(do["topic"], options=mqtt.SubscribeOptions(qos=do["qos"]), properties=p)
        else:
            self.c.subscribe(do["topic"], do["qos"])

    def publish(self, do):
        self.c.publish(do["topic"], do["payload"], do["qos"], do["retain"], to_paho(PacketTypes.PUBLISH, do.get("properties") if self.v5 else None))

    def disconnect(self, do):
        self.c.disconnect()


clients = {}
for line in sys.stdin:
    do = json.loads(line)
    if do["do"] == "connect":
        clients[do["client"]] = Client(do["client"], do)
    else:
        getattr(clients[do["client"]], do["do"])(do)
