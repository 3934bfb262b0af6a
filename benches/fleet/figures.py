"""The figures of a comparison: what is wanted of them, and the tables that show them."""
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path
from typing import Optional

OURS, THEIRS = "fyrd", "serf"


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A ratio, Serf's median divided by ours, is wanted at least; or a median of ours at most."""

    ratio: Optional[float] = None
    at_most: Optional[float] = None

    def text(self) -> str:
        parts = [] if self.ratio is None else [f"ratio {self.ratio:g}"]
        return ", ".join(parts + ([] if self.at_most is None else [f"at most {self.at_most:g}"]))

    def met(self, ours: float, ratio: Optional[float]) -> bool:
        enough = self.ratio is None or (ratio is not None and ratio >= self.ratio)
        return enough and (self.at_most is None or ours <= self.at_most)


@dataclasses.dataclass(frozen=True)
class Figure:
    """One line of the table. `more_is_better` turns the ratio round."""

    row: str
    key: str
    label: str
    unit: str
    wanted: dict[str, Wanted] = dataclasses.field(default_factory=dict)
    more_is_better: bool = False
    # Which sample stands for the run: usually the median, for what must never happen the worst.
    worst: bool = False


def same(*settings: str, ratio: float = 1.0) -> dict[str, Wanted]:
    return {setting: Wanted(ratio=ratio) for setting in settings}


# Between two equal runs figures differ by noise; "not worse" allows for a tenth.
NOT_WORSE = 0.9
NEVER = {setting: Wanted(at_most=0) for setting in ("lan", "wan", "regions")}

FIGURES = [
    Figure("alone", "alone_rss", "RSS of one agent alone", "MB", same("lan", ratio=2)),
    Figure("alone", "alone_private", "its private memory", "MB", {"lan": Wanted(at_most=0.95)}),
    Figure("alone", "alone_cpu", "its idle CPU", "ms/s", {"lan": Wanted(at_most=0.1)}),
    Figure("form", "form", "all started, all see all", "s", same("lan", "wan", ratio=NOT_WORSE)),
    Figure(
        "rest", "rest_cpu", "CPU of a node at rest", "ms/s",
        {"lan": Wanted(at_most=0.35), "wan": Wanted(at_most=0.15)},
    ),
    Figure("rest", "rest_bytes", "bytes a node sends at rest", "B/s", same("lan", "wan")),
    Figure("rest", "rest_packets", "packets a node sends at rest", "1/s", same("lan", "wan")),
    Figure("rest", "rest_rss", "RSS of a node", "MB"),
    Figure("rest", "rest_private", "private memory of a node", "MB"),
    Figure(
        "event", "event", "user event to the last agent", "ms",
        {"lan": Wanted(30), "wan": Wanted(50), "mixed": Wanted(NOT_WORSE)},
    ),
    Figure("event", "event_lost", "deliveries missing after 20 s", "", NEVER, worst=True),
    Figure("event", "event_wire", "bytes on the wire for one event", "kB", same("lan", "wan")),
    Figure(
        "burst", "burst", "300 events at once: all arrived", "s",
        {"lan": Wanted(40), "wan": Wanted(90), "mixed": Wanted(NOT_WORSE)},
    ),
    Figure("burst", "burst_lost", "of them lost", "deliveries", NEVER, worst=True),
    Figure("burst", "burst_doubled", "of them doubled", "deliveries", NEVER, worst=True),
    Figure("burst", "burst_wire", "bytes on the wire for the burst", "kB", same("lan", "wan")),
    Figure(
        "query", "query", "query: last ack", "ms",
        {"lan": Wanted(15), "wan": Wanted(20), "mixed": Wanted(NOT_WORSE)},
    ),
    Figure("query", "query_missing", "acks missing", "", NEVER, worst=True),
    Figure("leave", "leave", "leave after a burst, seen by all", "s", same("lan", "wan", "mixed", ratio=NOT_WORSE)),
    Figure("leave", "leave_unseen", "agents that did not see it", "", NEVER, worst=True),
    Figure("kill", "kill_first", "kill -9: first notice", "s", same("mixed", ratio=NOT_WORSE)),
    Figure(
        "kill", "kill_last", "kill -9: last notice", "s",
        {"lan": Wanted(at_most=4), "wan": Wanted(at_most=10), "mixed": Wanted(NOT_WORSE)},
    ),
    Figure("kill", "kill_unseen", "agents that did not see it", "", NEVER, worst=True),
    Figure("stop", "stop_last", "SIGSTOP: last notice", "s", same("lan", "wan", "mixed", ratio=NOT_WORSE)),
    Figure("cut", "cut_last", "link cut: last notice", "s", same("lan", "wan", ratio=NOT_WORSE)),
    Figure("false", "false_failures", "failures told of agents that live", "", NEVER, worst=True),
    Figure(
        "together", "together", "40 start together through ten: slowest start", "s",
        {"lan": Wanted(at_most=3)}, worst=True,
    ),
    Figure("together", "together_median", "median of the starts", "s"),
    Figure("rpc", "members_cpu", "`members`: CPU of the agent a call", "us", same("lan", ratio=3)),
    Figure("rpc", "members_rate", "`members` a second", "1/s", more_is_better=True),
    Figure("rpc", "stats_cpu", "`stats`: CPU of the agent a call", "us", same("lan")),
    Figure("rpc", "stats_rate", "`stats` a second", "1/s", more_is_better=True),
    Figure("rpc", "event_cpu", "`event`: CPU of the agent a call", "us", same("lan", ratio=3)),
    Figure("rpc", "event_rate", "`event` a second", "1/s", same("lan", ratio=3), more_is_better=True),
]
ROWS = list(dict.fromkeys(figure.row for figure in FIGURES))


