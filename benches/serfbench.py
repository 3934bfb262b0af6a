#!/usr/bin/env python3
"""Side-by-side black-box benchmark of Serf-compatible agents.

Every agent is driven only through its command line and the Serf RPC protocol, so the same measurement
runs on any implementation:

    serfbench.py [-n 50] [--profile lan] [--encrypt] NAME=/path/to/binary [NAME=/path/to/binary ...]

benches/README.md explains the figures. Needs Linux (it reads /proc), Python 3.9 and msgpack.
"""
import argparse
import asyncio
import base64
import json
import os
import random
import statistics
import subprocess
import tempfile
import time

import msgpack

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
RPC_PORT_OFFSET = 5000
# Shown in place of a time when nobody received an event at all.
NEVER_S = 99


def memory_mb(pid, file, key):
    with open(f"/proc/{pid}/{file}") as lines:
        for line in lines:
            if line.startswith(key):
                return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/{pid}/{file} has no {key}")


def rss_mb(pid):
    return memory_mb(pid, "status", "VmRSS:")


def pss_mb(pid):
    return memory_mb(pid, "smaps_rollup", "Pss:")


def cpu_s(pid):
    """User and system time; fields 14 and 15, counted behind the name, which may contain anything."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def ms(seconds):
    return round(1000 * seconds)


def percentile(samples, share):
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def poll(done, timeout, interval):
    """Waits until `done()` or until the time is up; the caller looks at what has come."""
    end = time.perf_counter() + timeout
    while time.perf_counter() < end and not done():
        await asyncio.sleep(interval)


class Rpc:
    """One connection of a Serf RPC client; replies and stream records are matched by Seq."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.seq = 0
        self.waiting = {}  # Seq -> (future, whether a body follows the header)
        self.streams = {}  # Seq -> what takes the records
        self.accepted = set()  # the streams whose first reply has come
        self.task = asyncio.create_task(self.read())

    @classmethod
    async def connect(cls, port):
        rpc = cls(*await asyncio.open_connection("127.0.0.1", port))
        await rpc.call("handshake", {"Version": 1}, body=False)
        return rpc

    async def read(self):
        unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, unicode_errors="surrogateescape")
        body_of = None
        try:
            while data := await self.reader.read(65536):
                now = time.perf_counter()
                unpacker.feed(data)
                for value in unpacker:
                    if body_of is None:
                        body_of = self.take_header(value)
                    else:
                        self.take_body(body_of, value, now)
                        body_of = None
        except ConnectionError:
            pass

    def take_header(self, header):
        """Gives the Seq of the body that follows, or None when the header is all."""
        seq, error = header["Seq"], header.get("Error", "")
        if seq in self.accepted and not error:
            return seq
        future, has_body = self.waiting[seq]
        if has_body and not error:
            return seq
        del self.waiting[seq]
        if error:
            future.set_exception(RuntimeError(error))
            return None
        if seq in self.streams:
            self.accepted.add(seq)
        future.set_result(None)
        return None

    def take_body(self, seq, body, now):
        if seq in self.waiting:
            self.waiting.pop(seq)[0].set_result(body)
        else:
            self.streams[seq](now, body)

    async def call(self, command, request=None, body=True, on_record=None):
        self.seq += 1
        future = asyncio.get_running_loop().create_future()
        self.waiting[self.seq] = (future, body)
        if on_record:
            self.streams[self.seq] = on_record
        out = msgpack.packb({"Command": command, "Seq": self.seq}, use_bin_type=False)
        if request is not None:
            out += msgpack.packb(request, use_bin_type=False)
        self.writer.write(out)
        return await asyncio.wait_for(future, 30)

    async def event(self, name):
        await self.call("event", {"Name": name, "Payload": b"x" * 100, "Coalesce": False}, body=False)

    def close(self):
        self.task.cancel()
        self.writer.close()


