"""The machine's two limits, measured here: how fast it multiplies, and how fast it moves bytes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch

from lightning_modules.precision import AUTOCAST, Precision, arithmetic
from search.throughput.steps import timed

SIZES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}
COPY_BYTES = {"cpu": 256 << 20, "cuda": 2 << 30}  # more than caches hold
REPEATS = 5


@dataclass(frozen=True)
class Roofline:
    """Peak multiply-accumulates and bytes a second (Williams, Waterman and Patterson 2009)."""

    macs_per_s: float
    bytes_per_s: float

    @property
    def balance(self) -> float:
        """The arithmetic intensity, in MACs a byte, below which moving bytes is what takes the time."""
        return self.macs_per_s / self.bytes_per_s

    def seconds(self, macs: float, moved: float) -> float:
        """Return the least time in which the machine does this work."""
        return max(macs / self.macs_per_s, moved / self.bytes_per_s)

    def bound(self, parts: Iterable[Mapping[str, float]]) -> float:
        """Return the least time for parts that run one after another, each with its macs and bytes."""
        return sum(self.seconds(part["macs"], part["bytes"]) for part in parts)


def measure_roofline(device: str, precision: Precision) -> Roofline:
    """Measure the peaks: the fastest of square matrix products in `precision`, and of copies of a large tensor.

    A process measures them once for a device, precision and number of threads.

    Both are attained, not theoretical: a convolution may exceed them a little, and operators whose data stay in a
    cache may exceed the second by far.
    """
    return _measure(device, precision, torch.get_num_threads())


@lru_cache
def _measure(device: str, precision: Precision, threads: int) -> Roofline:
    kind = torch.device(device).type
    dtype = AUTOCAST.get(precision, torch.float32)
    with arithmetic(precision), torch.no_grad():
        macs = 0.0
        for size in SIZES[kind]:
            a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
            out = torch.empty_like(a)
            macs = max(macs, size**3 / _fastest(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), device))
        source = torch.ones(COPY_BYTES[kind] // 4, device=device)
        target = torch.empty_like(source)
        moved = 2 * COPY_BYTES[kind] / _fastest(lambda: target.copy_(source), device)
    return Roofline(macs, moved)


def _fastest(call: object, device: str) -> float:
    assert callable(call)
    call()
    return min(timed(call, 1, device) for _ in range(REPEATS))
