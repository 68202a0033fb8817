"""The watch on the machine, with a real neighbour and a made-up /sys."""

import multiprocessing
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.throughput import conditions, gpu
from search.throughput.conditions import Watch, watched
from search.throughput.energy import energy_meter
from search.throughput.gpu import Gpu


def burn(until: Any) -> None:
    while not until.is_set():
        sum(range(10_000))


def work(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(10_000))


def test_a_neighbour_on_every_cpu_is_flagged() -> None:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    # Started by another process than this one would be; ours are not counted as other load.
    neighbours = [context.Process(target=burn, args=(stop,), daemon=True) for _ in os.sched_getaffinity(0)]
    for neighbour in neighbours:
        neighbour.start()
    try:
        watch = Watch("cpu", Path("/sys"))
        work(1.5)
        watch.close()
    finally:
        stop.set()
        for neighbour in neighbours:
            neighbour.join(timeout=30)
    seen = watch.conditions({"a": [1.0]}, "a")
    assert any("run queue" in flag for flag in seen.flags), seen


def test_own_children_are_not_other_load(monkeypatch: pytest.MonkeyPatch) -> None:
    own = iter([0.0, 9.0])
    monkeypatch.setattr(conditions, "_own_seconds", lambda: next(own))
    machine = Machine(monkeypatch, cpus=2)
    watch = Watch("cpu", Path("/sys"))
    machine.passes(seconds=10, user=9.5)
    watch.close()
    assert watch.conditions({}, "").flags == []


class Machine:
    """Counters of the kernel that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cpus: int) -> None:
        self.times = {"user": 0.0, "idle": 0.0, "steal": 0.0}
        self.now, self.cpus, self.swapped = 0.0, cpus, 0
        monkeypatch.setattr(conditions.psutil, "cpu_times", self._cpu_times)
        monkeypatch.setattr(conditions.psutil, "swap_memory", lambda: SimpleNamespace(sin=self.swapped, sout=0))
        monkeypatch.setattr(conditions.os, "sched_getaffinity", lambda pid: set(range(cpus)))
        monkeypatch.setattr(conditions.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(conditions, "_longest_wait", lambda: 0.0)

    def _cpu_times(self, percpu: bool) -> list[Any]:
        share = {name: value / self.cpus for name, value in self.times.items()}
        return [SimpleNamespace(**share, _asdict=lambda: share) for _ in range(self.cpus)]

    def passes(self, seconds: float, **spent: float) -> None:
        self.now += seconds
        for name, value in spent.items():
            self.times[name] += value


@pytest.mark.parametrize(
    ("spent", "swapped", "told"),
    [
        ({"user": 12.0}, 0, "other load: other processes used 35% of the CPUs"),
        ({"user": 5.0, "steal": 1.0}, 0, "steal: the host took 5% of the virtual CPUs' time"),
        ({"user": 5.0}, 3 << 20, "swap: 3.0 MiB moved"),
        ({"user": 6.0, "steal": 0.1}, 0, None),
    ],
)
def test_what_the_kernel_counts_is_judged(
    monkeypatch: pytest.MonkeyPatch, spent: dict[str, float], swapped: int, told: str | None
) -> None:
    own = iter([0.0, 5.0])
    monkeypatch.setattr(conditions, "_own_seconds", lambda: next(own))
    machine = Machine(monkeypatch, cpus=2)
    watch = Watch("cpu", Path("/sys"))
    machine.passes(10, **spent)
    machine.swapped = swapped
    watch.close()
    assert watch.conditions({}, "").flags == ([told] if told else [])


def test_clocks_and_throttling_are_read_from_sys(tmp_path: Path) -> None:
    cpu = tmp_path / "devices/system/cpu/cpu0"
    for folder in ("cpufreq", "thermal_throttle"):
        (cpu / folder).mkdir(parents=True)
    clock, count = cpu / "cpufreq/scaling_cur_freq", cpu / "thermal_throttle/core_throttle_count"
    clock.write_text("3000000\n")
    count.write_text("4\n")
    with watched("cpu", sys=tmp_path) as watch:
        watch.sample()
        clock.write_text("2000000\n")
        watch.sample()
        count.write_text("9\n")
        work(0.6)
    flags = watch.conditions({}, "").flags
    assert "CPU clock: fell to 2.00 GHz from 3.00 GHz" in flags
    assert "thermal throttling: 5 times" in flags


def test_rounds_that_slow_down_or_have_two_speeds_are_flagged() -> None:
    with watched("cpu") as watch:
        pass
    falling = [100 - round_ for round_ in range(40)]
    assert watch.conditions({"a": falling}, "a").flags == [
        "slowing down: the reference ended at 69% of the speed it began with"
    ]
    two = [100.0, 130.0] * 30
    assert watch.conditions({"a": [100.0] * 60, "b": two}, "a").flags == [
        "two speeds: b's ratio was near 1.000 or near 1.300"
    ]
    assert watch.conditions({"a": [100.0] * 60, "b": [90.0] * 60}, "a").flags == []


class Nvml:
    """A GPU's readings, in turn; no machine with one is at hand in the tests."""

    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0

    class NVMLError(Exception):
        pass

    def __init__(self, clocks: list[int], reasons: int = 0, pids: tuple[int, ...] = ()) -> None:
        self.clocks, self.reasons, self.pids, self.joules = iter(clocks), reasons, pids, 0

    def nvmlDeviceGetClockInfo(self, handle: object, kind: int) -> int:
        return next(self.clocks)

    def nvmlDeviceGetTemperature(self, handle: object, kind: int) -> int:
        raise self.NVMLError("not supported")

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: object) -> int:
        return self.reasons

    def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> list[object]:
        return [SimpleNamespace(pid=pid) for pid in self.pids]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: object) -> int:
        self.joules += 1500
        return self.joules

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.1"


