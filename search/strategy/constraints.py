"""Constraints on what is known of a network before it is trained."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from space.errors import InputError, nearest, shown

COUNTS, BYTES = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9}, {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9}
SPEEDS, TIMES = {"images/s": 1}, {"ms": 1e-3, "s": 1}
REFERENCE = "x reference"
UNITS: dict[str, Mapping[str, float]] = {
    **dict.fromkeys(("params", "macs", "activations"), COUNTS),
    "memory": BYTES,
    **dict.fromkeys(("train_throughput", "infer_throughput"), SPEEDS),
    "latency": TIMES,
}
COUNTED = ("params", "macs", "activations")  # known without running the network
MODES = {"train_throughput": "train", "infer_throughput": "infer", "latency": "latency", "memory": "train"}


@dataclass(frozen=True)
class Constraint:
    """A limit on one metric: `most` it may be, or least it must be, in base units or as a ratio to the reference."""

    metric: str
    most: bool
    limit: float
    relative: bool
    text: str

    def violation(self, known: Mapping[str, float]) -> float:
        """Return by what share of the limit a network breaks it; 0 or less where it is kept.

        `known`: the metrics in base units, and ratios to the reference as ``"METRIC x reference"``.
        """
        value = known[self.metric + (f" {REFERENCE}" if self.relative else "")]
        beyond = value / self.limit - 1
        return beyond if self.most else -beyond

    def told(self, known: Mapping[str, float]) -> str:
        """Say what a network has, beside the limit."""
        value = known[self.metric + (f" {REFERENCE}" if self.relative else "")]
        if self.relative:
            return f"{self.metric} {value:.3g}{REFERENCE} ({self.text})"
        units = sorted(UNITS[self.metric].items(), key=lambda one: one[1])
        unit, size = next((one for one in reversed(units) if value >= one[1]), units[0])
        return f"{self.metric} {value / size:.3g}{' ' if unit else ''}{unit} ({self.text})"


def parse(metric: str, text: Any) -> Constraint:
    """Read a limit such as ``<= 30M``, ``>= 300 images/s`` or ``>= 0.8x reference``. Raises InputError in one line."""
    if metric not in UNITS:
        raise InputError(f"unknown metric {metric!r}{nearest(metric, UNITS)}; allowed: {', '.join(UNITS)}")
    units = list(UNITS[metric])
    relative = [REFERENCE] if metric not in (*COUNTED, "memory") else []
    found = re.fullmatch(r"\s*([<>]=)\s*(\d+\.?\d*|\.\d+)\s*(.*?)\s*", text) if isinstance(text, str) else None
    unit = found.group(3) if found is not None else ""
    unit = re.sub(r"^x\s+reference$", REFERENCE, unit)
    if found is None or unit not in (*units, *relative) or float(found.group(2)) == 0:
        allowed = ", ".join(repr(one) for one in (*units, *relative) if one)
        raise InputError(
            f"{metric}: got {shown(text)}; allowed: <= or >=, a number above 0 and "
            f"{'none or ' if '' in units else ''}one of the units {allowed}"
        )
    size = 1.0 if unit == REFERENCE else UNITS[metric][unit]
    return Constraint(metric, found.group(1) == "<=", float(found.group(2)) * size, unit == REFERENCE, text.strip())
