"""What else happened on the machine while a measurement ran: the reasons not to believe it."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import psutil
import torch

from search.throughput.gpu import Gpu
from search.throughput.intervals import bimodal

# Thresholds. Shares are of the CPUs that this process may use, over the whole measurement.
OTHER_LOAD = 0.10
WAITING = 0.05
STEAL = 0.02
SLOWER_CLOCK = 0.85
SLOWER_REFERENCE = 0.75  # above, quiet measurements on a virtual machine are flagged for this alone, one in twenty
SHORTEST = 0.5  # seconds; the kernel counts CPU time in hundredths
THROTTLE_COUNTS = "devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"
FREQUENCIES = "devices/system/cpu/cpu*/cpufreq/scaling_cur_freq"


@dataclass(frozen=True)
class _Snapshot:
    wall: float
    busy: float
    steal: float
    own: float
    waited: float
    swapped: int
    throttled: int


@dataclass
class Conditions:
    """What was seen during a measurement: `flags` say in words what disturbed it, none for a quiet run."""

    flags: list[str] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)


@contextmanager
def watched(device: str, *, sys: Path = Path("/sys")) -> Iterator["Watch"]:
    """Watch the machine while the block runs; `Watch.conditions` then tells. Nothing is ever set."""
    watch = Watch(device, sys)
    try:
        yield watch
    finally:
        watch.close()


class Watch:
    """Counters of the kernel before and after, and readings in between."""

    def __init__(self, device: str, sys: Path) -> None:
        self.sys, self.gpu = sys, Gpu.of(device)
        self.cpus = sorted(os.sched_getaffinity(0))
        self.before = self._snapshot()
        self.frequencies: list[float] = []

    def sample(self) -> None:
        """Take a reading of clocks, between two rounds."""
        found = [float(file.read_text()) for file in self.sys.glob(FREQUENCIES)]
        if found:
            self.frequencies.append(sum(found) / len(found))
        if self.gpu is not None:
            self.gpu.sample()

    def close(self) -> None:
        """End the watch."""
        self.after = self._snapshot()

    def conditions(self, rounds: Mapping[str, Sequence[float]], reference: str) -> Conditions:
        """Return what was seen; `rounds` are the images/s of each network in each round."""
        seen = Conditions()
        self._cpu(seen)
        if self.gpu is not None:
            self.gpu.judge(seen.flags, seen.facts)
        if self.frequencies and min(self.frequencies) < SLOWER_CLOCK * max(self.frequencies):
            seen.flags.append(
                f"CPU clock: fell to {min(self.frequencies) / 1e6:.2f} GHz from {max(self.frequencies) / 1e6:.2f} GHz"
            )
        _judge_rounds(seen, rounds, reference)
        return seen

    def _cpu(self, seen: Conditions) -> None:
        before, after = self.before, self.after
        wall = after.wall - before.wall
        if wall < SHORTEST:
            return
        capacity = wall * len(self.cpus)
        own = after.own - before.own
        facts = {
            "other_load": max(0.0, after.busy - before.busy - own) / capacity,
            "waiting": (after.waited - before.waited) / wall,
            "steal": (after.steal - before.steal) / capacity,
        }
        seen.facts |= {name: round(value, 4) for name, value in facts.items()}
        for name, limit, text in (
            ("other_load", OTHER_LOAD, "other load: other processes used {:.0%} of the CPUs"),
            ("waiting", WAITING, "run queue: this process waited for a CPU for {:.0%} of the time"),
            ("steal", STEAL, "steal: the host took {:.0%} of the virtual CPUs' time"),
        ):
            if facts[name] > limit:
                seen.flags.append(text.format(facts[name]))
        if after.swapped > before.swapped:
            seen.flags.append(f"swap: {(after.swapped - before.swapped) / 2**20:,.1f} MiB moved")
        if after.throttled > before.throttled:
            seen.flags.append(f"thermal throttling: {after.throttled - before.throttled} times")

    def _snapshot(self) -> _Snapshot:
        times = psutil.cpu_times(percpu=True)
        chosen = [times[cpu] for cpu in self.cpus if cpu < len(times)]
        idle = ("idle", "iowait", "steal", "guest", "guest_nice")
        swap = psutil.swap_memory()
        return _Snapshot(
            wall=time.monotonic(),
            busy=sum(value for one in chosen for name, value in one._asdict().items() if name not in idle),
            steal=sum(getattr(one, "steal", 0.0) for one in chosen),
            own=_own_seconds(),
            waited=_longest_wait(),
            swapped=swap.sin + swap.sout,
            throttled=sum(int(file.read_text()) for file in self.sys.glob(THROTTLE_COUNTS)),
        )


def _own_seconds() -> float:
    """Return the CPU time of this process and of those it started, the dead ones among them."""
    process = psutil.Process()
    times = process.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in process.children(recursive=True):
        try:
            spent = child.cpu_times()
            total += spent.user + spent.system
        except psutil.NoSuchProcess:
            continue
    return float(total)


def _longest_wait() -> float:
    """Return the seconds that this thread has waited for a CPU though it could run."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def _judge_rounds(seen: Conditions, rounds: Mapping[str, Sequence[float]], reference: str) -> None:
    base = rounds.get(reference)
    if not base:
        return
    quarter = len(base) // 4
    if quarter >= 3:
        change = median(base[-quarter:]) / median(base[:quarter])
        seen.facts["drift"] = round(change - 1, 4)
        if change < SLOWER_REFERENCE:
            seen.flags.append(f"slowing down: the reference ended at {change:.0%} of the speed it began with")
    for name, speeds in rounds.items():
        if name == reference:
            continue
        if (groups := bimodal([own / other for own, other in zip(speeds, base, strict=True)])) is not None:
            seen.flags.append(f"two speeds: {name}'s ratio was near {groups[0]:.3f} or near {groups[1]:.3f}")


def describe_device(device: str, threads: int | None = None) -> dict[str, object]:
    """Return what identifies the device and its settings; `threads` is what the protocol asks for."""
    from search.environment import device_name

    found: dict[str, object] = {
        "device": device_name(device),
        "cpus": len(os.sched_getaffinity(0)),
        "threads": threads or torch.get_num_threads(),
        "torch": torch.__version__,
        "driver": None,
    }
    gpu = Gpu.of(device)
    if gpu is not None:
        found["driver"] = f"{gpu.driver()}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"  # type: ignore[no-untyped-call]
    return found
