"""Network namespaces whose loopback carries nothing but gossip, and links between two of them.

The benchmark itself lives in one namespace, each cluster in another. Agents of a cluster have addresses of 10.80.0.0/16
on its loopback, so the counters of the loopback are those of gossip, for every implementation alike. RPC comes in by
a veth pair and is not counted. Namespaces and tunnels end with the process, so nothing has to be cleaned up.
"""
import collections
import contextlib
import ctypes
import fcntl
import os
import random
import select
import signal
import struct
import subprocess
import sys
import time
from typing import Iterator, NamedTuple

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
TUNSETIFF = 0x400454CA
IFF_TUN_WITHOUT_HEADER = 0x1001
# Longest that a packet can be: the loopback's MTU and what precedes it.
PACKET_MAX = 70_000
# The highest host of each /16 is the source of streams, as 127.0.0.1 is on a loopback.
SOURCE = "255.254"


def checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def current_namespace() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY)


def ip(batch: str) -> None:
    """Runs commands of ip, one a line, in the namespace of this thread."""
    done = subprocess.run(["ip", "-batch", "-"], input=batch, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip: {done.stderr.strip()} in: {batch}")


class Traffic(NamedTuple):
    """What the loopback of a network has carried: bytes with IP and 14 bytes of Ethernet headers, and packets. The
    kernel may count several segments of a stream as one packet."""

    at: float
    bytes: int
    packets: int


class Network:
    """One namespace. `number` chooses its RPC network, `region` its gossip addresses 10.{80 + region}.0.0/16."""

    def __init__(self, number: int, region: int = 0):
        self.number, self.region = number, region
        home = current_namespace()
        try:
            checked(LIBC.unshare(CLONE_NEWNET), "unshare")
            self.handle = current_namespace()
        finally:
            checked(LIBC.setns(home, CLONE_NEWNET), "setns")
            os.close(home)
        inside = f"/proc/{os.getpid()}/fd/{self.handle}"
        ip(
            f"link add rpc{number} type veth peer name rpc netns {inside}\n"
            f"addr add 10.90.{number}.1/24 dev rpc{number}\nlink set rpc{number} up\n"
        )
        with self.entered():
            ip(
                f"link set lo up\naddr add {self.prefix}.{SOURCE}/32 dev lo\n"
                f"route add local {self.prefix}.0.0/16 dev lo src {self.prefix}.{SOURCE}\n"
                f"addr add {self.rpc_address}/24 dev rpc\nlink set rpc up\n"
            )

    @property
    def prefix(self) -> str:
        return f"10.{80 + self.region}"

    @property
    def rpc_address(self) -> str:
        return f"10.90.{self.number}.2"

    def address(self, index: int) -> str:
        return f"{self.prefix}.{1 + index // 250}.{1 + index % 250}"

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and what it starts, is in the namespace; sockets stay where they were made."""
        home = current_namespace()
        checked(LIBC.setns(self.handle, CLONE_NEWNET), "setns")
        try:
            yield
        finally:
            checked(LIBC.setns(home, CLONE_NEWNET), "setns")
            os.close(home)

    def traffic(self) -> Traffic:
        with self.entered(), open("/proc/thread-self/net/dev", encoding="ascii") as lines:
            for line in lines:
                name, _, counters = line.partition(":")
                if name.strip() == "lo":
                    fields = counters.split()
                    return Traffic(time.perf_counter(), int(fields[8]), int(fields[9]))
        raise RuntimeError("a namespace without loopback")

    def tunnel(self, to: "Network") -> int:
        """An interface through which the other network is reached; gives the end that a program reads and writes."""
        with self.entered():
            end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", b"far", IFF_TUN_WITHOUT_HEADER))
            source = f"{self.prefix}.{SOURCE}"
            ip(f"link set far mtu 1500 up\nroute add {to.prefix}.0.0/16 dev far src {source}\n")
        return end

    def close(self) -> None:
        ip(f"link del rpc{self.number}\n")
        os.close(self.handle)


class Link:
    """Carries IP packets between two networks, in a process of its own: each waits `delay_s`, and of 100 `loss_percent`
    are lost. It does what netem does, and needs no module of the kernel."""

    def __init__(self, one: Network, other: Network, delay_s: float = 0.0, loss_percent: float = 0.0):
        self.ends = [one.tunnel(other), other.tunnel(one)]
        words = [str(word) for word in (*self.ends, delay_s, loss_percent)]
        command = [sys.executable, os.path.realpath(__file__), *words]
        self.process = subprocess.Popen(command, pass_fds=self.ends)

    def cut(self) -> None:
        """Nothing passes any more, and nobody is told: the interfaces stay up."""
        self.process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for end in self.ends:
            os.close(end)


def packets(end: int) -> Iterator[bytes]:
    """What waits at this end, at most 64 packets at a time."""
    for _ in range(64):
        try:
            yield os.read(end, PACKET_MAX)
        except BlockingIOError:
            return


def carry(one: int, other: int, delay_s: float, loss_percent: float) -> None:
    """The process of a link. It ends with the benchmark, however that ends."""
    checked(LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    loss = random.Random(1)
    far_end = {one: other, other: one}
    waiting: "collections.deque[tuple[float, int, bytes]]" = collections.deque()
    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        ready, _, _ = select.select(list(far_end), [], [], timeout)
        now = time.monotonic()
        for end in ready:
            for packet in packets(end):
                if loss.random() * 100 >= loss_percent:
                    waiting.append((now + delay_s, far_end[end], packet))
        while waiting and waiting[0][0] <= time.monotonic():
            _, end, packet = waiting.popleft()
            # A full queue at the far end loses the packet, as a full buffer in a router does.
            with contextlib.suppress(BlockingIOError):
                os.write(end, packet)


def alone_with_its_network() -> None:
    """Moves this process into a namespace of its own, so that nothing of the benchmark is seen outside."""
    checked(LIBC.unshare(CLONE_NEWNET), "network namespaces need root, or `unshare -r` around this command")
    ip("link set lo up\n")


if __name__ == "__main__":
    carry(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
