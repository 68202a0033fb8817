"""Joules that a device has used, where it counts them: NVML on a GPU, RAPL on a CPU."""

from collections.abc import Callable
from pathlib import Path

from search.throughput.gpu import Gpu

PACKAGES = "class/powercap/intel-rapl:[0-9]"  # AMD's counters have the same name


def energy_meter(device: str, *, sys: Path = Path("/sys")) -> Callable[[], float] | None:
    """Return a function that reads the joules used so far, None where the machine does not tell.

    RAPL counts whole CPU packages, so other processes' energy is in it; its counters start anew at
    ``max_energy_range_uj``, which is made good.
    """
    gpu = Gpu.of(device)
    if gpu is not None:
        return None if gpu.energy() is None else lambda: gpu.energy() or 0.0
    packages = [_Package(folder) for folder in sorted(sys.glob(PACKAGES)) if _readable(folder / "energy_uj")]
    return (lambda: sum(package.joules() for package in packages)) if packages else None


class _Package:
    def __init__(self, folder: Path) -> None:
        self.file = folder / "energy_uj"
        self.range = int((folder / "max_energy_range_uj").read_text())
        self.last, self.turns = int(self.file.read_text()), 0

    def joules(self) -> float:
        now = int(self.file.read_text())
        self.turns += now < self.last
        self.last = now
        return (now + self.turns * self.range) / 1e6


def _readable(file: Path) -> bool:
    try:
        return bool(file.read_text())
    except OSError:
        return False
