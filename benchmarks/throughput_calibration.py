"""Whether the throughput instrument's intervals and flags can be believed, shown on this machine.

    python -m benchmarks.throughput_calibration [null|known|neighbour|timm|width ...] [--out FILE.json]

null       one network under two names, measured again and again: how often does the 95 % interval hold 1?
known      simulated networks of known ratio on a simulated machine that drifts, jitters and is disturbed: the bias
neighbour  a neighbour started on purpose is flagged; quiet runs are not
timm       the protocol of timm's benchmark script, one model after the other, beside ours on the same models
width      the half-width of a pair's interval against the time spent
"""

import argparse
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest

from search.measurements import modes
from search.models import candidate
from search.throughput import Candidate, Protocol, measure
from search.throughput.conditions import describe_device
from search.throughput.interleave import interleave, ratios
from search.throughput.intervals import interval
from search.throughput.steps import make_step, timed
from space import preset

SMALL = Candidate(preset("inceptionnext_laptop"), 24)
PAIR = ("inceptionnext_atto", "convnext_atto")


class Machine:
    """Networks of known speed on a machine whose own speed drifts, jitters and is now and then disturbed.

    `memory` is the correlation of the jitter between neighbouring blocks; part of it all networks share.
    """

    def __init__(
        self, speeds: dict[str, float], noise: float = 0.02, drift: float = 0.0, memory: float = 0.0, seed: int = 0
    ) -> None:
        self.speeds, self.noise, self.drift, self.memory = speeds, noise, drift, memory
        self.random, self.now = np.random.default_rng(seed), 0.0
        self.jitter = dict.fromkeys(speeds, 0.0)

    def clock(self) -> float:
        """Return the simulated seconds."""
        return self.now

    def blocks(self) -> dict[str, Callable[[], float]]:
        """Return what `interleave` times."""
        return {name: lambda name=name: self._block(name) for name in self.speeds}

    def _block(self, name: str) -> float:
        fresh = math.sqrt(1 - self.memory**2) * self.random.normal()
        self.jitter[name] = self.memory * self.jitter[name] + fresh
        slower = 1 + self.drift * self.now + 0.5 * (self.random.random() < 0.02)
        speed = self.speeds[name] / slower * math.exp(self.noise * self.jitter[name])
        self.now += 10 / speed
        return speed


def null(repeats: int = 200) -> dict[str, Any]:
    """Measure one network under two names; count the intervals that hold 1."""
    protocol = Protocol(
        batch_size=16, modes=("infer",), target=0.02, budget=4, block_seconds=0.02, warmup_seconds=1, threads=1
    )
    covered, flagged, widths, centres = [], [], [], []
    reasons: dict[str, int] = {}
    for done in range(repeats):
        record = measure({"one": SMALL, "other": SMALL}, reference="one", protocol=protocol)["other"]
        part = record["infer"]
        covered.append(part["ratio_low"] <= 1 <= part["ratio_high"])
        flagged.append(bool(record["flags"]))
        for flag in record["flags"]:
            reasons[flag.split(": ")[1]] = reasons.get(flag.split(": ")[1], 0) + 1
        widths.append((part["ratio_high"] - part["ratio_low"]) / 2 / part["ratio"])
        centres.append(part["ratio"])
        _tell(f"null {done + 1}/{repeats}: {sum(covered)} hold 1, {sum(flagged)} flagged")
    unflagged = [one for one, flag in zip(covered, flagged, strict=True) if not flag]
    return {
        "coverage": _share(covered),
        "coverage of unflagged": _share(unflagged),
        "flagged": _share(flagged),
        "reasons": reasons,
        "mean ratio": float(np.exp(np.mean(np.log(centres)))),
        "median half-width": median(widths),
    }


def known(repeats: int = 200) -> dict[str, Any]:
    """Find known ratios on simulated machines; return bias and coverage of each."""
    found = {}
    protocol = Protocol(target=0.01, budget=1e9)
    for drift, memory in ((0.0, 0.0), (0.001, 0.0), (0.001, 0.6), (0.01, 0.9)):
        for truth in (0.5, 0.95, 1.5):
            centres, covered = [], []
            for seed in range(repeats):
                machine = Machine({"one": 100, "other": 100 * truth}, 0.03, drift, memory, seed)
                rounds = interleave(machine.blocks(), "one", protocol, budget=1e9, clock=machine.clock)
                ratio = interval(ratios(rounds.speeds, "other", "one"))
                centres.append(ratio.centre)
                covered.append(ratio.low <= truth <= ratio.high)
            name = f"ratio {truth}, drift {drift} a second, memory {memory}"
            bias = float(np.exp(np.mean(np.log(centres)))) / truth - 1
            found[name] = {"bias": bias, "coverage": _share(covered)}
    return found


