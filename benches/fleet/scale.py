"""What a node costs in a cluster of N Fyrd agents, and whether the cluster holds."""
import os
import signal
import statistics
import time
from pathlib import Path

from . import figures
from .cluster import Agent, Cluster, memory_mb, wait_until
from .network import Network

SEEDS = 10
# So many agents' memory is read: reading it stops an agent for some milliseconds.
READ_MEMORY_OF = 100
FORM_S = 900.0


def start(cluster: Cluster, count: int, group: int) -> float:
    """Ten seeds, then `group` agents in the same moment, each through one of the seeds, and as soon as all know these the
    next. Gives the seconds from the first group until all list all."""
    for index in range(min(SEEDS, count)):
        seed = [f"-retry-join={cluster.agents[index - 1].bind}"] if index else []
        cluster.start(None, *seed, "-retry-interval=5s")
        time.sleep(0.1)
    begin = time.perf_counter()
    for first in range(len(cluster.agents), count, group):
        begin_group = start_together(cluster, min(group, count - first))
        begin = begin_group if first == SEEDS else begin
        sample = cluster.agents[:: max(1, len(cluster.agents) // 20)]
        wait_until(lambda: all(agent.alive() == len(cluster.agents) for agent in sample), FORM_S, 0.5)
        print(f"  {len(cluster.agents)} after {time.perf_counter() - begin:.1f} s", flush=True)
    cluster.wait_for_all(max(1.0, begin + FORM_S - time.perf_counter()))
    return time.perf_counter() - begin


def start_together(cluster: Cluster, count: int) -> float:
    """Gives the moment in which they start."""
    closed, opens = os.pipe()
    for _ in range(count):
        seed = cluster.agents[(len(cluster.agents) - 1) % SEEDS]
        cluster.start(None, f"-retry-join={seed.bind}", "-retry-interval=5s", gate=closed)
    os.close(closed)
    begin = time.perf_counter()
    os.close(opens)
    return begin


def private_mb(agents: list[Agent]) -> float:
    sample = agents[:: max(1, len(agents) // READ_MEMORY_OF)]
    return statistics.mean(memory_mb(agent.pid, "Private_Dirty") for agent in sample)


def hold(cluster: Cluster, network: Network, minutes: float) -> dict[str, float]:
    """The cluster at rest. False failures are those that any agent told any time."""
    nodes = len(cluster.agents)
    cpu, traffic = cluster.cpu_s(), network.traffic()
    end = traffic.at + 60 * minutes
    while time.perf_counter() < end:
        time.sleep(min(30.0, max(0.0, end - time.perf_counter())))
        false = cluster.false_failures()
        print(f"  {time.perf_counter() - traffic.at:.0f} s: {false} false failures", flush=True)
    now = network.traffic()
    seconds = now.at - traffic.at
    return {
        "minutes": round(seconds / 60, 1),
        "false_failures": cluster.false_failures(),
        "cpu_ms_per_s": 1000 * (cluster.cpu_s() - cpu) / seconds / nodes,
        "bytes_per_s": (now.bytes - traffic.bytes) / seconds / nodes,
        "packets_per_s": (now.packets - traffic.packets) / seconds / nodes,
        "private_mb": private_mb(cluster.agents),
    }


def spread(cluster: Cluster, count: int = 5) -> list[float]:
    """Milliseconds until the last agent has an event."""
    delays = []
    for index in range(count):
        source = cluster.agents[index * len(cluster.agents) // count]
        others = [agent for agent in cluster.agents if agent is not source]
        keys, requests = cluster.new_events(1)
        caller = source.caller()
        begin = time.perf_counter()
        caller.send_all(requests)
        came = cluster.arrivals(keys, others, begin, 60)
        caller.close()
        if len(came) < len(others):
            raise RuntimeError(f"{len(others) - len(came)} agents have no {keys[0][1]} after 60 s")
        delays.append(1000 * max(came))
        time.sleep(2)
    return delays


def kill(cluster: Cluster, count: int = 3) -> dict[str, float]:
    """One after the other. The time is the longest until all others have told of one."""
    longest, unseen = 0.0, 0
    for _ in range(count):
        victim = cluster.living()[-1]
        cluster.gone.add(victim.name)
        others = cluster.living()
        begin = time.perf_counter()
        victim.signal(signal.SIGKILL)
        came = cluster.arrivals([("member-failed", victim.name)], others, begin, 120)
        longest = max([longest, *came])
        unseen += len(others) - len(came)
    return {"kills": count, "kill_unseen": unseen, "kill_last_s": longest}


def measure(cluster: Cluster, network: Network, count: int, group: int, minutes: float) -> dict[str, float]:
    out: dict[str, float] = {"nodes": count, "group": group, "form_s": start(cluster, count, group)}
    print(f"formed {count} after {out['form_s']:.1f} s", flush=True)
    cluster.listen()
    # Until the news of the start are spread, and the first push/pulls made.
    time.sleep(min(60, 10 + count / 20))
    out.update(hold(cluster, network, minutes))
    out["event_ms"] = statistics.median(spread(cluster))
    out.update(kill(cluster))
    out["false_failures"] = cluster.false_failures()
    return out


def run(binary: str, count: int, group: int, minutes: float, key: str, results: Path) -> None:
    about = figures.machine({figures.OURS: binary})
    network = Network(1)
    cluster = Cluster([network], [binary] * count, [f"-encrypt={key}"])
    try:
        out = measure(cluster, network, count, group, minutes)
    finally:
        cluster.stop()
        network.close()
    about["load at the end"] = round(os.getloadavg()[0], 2)
    samples = figures.Samples()
    for name, value in out.items():
        samples.add(figures.OURS, name, value)
    lines = [f"| {name} | {figures.number(value)} |" for name, value in out.items()]
    text = "\n".join(["| figure | value |", "|---|---:|", *lines])
    print(text, flush=True)
    figures.write(results, f"scale-{count}", about, samples, text)