@pytest.mark.parametrize(
    ("nvml", "flags"),
    [
        (Nvml([1980, 1980], pids=(os.getpid(),)), []),
        (Nvml([1980, 1500]), ["GPU clock: fell to 1500 MHz from 1980 MHz"]),
        (Nvml([1980, 1980], reasons=0x4 | 0x40), ["GPU throttling: power cap", "GPU throttling: thermal, by hardware"]),
        (Nvml([1980, 1980], pids=(os.getpid(), 1, 2)), ["other load: 2 other process(es) on the GPU"]),
        (Nvml([1980, 1980], pids=(77,)), []),  # a container: the one process is this one under the host's number
    ],
)
def test_what_nvml_tells_is_judged(monkeypatch: pytest.MonkeyPatch, nvml: Nvml, flags: list[str]) -> None:
    watched_gpu = Gpu(nvml, object())
    monkeypatch.setattr(Gpu, "of", lambda device: watched_gpu)
    monkeypatch.setattr(conditions, "_longest_wait", lambda: 0.0)
    with watched("cuda:0") as watch:
        watch.sample()
        watch.sample()
    assert watch.conditions({}, "").flags == flags
    assert gpu.Gpu.of("cuda:0") is watched_gpu
    assert watched_gpu.driver() == "580.1"


def test_energy_is_counted_where_the_machine_tells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert energy_meter("cpu", sys=tmp_path) is None
    package = tmp_path / "class/powercap/intel-rapl:0"
    package.mkdir(parents=True)
    (package / "max_energy_range_uj").write_text("10000000")
    (package / "energy_uj").write_text("9000000")
    meter = energy_meter("cpu", sys=tmp_path)
    assert meter is not None
    before = meter()
    (package / "energy_uj").write_text("1000000")  # it went past its range and began anew
    assert meter() - before == pytest.approx(2.0)
    nvml = Gpu(Nvml([]), object())
    monkeypatch.setattr(Gpu, "of", lambda device: nvml)
    on_gpu = energy_meter("cuda:0")
    assert on_gpu is not None
    assert on_gpu() - on_gpu() == -1.5