def neighbour(repeats: int = 60) -> dict[str, Any]:
    """Measure with and without a process that keeps one CPU busy, in alternation; count the flagged."""
    protocol = Protocol(batch_size=16, modes=("infer",), target=1e-6, budget=2, block_seconds=0.02, warmup_seconds=0.5)
    flagged: dict[bool, list[bool]] = {True: [], False: []}
    reasons: dict[str, int] = {}
    for done in range(2 * repeats):
        busy = bool(done % 2)
        with _neighbour() if busy else _nobody():
            flags = measure({"one": SMALL, "other": SMALL}, reference="one", protocol=protocol)["other"]["flags"]
        flagged[busy].append(bool(flags))
        for flag in flags:
            reason = f"{'with' if busy else 'without'} a neighbour: {flag.split(': ')[1]}"
            reasons[reason] = reasons.get(reason, 0) + 1
        _tell(f"neighbour {done + 1}/{2 * repeats}")
    return {"flagged with": _share(flagged[True]), "flagged without": _share(flagged[False]), "reasons": reasons}


def timm_protocol(repeats: int = 8, resolution: int = 96) -> dict[str, Any]:
    """Compare the ratio of a pair by timm's protocol, model after model, with ours; both several times.

    timm's benchmark script times 10 warm-up and 40 further steps of one model in one go (its defaults, and the
    paper's protocol).
    """
    found: dict[str, Any] = {}
    protocol = Protocol(batch_size=8, target=0.01, budget=30, modes=("infer",))
    models = {name: candidate(name, resolution) for name in PAIR}
    ours: list[dict[str, Any]] = []
    theirs = []
    for done in range(repeats):
        speeds = {}
        for name, model in models.items():
            step = make_step(model, "infer", protocol, _device(), "channels_last")
            timed(step, 10, _device())
            speeds[name] = 40 * protocol.batch_size / timed(step, 40, _device())
        theirs.append(speeds[PAIR[0]] / speeds[PAIR[1]])
        ours.append(measure(models, reference=PAIR[1], protocol=protocol)[PAIR[0]])
        _tell(f"timm {done + 1}/{repeats}")
    found["ratio by timm's protocol"] = {"median": median(theirs), "least": min(theirs), "most": max(theirs)}
    centres = [record["infer"]["ratio"] for record in ours]
    found["ratio by ours"] = {"median": median(centres), "least": min(centres), "most": max(centres)}
    found["intervals of ours"] = [[record["infer"]["ratio_low"], record["infer"]["ratio_high"]] for record in ours]
    found["flagged"] = sum(bool(record["flags"]) for record in ours)
    return found


def width(budget: float = 60, resolution: int = 96) -> dict[str, Any]:
    """Measure a pair for a minute a mode; return the half-width that parts of the rounds would have given."""
    found: dict[str, Any] = {}
    for mode in ("train", "infer"):
        protocol = Protocol(batch_size=8, target=1e-6, budget=budget, modes=(mode,), max_rounds=100_000)
        models = {name: candidate(name, resolution) for name in PAIR}
        records = measure(models, reference=PAIR[1], protocol=protocol)
        for part in modes(records[PAIR[0]]).values():
            own, base = part["rounds"], records[PAIR[1]][mode]["rounds"]
            each = part["seconds"] / len(own)
            row: dict[str, Any] = {}
            for spent in (5, 10, 20, 30, 60):
                count = min(len(own), round(spent / each))
                if spent <= budget and count >= 3:
                    readings = [a / b for a, b in zip(own[:count], base[:count], strict=True)]
                    row[f"{spent} s"] = interval(readings).half_width
            found[mode] = row | {"rounds": len(own), "ratio": part["ratio"], "flags": records[PAIR[0]]["flags"]}
        _tell(f"width {mode}")
    return found


@contextmanager
def _neighbour() -> Iterator[None]:
    """Keep one CPU busy, in a process that is not this one's child: those count as its own work."""
    busy = shlex.join([sys.executable, "-c", "while True: pass"])
    started = subprocess.run(
        f"{busy} >/dev/null 2>&1 & echo $!", shell=True, capture_output=True, text=True, check=True
    )
    time.sleep(0.2)
    try:
        yield
    finally:
        os.kill(int(started.stdout), signal.SIGKILL)


@contextmanager
def _nobody() -> Iterator[None]:
    yield


def _share(outcomes: list[bool]) -> dict[str, Any]:
    count = sum(outcomes)
    if not outcomes:
        return {"count": 0, "of": 0}
    low, high = binomtest(count, len(outcomes)).proportion_ci(0.95, "wilson")
    return {"count": count, "of": len(outcomes), "share": count / len(outcomes), "low": float(low), "high": float(high)}


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "null": null,
    "known": known,
    "neighbour": neighbour,
    "timm": timm_protocol,
    "width": width,
}


def main() -> None:
    """Run the parts asked for and print what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--out", type=Path, help="write everything as JSON")
    args = parser.parse_args()
    found: dict[str, Any] = {"machine": describe_device(_device()), "load before": os.getloadavg()[0]}
    for part in args.parts or PARTS:
        found[part] = PARTS[part]()
        print(f"\n{part}:\n{json.dumps(found[part], indent=1)}", flush=True)
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
