"""Clusters of real agents, and what can be read about a process from outside."""
import os
import signal
import subprocess
import tempfile
import time
from typing import Callable, Iterable, Optional

from .network import Network
from .rpc import COLLECTOR, Caller, Listener, packed

RPC_PORT = 10_000
# An event is worth reading when nothing more has come for so long.
QUIET_S = 0.15
STREAM = {"Type": "member-failed,member-leave,user"}
Key = tuple[str, str]


def cpu_s(pid: int) -> float:
    """Processor time of a process and all its threads, to the nanosecond: the kernel's clock of that process."""
    return time.clock_gettime((~pid << 3) | 2)


def memory_mb(pid: int, key: str) -> float:
    """A figure of the process's memory, in MB of 1,000,000 bytes."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as lines:
        for line in lines:
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"/proc/{pid}/smaps_rollup has no {key}")


def wait_until(done: Callable[[], bool], timeout: float, interval: float = 0.05) -> bool:
    end = time.perf_counter() + timeout
    while not done():
        if time.perf_counter() > end:
            return False
        time.sleep(interval)
    return True


class Agent:
    """A running agent. Its output goes to a file, of which the end is shown when it fails. With a `gate`, the reading end of
    a pipe, it starts when the other end is closed."""

    def __init__(
        self, binary: str, name: str, network: Network, place: int, options: Iterable[str], gate: Optional[int] = None
    ):
        self.name, self.network = name, network
        self.bind = f"{network.address(place)}:7946"
        self.rpc = (network.rpc_address, RPC_PORT + place)
        self.log = tempfile.TemporaryFile()
        self.listener: Optional[Listener] = None
        # When each event was told to the listener; a second time in the list is a doubled delivery.
        self.seen: dict[Key, list[float]] = {}
        rpc = f"{self.rpc[0]}:{self.rpc[1]}"
        words = [binary, "agent", f"-node={name}", f"-bind={self.bind}", f"-rpc-addr={rpc}", "-log-level=err", *options]
        if gate is not None:
            words = ["sh", "-c", 'read _; exec "$@"', "sh", *words]
        stdin = subprocess.DEVNULL if gate is None else gate
        with network.entered():
            self.process = subprocess.Popen(words, stdin=stdin, stdout=self.log, stderr=self.log)

    @property
    def pid(self) -> int:
        return self.process.pid

    def caller(self, timeout: float = 60.0) -> Caller:
        """A connection, as soon as the agent takes one."""
        end = time.perf_counter() + timeout
        while True:
            try:
                return Caller(self.rpc)
            except OSError as error:
                if self.process.poll() is not None or time.perf_counter() > end:
                    raise RuntimeError(f"{self.name} is not up: {error}; {self.last_words()}") from error
                time.sleep(0.02)

    def last_words(self) -> str:
        self.log.seek(0)
        return self.log.read()[-400:].decode(errors="replace")

    def alive(self) -> int:
        """How many members it takes for alive."""
        caller = self.caller()
        try:
            serf = caller.call("stats")["serf"]
            return int(serf["members"]) - int(serf["failed"]) - int(serf["left"])
        finally:
            caller.close()

    def listen(self) -> None:
        self.listener = COLLECTOR.add(Listener(self.rpc, "stream", STREAM))

    def absorb(self) -> None:
        for at, record in self.listener.records() if self.listener else ():
            kind = record.get("Event", "")
            names = [record["Name"]] if kind == "user" else [member["Name"] for member in record.get("Members") or []]
            for name in names:
                self.seen.setdefault((kind, name), []).append(at)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> None:
        if self.listener:
            COLLECTOR.remove(self.listener)
            self.listener = None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        self.log.close()


class Cluster:
    """Agents that are to see each other. `binaries` says what each of them runs."""

    def __init__(self, networks: list[Network], binaries: list[str], options: list[str]):
        self.networks, self.binaries, self.options = networks, binaries, options
        self.agents: list[Agent] = []
        self.events = 0
        # Whose end was wished for; a failure of anybody else is a false one.
        self.gone: set[str] = set()

    def start(self, network: Optional[Network] = None, *extra: str, gate: Optional[int] = None) -> Agent:
        """One agent more. Agents fill the networks in turn unless a network is given."""
        index = len(self.agents)
        network = network or self.networks[index % len(self.networks)]
        binary = self.binaries[index % len(self.binaries)]
        self.agents.append(Agent(binary, f"n{index}", network, index, [*self.options, *extra], gate))
        return self.agents[-1]

    def form(self, timeout: float = 300.0) -> float:
        """All join the first. Gives the seconds from starting the others until each lists all as alive."""
        first = self.start()
        first.caller().close()
        start = time.perf_counter()
        for _ in self.binaries[1:]:
            self.start(None, f"-retry-join={first.bind}", "-retry-interval=5s")
        self.wait_for_all(timeout)
        return time.perf_counter() - start

    def wait_for_all(self, timeout: float) -> None:
        """Until each agent lists as many members as there are agents."""
        end = time.perf_counter() + timeout
        for agent in self.agents:
            caller = agent.caller()
            try:
                while int(caller.call("stats")["serf"]["members"]) < len(self.agents):
                    if time.perf_counter() > end:
                        raise RuntimeError(f"{agent.name} does not list all after {timeout:.0f} s")
                    time.sleep(0.02)
            finally:
                caller.close()

    def listen(self) -> None:
        for agent in self.agents:
            agent.listen()

    def living(self) -> list[Agent]:
        return [agent for agent in self.agents if agent.name not in self.gone]

    def absorb(self, agents: list[Agent]) -> None:
        for agent in agents:
            agent.absorb()

    def arrivals(self, keys: list[Key], agents: list[Agent], start: float, timeout: float) -> list[float]:
        """Waits until these agents have told all these events; gives the delays of those that came."""

        def all_there() -> bool:
            if time.perf_counter() - COLLECTOR.last < QUIET_S:
                return False
            self.absorb(agents)
            return all(key in agent.seen for agent in agents for key in keys)

        wait_until(all_there, timeout)
        self.absorb(agents)
        return [agent.seen[key][0] - start for agent in agents for key in keys if key in agent.seen]

    def new_events(self, count: int) -> tuple[list[Key], list[bytes]]:
        """So many events with names of their own, as keys and as requests."""
        names = [f"event{self.events + index}" for index in range(count)]
        self.events += count
        requests = [packed("event", {"Name": name, "Payload": b"x" * 100, "Coalesce": False}) for name in names]
        return [("user", name) for name in names], requests

    def false_failures(self) -> int:
        living = self.living()
        self.absorb(living)
        return sum(kind == "member-failed" and name not in self.gone for agent in living for kind, name in agent.seen)

    def cpu_s(self) -> float:
        return sum(cpu_s(agent.pid) for agent in self.living())

    def stop(self) -> None:
        # First all, then each: agents that are left work the harder, and a thousand take minutes one by one.
        for agent in self.agents:
            if agent.process.poll() is None:
                agent.process.kill()
        for agent in self.agents:
            agent.end()