class Bench:
    """One run of one implementation. Each `measure_` adds its figures to `out`."""

    def __init__(self, binary, args, key):
        self.binary, self.args, self.key = binary, args, key
        self.n = args.nodes
        self.logs = tempfile.TemporaryDirectory(prefix="serfbench-")
        self.agents = []
        self.rpcs = []
        self.seen = [{} for _ in range(self.n)]  # for each agent: (event, name) -> when it came
        self.out = {}

    async def run(self):
        try:
            await self.measure_lone_agent()
            await self.measure_rpc()
            await self.measure_forming()
            await self.measure_idle()
            await self.listen()
            await self.measure_events()
            await self.measure_burst()
            await self.measure_query()
            await self.measure_leave()
            await self.measure_failure()
        except Exception as error:
            self.out["error"] = f"{type(error).__name__}: {error}"
        finally:
            self.stop()
        return self.out

    def spawn(self, index, *extra):
        port = self.args.base + index
        command = [
            self.binary,
            "agent",
            f"-node=n{index}",
            f"-bind=127.0.0.1:{port}",
            f"-rpc-addr=127.0.0.1:{port + RPC_PORT_OFFSET}",
            f"-profile={self.args.profile}",
            "-log-level=err",
            *extra,
        ]
        if self.key:
            command.append(f"-encrypt={self.key}")
        with open(f"{self.logs.name}/{index}.log", "wb") as log:
            self.agents.append(subprocess.Popen(command, stdout=log, stderr=log))

    async def connect(self, index, timeout):
        end = time.perf_counter() + timeout
        while True:
            try:
                return await Rpc.connect(self.args.base + RPC_PORT_OFFSET + index)
            except OSError:
                if time.perf_counter() > end:
                    raise
                await asyncio.sleep(0.002)

    def stop(self):
        for rpc in self.rpcs:
            rpc.close()
        for agent in self.agents:
            if agent.poll() is None:
                agent.kill()
        for agent in self.agents:
            agent.wait()
        self.logs.cleanup()

    async def measure_lone_agent(self):
        start = time.perf_counter()
        self.spawn(0)
        self.rpcs.append(await self.connect(0, 20))
        self.out["startup_ms"] = round(1000 * (time.perf_counter() - start), 1)
        pid = self.agents[0].pid
        await asyncio.sleep(2)
        before = cpu_s(pid)
        await asyncio.sleep(8)
        self.out["lone_rss_mb"] = round(rss_mb(pid), 1)
        self.out["lone_cpu_ms_per_s"] = round(1000 * (cpu_s(pid) - before) / 8, 2)

    async def measure_rpc(self, calls=2000):
        start = time.perf_counter()
        for _ in range(calls):
            await self.rpcs[0].call("members")
        self.out["rpc_members_per_s"] = round(calls / (time.perf_counter() - start))

    async def measure_forming(self):
        start = time.perf_counter()
        for index in range(1, self.n):
            self.spawn(index, f"-join=127.0.0.1:{self.args.base}")
            if index % 10 == 0:
                await asyncio.sleep(0.01)
        self.rpcs += [await self.connect(index, 120) for index in range(1, self.n)]
        await asyncio.wait_for(self.full_mesh(), 300)
        self.out["form_s"] = round(time.perf_counter() - start, 2)

    async def full_mesh(self):
        for rpc in self.rpcs:
            while True:
                reply = await rpc.call("members-filtered", {"Status": "alive"})
                if len(reply["Members"]) == self.n:
                    break
                await asyncio.sleep(0.05)

    async def measure_idle(self):
        await asyncio.sleep(5)
        pids = [agent.pid for agent in self.agents]
        before = sum(map(cpu_s, pids))
        await asyncio.sleep(self.args.idle)
        spent = sum(map(cpu_s, pids)) - before
        self.out["idle_cpu_ms_per_s_per_agent"] = round(1000 * spent / self.args.idle / self.n, 3)
        self.out["rss_mb_per_agent"] = round(sum(map(rss_mb, pids)) / self.n, 2)
        self.out["pss_mb_per_agent"] = round(sum(map(pss_mb, pids)) / self.n, 2)

    async def listen(self):
        for seen, rpc in zip(self.seen, self.rpcs):

            def record(now, event, seen=seen):
                kind = event.get("Event")
                if kind == "user":
                    seen.setdefault((kind, event["Name"]), now)
                for member in event.get("Members", []):
                    seen.setdefault((kind, member["Name"]), now)

            wanted = {"Type": "member-failed,member-leave,user"}
            await rpc.call("stream", wanted, body=False, on_record=record)

    async def arrivals(self, keys, agents, start, timeout):
        """Waits until these agents have seen all these events; gives the delays of those that came."""
        pairs = [(self.seen[agent], key) for agent in agents for key in keys]
        await poll(lambda: all(key in seen for seen, key in pairs), timeout, 0.02)
        return [seen[key] - start for seen, key in pairs if key in seen]

    async def measure_events(self, count=10):
        delays, last, missed = [], [], 0
        for index in range(count):
            source = random.randrange(self.n)
            others = [agent for agent in range(self.n) if agent != source]
            start = time.perf_counter()
            await self.rpcs[source].event(f"event{index}")
            came = await self.arrivals([("user", f"event{index}")], others, start, 20)
            delays += came
            last.append(max(came, default=NEVER_S))
            missed += len(others) - len(came)
        self.out["event_missed"] = missed
        if delays:
            self.out["event_ms_p50"] = ms(percentile(delays, 0.5))
            self.out["event_ms_p99"] = ms(percentile(delays, 0.99))
        self.out["event_ms_last_median"] = ms(statistics.median(last))

    async def measure_burst(self, count=300):
        """Events from one agent, as fast as it takes them."""
        start = time.perf_counter()
        for index in range(count):
            await self.rpcs[0].event(f"burst{index}")
        self.out["event_rpc_per_s"] = round(count / (time.perf_counter() - start))
        keys = [("user", f"burst{index}") for index in range(count)]
        came = await self.arrivals(keys, range(self.n), start, 30)
        if came:
            self.out["burst_all_s"] = round(max(came), 2)
        self.out["burst_missed"] = count * self.n - len(came)

    async def measure_query(self):
        over, acks = asyncio.Event(), []
        start = time.perf_counter()

        def record(now, answer):
            if answer["Type"] == "ack":
                acks.append(now - start)
            elif answer["Type"] == "done":
                over.set()

        request = {"Name": "ping", "RequestAck": True, "Timeout": 5_000_000_000, "Payload": b""}
        await self.rpcs[0].call("query", request, body=False, on_record=record)
        await asyncio.wait_for(over.wait(), 20)
        self.out["query_acks"] = len(acks)
        if acks:
            self.out["query_ack_ms_p50"] = ms(percentile(acks, 0.5))
            self.out["query_ack_ms_last"] = ms(max(acks))

    async def measure_leave(self):
        leaver = self.n - 2
        others = [agent for agent in range(self.n) if agent != leaver]
        start = time.perf_counter()
        await self.rpcs[leaver].call("leave", body=False)
        came = await self.arrivals([("member-leave", f"n{leaver}")], others, start, 60)
        self.out["leave_seen"] = f"{len(came)}/{len(others)}"
        if came:
            self.out["leave_ms_last"] = ms(max(came))

    async def measure_failure(self):
        """Kills three agents, and counts whoever else is taken for failed."""
        victims = [self.n - 1, self.n - 3, self.n - 4]
        keys = [("member-failed", f"n{victim}") for victim in victims]
        others = [agent for agent in range(self.n) if agent not in [self.n - 2, *victims]]
        start = time.perf_counter()
        for victim in victims:
            self.agents[victim].kill()
        came = await self.arrivals(keys, others, start, 180 if self.args.profile == "wan" else 90)
        self.out["failed_seen"] = f"{len(came)}/{len(keys) * len(others)}"
        if came:
            self.out["failed_s_first"] = round(min(came), 2)
            self.out["failed_s_p50"] = round(percentile(came, 0.5), 2)
            self.out["failed_s_last"] = round(max(came), 2)
        self.out["false_failures"] = sum(
            key[0] == "member-failed" and key not in keys for agent in others for key in self.seen[agent]
        )


