"""Drives an agent with serfclient, a client that was written for Serf: arguments are the agent's RPC
port, the gossip address of a cluster to join with the members n2 and n3, and the process of n3, which is killed."""

import os
import signal
import sys
import threading
import time

from serfclient.client import SerfClient

port, peer, victim = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])


def connect():
    return SerfClient(host="127.0.0.1", port=port)


def members(client):
    return {member["Name"]: member for member in client.members().body["Members"]}


def until(what, probe):
    deadline = time.monotonic() + 60
    while not probe():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


client = connect()
assert client.join(peer).head["Error"] == ""
assert client.join([peer]).body == {"Num": 1}
# Whoever joins later is not told of one that is suspected.
until("n3 is known", lambda: "n3" in members(client))
os.kill(victim, signal.SIGKILL)
until("n3 has failed", lambda: members(client).get("n3", {}).get("Status") == "failed")

own = members(client)["n1"]
assert own["Tags"] == {"role": "web"}, own
assert own["Addr"] == b"\x7f\0\0\1" and own["Status"] == "alive", own
web = client.members(status="alive", tags={"role": "web"}).body["Members"]
assert [member["Name"] for member in web] == ["n1"], web

stats = client.stats().body
assert stats["agent"] == {"name": "n1"}, stats
assert stats["serf"]["members"] == "3" and stats["serf"]["failed"] == "1", stats

seen, opened = [], threading.Event()


def listen():
    stream = connect().stream("user:deploy")
    assert stream.head["Error"] == "", stream
    opened.set()
    for event in stream.body:
        seen.append(event.body)
        if len(seen) == 2:
            return


listener = threading.Thread(target=listen, daemon=True)
listener.start()
assert opened.wait(30), "the stream is not opened"
assert client.event("other", "x", coalesce=False).head["Error"] == ""
assert client.event("deploy", "v1", coalesce=False).head["Error"] == ""
assert client.event("deploy", "v2", coalesce=False).head["Error"] == ""
listener.join(30)
assert [event["Payload"] for event in seen] == [b"v1", b"v2"], seen
assert all(event["Event"] == "user" and event["Name"] == "deploy" for event in seen), seen

assert client.force_leave("n3").head["Error"] == ""
until("n3 has left", lambda: members(client)["n3"]["Status"] == "left")
print("all is well")
