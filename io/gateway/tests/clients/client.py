"""The story with the Python package websockets: BASE is in the environment. It checks no signature: Python has no Ed25519."""

import json
import os
import urllib.request

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

BASE = os.environ["BASE"]


def token():
    with urllib.request.urlopen(f"{BASE}/api/auth/csrf-token?purpose=ws") as answer:
        return json.load(answer)["token"]


def enter(names, one):
    return connect(BASE.replace("http", "ws") + "/version/ws", subprotocols=[*names, f"tes-token.{one}"], proxy=None)


def ask(session, **message):
    session.send(json.dumps(message))
    return session.recv()


def version(text):
    entities = json.loads(text)["entities"]
    return next(entity for entity in entities if entity["id"] == "component:sample")["currentVersion"]


first = token()
reader, bumper = enter(["tes-ui-v2", "tes-ui-v1"], first), enter(["tes-ui-v1"], token())
pong = ask(reader, type="ping")
before = version(ask(reader, type="refresh"))
answer = json.loads(ask(bumper, type="bump", entityId="component:sample", cascade=False, crypto="ed25519"))
change = json.loads(reader.recv())
after = version(ask(reader, type="refresh"))
# Fragments, and a text in a binary message.
bumper.send([b'{"type"', b':"ping"}'])
fragments = bumper.recv()
round_trip = bumper.ping().wait(60)
try:
    enter(["tes-ui-v1"], first)
    replayed = "opened"
except InvalidStatus as refusal:
    replayed = "refused" if refusal.response.status_code == 403 else str(refusal)
bumper.close(1000)
try:
    bumper.recv()
except ConnectionClosed as end:
    closed = {"code": end.rcvd.code, "clean": end.rcvd_then_sent is not None}
print(
    json.dumps(
        {
            "protocols": [reader.subprotocol, bumper.subprotocol],
            "pong": pong,
            "before": before,
            "change": {"type": change["type"], "to": change["changes"][0]["newVersion"]},
            "after": after,
            "algorithm": answer["data"]["alg"],
            "fragments": fragments == pong and round_trip,
            "replayed": replayed,
            "closed": closed,
        }
    )
)