def summary(values):
    """The median of numbers; of anything else, and of nothing, what there is."""
    if not values:
        return "-"
    if all(isinstance(value, (int, float)) for value in values):
        return str(statistics.median(values))
    return str(values[0])


def print_table(args, results):
    sealed = "encrypted" if args.encrypt else "plain"
    print(f"\n| figure (n={args.nodes}, {args.profile}, {sealed}) | " + " | ".join(results) + " |")
    print("|---" * (len(results) + 1) + "|")
    figures = dict.fromkeys(key for runs in results.values() for run in runs for key in run)
    for figure in figures:
        cells = [summary([run[figure] for run in runs if figure in run]) for runs in results.values()]
        print(f"| {figure} | " + " | ".join(cells) + " |")


def parse_args():
    parser = argparse.ArgumentParser(description="Benchmark of Serf-compatible agents, side by side.")
    parser.add_argument("-n", "--nodes", type=int, default=50, help="agents in a cluster, at least 6")
    parser.add_argument("--profile", default="lan", help="timing profile of the agents")
    parser.add_argument("--encrypt", action="store_true", help="encrypt gossip with AES-256-GCM")
    parser.add_argument("--idle", type=float, default=20, help="seconds to watch the idle cluster")
    parser.add_argument("--base", type=int, default=21000, help="first of the gossip ports; RPC is 5000 above")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each implementation, taken in turn")
    parser.add_argument("implementations", nargs="+", metavar="NAME=BINARY")
    args = parser.parse_args()
    if args.nodes < 6:
        parser.error("-n must be at least 6: one agent leaves, three are killed, two must remain to tell")
    if not all("=" in implementation for implementation in args.implementations):
        parser.error("an implementation is given as NAME=BINARY")
    return args


def main():
    args = parse_args()
    key = base64.b64encode(bytes(range(32))).decode() if args.encrypt else None
    results = {}
    for _ in range(args.rounds):
        for implementation in args.implementations:
            name, binary = implementation.split("=", 1)
            figures = asyncio.run(Bench(binary, args, key).run())
            results.setdefault(name, []).append(figures)
            print(name, json.dumps(figures), flush=True)
            time.sleep(3)
    print_table(args, results)


if __name__ == "__main__":
    main()