class Samples:
    """What was measured, by contender and figure, in the order in which it came."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, list[float]]] = {}
        self.notes: list[str] = []

    def add(self, contender: str, key: str, value: float) -> None:
        self.values.setdefault(contender, {}).setdefault(key, []).append(round(value, 4))

    def note(self, text: str) -> None:
        """What a reader of the table must know, such as a row that could not be measured."""
        self.notes.append(text)
        print("note:", text, flush=True)

    def of(self, contender: str, figure: Figure) -> Optional[float]:
        values = self.values.get(contender, {}).get(figure.key)
        if not values:
            return None
        return max(values) if figure.worst else statistics.median(values)


def number(value: Optional[float]) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def line(figure: Figure, samples: Samples, setting: str, contenders: list[str]) -> Optional[str]:
    """A line of the table. The first contender is held against the second."""
    ours, theirs = (samples.of(contender, figure) for contender in contenders)
    if ours is None and theirs is None:
        return None
    # What never happens has no ratio.
    ratio = None
    if ours and theirs:
        ratio = ours / theirs if figure.more_is_better else theirs / ours
    wanted = figure.wanted.get(setting)
    verdict = "" if wanted is None or ours is None else ("yes" if wanted.met(ours, ratio) else "NO")
    unit = f", {figure.unit}" if figure.unit else ""
    count = len(samples.values.get(contenders[0], {}).get(figure.key, []))
    cells = [figure.label + unit, number(theirs), number(ours), number(ratio), wanted.text() if wanted else "", verdict]
    return "| " + " | ".join([*cells, str(count)]) + " |"


def table(samples: Samples, setting: str, contenders: list[str]) -> str:
    ours, theirs = contenders
    head = [f"| figure | {theirs} | {ours} | ratio | wanted | met | samples |", "|---|---:|---:|---:|---|---|---:|"]
    lines = (line(figure, samples, setting, contenders) for figure in FIGURES)
    return "\n".join([*head, *(text for text in lines if text)])


def first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().split("\n")[0] or "unknown"


def cpu_model() -> str:
    for text in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if text.startswith("model name"):
            return text.partition(":")[2].strip()
    return platform.machine()


def machine(binaries: dict[str, str]) -> dict[str, object]:
    """Where and with what the figures were taken."""
    here = os.path.dirname(os.path.realpath(__file__))
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "load at the start": round(os.getloadavg()[0], 2),
        "commit": first_line("git", "-C", here, "describe", "--always", "--dirty", "--abbrev=12"),
        **{f"version of {name}": first_line(path, "--version") for name, path in binaries.items()},
    }


def write(folder: Path, name: str, about: dict[str, object], samples: Samples, text: str) -> None:
    """One file for people, one for programs with every single sample."""
    folder.mkdir(parents=True, exist_ok=True)
    described = "\n".join(f"- {key}: {value}" for key, value in about.items())
    notes = "".join(f"\n- {note}" for note in samples.notes)
    parts = [f"# {name}", described, text] + ([f"Notes:\n{notes}"] if notes else [])
    (folder / f"{name}.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    content = {"about": about, "samples": samples.values, "notes": samples.notes}
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
