"""How each row of the comparison is measured. Both contenders meet the same moment: short steps take turns, long waits
run side by side."""
import dataclasses
import os
import random
import signal
import time
from typing import Callable, Optional

from .cluster import Agent, Cluster, cpu_s, memory_mb, wait_until
from .figures import Samples
from .network import Link, Network, Traffic
from .rpc import COLLECTOR, Listener, packed

BURST = 300
# What has not come by then has been missed by gossip, and waits for a push/pull that happens to bring it.
BURST_S = 30.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured. Times are in seconds."""

    profile: str
    settle: float
    rest: float
    events: int
    # Until an event, and until a burst, has left no more packets, in Serf as well.
    event_quiet: float
    burst_quiet: float
    bursts: int
    queries: int
    kills: int
    notice: float


def plan(profile: str, quick: bool) -> Plan:
    far = profile == "wan"
    if quick:
        return Plan(profile, 5, 10, 3, 10 if far else 5, 45 if far else 20, 1, 2, 1, 180 if far else 60)
    return Plan(profile, 20, 60, 10, 12 if far else 6, 60 if far else 40, 3, 5, 3 if far else 5, 240 if far else 120)


class Contender:
    """One cluster of a comparison. `observers` are the agents whose view counts, and who act."""

    def __init__(self, name: str, cluster: Cluster, binary: str, samples: Samples):
        self.name, self.cluster, self.binary, self.samples = name, cluster, binary, samples
        # The loopback's bytes a second without news, once the cluster has rested.
        self.rest_rate: Optional[float] = None

    def observers(self) -> list[Agent]:
        binaries = self.cluster.binaries
        return [
            agent
            for index, agent in enumerate(self.cluster.agents)
            if binaries[index % len(binaries)] == self.binary and agent.name not in self.cluster.gone
        ]

    def add(self, key: str, value: float) -> None:
        self.samples.add(self.name, key, value)

    def beyond_rest(self, network: Network, before: Traffic, quiet: float, key: str) -> None:
        """Kilobytes from `before` until it is quiet again, less what the cluster sends anyway."""
        if self.rest_rate is None:
            time.sleep(1)
            return
        time.sleep(max(0.0, before.at + quiet - time.perf_counter()))
        now = network.traffic()
        self.add(key, (now.bytes - before.bytes - self.rest_rate * (now.at - before.at)) / 1000)


Contenders = list[Contender]


def turns(contenders: Contenders, count: int, step: Callable[[Contender], None]) -> None:
    """Each does the step, one after the other, and the first of a turn is the last of the next."""
    for turn in range(count):
        for contender in contenders if turn % 2 == 0 else contenders[::-1]:
            step(contender)


def alone(binaries: dict[str, str], options: list[str], samples: Samples, seconds: float, first_number: int) -> None:
    """One agent without peers: what it takes to be there."""
    clusters = {
        name: Cluster([Network(first_number + index)], [binary], options)
        for index, (name, binary) in enumerate(binaries.items())
    }
    try:
        agents = {name: cluster.start() for name, cluster in clusters.items()}
        for agent in agents.values():
            agent.caller().close()
        time.sleep(5)
        before = {name: (time.perf_counter(), cpu_s(agent.pid)) for name, agent in agents.items()}
        time.sleep(seconds)
        for name, agent in agents.items():
            at, cpu = before[name]
            samples.add(name, "alone_cpu", 1000 * (cpu_s(agent.pid) - cpu) / (time.perf_counter() - at))
            samples.add(name, "alone_rss", memory_mb(agent.pid, "Rss"))
            samples.add(name, "alone_private", memory_mb(agent.pid, "Private_Dirty"))
    finally:
        for cluster in clusters.values():
            end(cluster)


def end(cluster: Cluster) -> None:
    cluster.stop()
    for network in cluster.networks:
        network.close()


def rest(contenders: Contenders, plan: Plan) -> None:
    time.sleep(plan.settle)
    before = [(c.cluster.cpu_s(), [network.traffic() for network in c.cluster.networks]) for c in contenders]
    time.sleep(plan.rest)
    for contender, (cpu, traffic) in zip(contenders, before):
        cluster = contender.cluster
        nodes, spent = len(cluster.living()), cluster.cpu_s() - cpu
        now = [network.traffic() for network in cluster.networks]
        seconds = now[0].at - traffic[0].at
        sent = sum(after.bytes - first.bytes for after, first in zip(now, traffic))
        packets = sum(after.packets - first.packets for after, first in zip(now, traffic))
        contender.rest_rate = sent / seconds if len(now) == 1 else None
        contender.add("rest_cpu", 1000 * spent / seconds / nodes)
        contender.add("rest_bytes", sent / seconds / nodes)
        contender.add("rest_packets", packets / seconds / nodes)
        for key, name in (("rest_rss", "Rss"), ("rest_private", "Private_Dirty")):
            contender.add(key, sum(memory_mb(agent.pid, name) for agent in cluster.living()) / nodes)


def event(contenders: Contenders, plan: Plan) -> None:
    """From a random agent to all others. Both get the same agents."""
    chosen = random.Random(7)
    for turn in range(plan.events):
        place = chosen.randrange(1 << 30)
        started = []
        for contender in contenders if turn % 2 == 0 else contenders[::-1]:
            network = contender.cluster.networks[0]
            before = network.traffic()
            one_event(contender, place)
            started.append((contender, network, before))
        for contender, network, before in started:
            contender.beyond_rest(network, before, plan.event_quiet, "event_wire")


def one_event(contender: Contender, place: int) -> None:
    observers = contender.observers()
    source = observers[place % len(observers)]
    others = [agent for agent in observers if agent is not source]
    keys, requests = contender.cluster.new_events(1)
    caller = source.caller()
    start = time.perf_counter()
    caller.send_all(requests)
    came = contender.cluster.arrivals(keys, others, start, 20)
    caller.close()
    contender.add("event_lost", len(others) - len(came))
    if came:
        contender.add("event", 1000 * max(came))


def send_burst(contender: Contender) -> tuple[list[tuple[str, str]], list[float]]:
    """300 events from one agent, at once. Gives their keys, and the delays of those that came."""
    observers = contender.observers()
    keys, requests = contender.cluster.new_events(BURST)
    caller = observers[0].caller()
    start = time.perf_counter()
    caller.send_all(requests)
    came = contender.cluster.arrivals(keys, observers, start, BURST_S)
    caller.close()
    return keys, came


def burst(contenders: Contenders, plan: Plan) -> None:
    def step(contender: Contender) -> None:
        network = contender.cluster.networks[0]
        before = network.traffic()
        keys, came = send_burst(contender)
        contender.beyond_rest(network, before, plan.burst_quiet, "burst_wire")
        observers = contender.observers()
        contender.cluster.absorb(observers)
        contender.add("burst_lost", sum(key not in agent.seen for agent in observers for key in keys))
        doubled = (len(agent.seen.get(key, [0])) - 1 for agent in observers for key in keys)
        contender.add("burst_doubled", sum(doubled))
        if came:
            contender.add("burst", max(came))

    turns(contenders, plan.bursts, step)


def query(contenders: Contenders, plan: Plan) -> None:
    def step(contender: Contender) -> None:
        observers = contender.observers()
        request = {"Name": "ping", "RequestAck": True, "Timeout": 5_000_000_000, "Payload": b""}
        if len(observers) < len(contender.cluster.living()):
            request["FilterNodes"] = [agent.name for agent in observers]
        listener = COLLECTOR.add(Listener(observers[0].rpc, "query", request))
        acks: list[float] = []

        def answered() -> bool:
            acks.extend(at - listener.sent for at, record in listener.records() if record.get("Type") == "ack")
            return len(acks) >= len(observers)

        wait_until(answered, 7, 0.1)
        COLLECTOR.remove(listener)
        contender.add("query_missing", len(observers) - len(acks))
        if acks:
            contender.add("query", 1000 * max(acks))

    turns(contenders, plan.queries, step)


def leave(contenders: Contenders, plan: Plan) -> None:
    """With the rest of a burst still in the queues."""

    def step(contender: Contender) -> None:
        send_burst(contender)
        leaver = contender.observers()[-1]
        contender.cluster.gone.add(leaver.name)
        others = contender.observers()
        caller = leaver.caller()
        start = time.perf_counter()
        caller.call("leave", body=False)
        came = contender.cluster.arrivals([("member-leave", leaver.name)], others, start, 90)
        contender.add("leave_unseen", len(others) - len(came))
        if came:
            contender.add("leave", max(came))
        caller.close()

    turns(contenders, 1, step)


def silenced(contenders: Contenders, plan: Plan, key: str, silence: Callable[[Agent], None], unseen: bool) -> None:
    """One agent of each cluster falls silent at the same moment; who tells of it, and when?"""
    victims = [contender.observers()[-1] for contender in contenders]
    starts = []
    for contender, victim in zip(contenders, victims):
        contender.cluster.gone.add(victim.name)
        starts.append(time.perf_counter())
        silence(victim)
    for contender, victim, start in zip(contenders, victims, starts):
        others = contender.observers()
        came = contender.cluster.arrivals([("member-failed", victim.name)], others, start, plan.notice)
        if unseen or not came:
            contender.add(f"{key}_unseen", len(others) - len(came))
        if came:
            contender.add(f"{key}_first", min(came))
            contender.add(f"{key}_last", max(came))


def kill(contenders: Contenders, plan: Plan) -> None:
    for _ in range(plan.kills):
        silenced(contenders, plan, "kill", lambda agent: agent.signal(signal.SIGKILL), True)


def stop(contenders: Contenders, plan: Plan) -> None:
    for _ in range(plan.kills):
        silenced(contenders, plan, "stop", lambda agent: agent.signal(signal.SIGSTOP), False)


def cut(contenders: Contenders, plan: Plan, number: Callable[[], int]) -> None:
    """One agent more joins from the far end of a link, which then carries nothing."""
    for _ in range(plan.kills):
        links: dict[Agent, Link] = {}
        far: list[Network] = []
        try:
            for contender in contenders:
                far.append(Network(number(), region=1))
                link = Link(contender.cluster.networks[0], far[-1])
                seed = contender.observers()[0]
                agent = contender.cluster.start(far[-1], f"-retry-join={seed.bind}", "-retry-interval=1s")
                links[agent] = link
                known_to_all(contender, agent)
                agent.listen()
            time.sleep(plan.settle)
            silenced(contenders, plan, "cut", lambda agent: links[agent].cut(), False)
        finally:
            for agent, link in links.items():
                agent.end()
                link.close()
            for network in far:
                network.close()


def known_to_all(contender: Contender, newcomer: Agent) -> None:
    living = contender.cluster.living()
    newcomer.caller().close()
    for agent in living:
        if not wait_until(lambda agent=agent: agent.alive() >= len(living), 60, 0.2):
            raise RuntimeError(f"{agent.name} of {contender.name} does not hear of {newcomer.name}")


def false(contenders: Contenders, _plan: Plan) -> None:
    for contender in contenders:
        contender.add("false_failures", contender.cluster.false_failures())


def together(name: str, binary: str, options: list[str], samples: Samples, number: int, nodes: int = 40) -> None:
    """Ten agents start a tenth of a second apart, the others at once; each joins through one of the ten. The time is
    that from the first start."""
    cluster = Cluster([Network(number)], [binary] * nodes, options)
    start = time.perf_counter()
    try:
        for index in range(nodes):
            seed = cluster.agents[(index - 1) % min(index, 10)] if index else None
            cluster.start(None, *([f"-retry-join={seed.bind}", "-retry-interval=5s"] if seed else []))
            time.sleep(0.1 if index < 10 else 0)
        cluster.wait_for_all(150)
        for key in ("together", "together_median"):
            samples.add(name, key, time.perf_counter() - start)
    except RuntimeError as error:
        samples.note(f"together, {name}: {error}")
        samples.add(name, "together", 150)
    finally:
        end(cluster)


RPC_REQUESTS = {
    "members": packed("members"),
    "stats": packed("stats"),
    "event": packed("event", {"Name": "e", "Payload": b"x", "Coalesce": True}),
}


def rpc(contenders: Contenders, seconds: float, rounds: int) -> None:
    """The first agent answers as many pipelined requests as it can, while the rest of its cluster is at rest."""

    def step(contender: Contender) -> None:
        for name, request in RPC_REQUESTS.items():
            for other in contenders:
                calm_down(other)
            agent = contender.cluster.agents[0]
            caller = agent.caller()
            before, start = cpu_s(agent.pid), time.perf_counter()
            calls = caller.load(request, seconds)
            elapsed, spent = time.perf_counter() - start, cpu_s(agent.pid) - before
            caller.close()
            contender.add(f"{name}_cpu", 1e6 * spent / calls)
            contender.add(f"{name}_rate", calls / elapsed)

    turns(contenders, rounds, step)


def calm_down(contender: Contender) -> None:
    """Waits until the agents take a tenth of a core together, for they may have thousands of events left to spread."""

    def busy() -> float:
        before, start = contender.cluster.cpu_s(), time.perf_counter()
        time.sleep(0.5)
        return (contender.cluster.cpu_s() - before) / (time.perf_counter() - start)

    if not wait_until(lambda: busy() < 0.1, 300, 0):
        contender.samples.note(f"{contender.name} was still busy when calls were counted")


def loaded() -> bool:
    """Whether so much else runs that times mean little."""
    return os.getloadavg()[0] > 1.0
