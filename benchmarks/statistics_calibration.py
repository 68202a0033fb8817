"""Whether verdicts can be believed, on simulated studies whose truth is known.

    python -m benchmarks.statistics_calibration [--studies 2000] [--workers 2] [--out FILE.json]

Each row simulates whole studies: accuracies of a baseline and its arms over seeds, and the right and wrong predictions
they come from where images are drawn too. Reported: how often the 95 % interval of an arm holds the truth, in how many
studies any arm without an effect was called better or worse, and any arm that differs by the margin or more equivalent.
"""

import argparse
import json
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from search.analysis.inference import Difference, decide, estimate, interval_alpha, looks

Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]
NOISES: dict[str, Draw] = {
    "normal": lambda rng, size: rng.standard_normal(size),
    "heavy tails (t, 3 df)": lambda rng, size: rng.standard_t(3, size) / np.sqrt(3),
    "skewed (lognormal)": lambda rng, size: (rng.lognormal(0, 0.6, size) - np.exp(0.18)) / 0.78,
}
MARGIN = 1.0
SEEDS = ((3, 3), (5, 5), (10, 10), (20, 20), (3, 20))
SETTINGS = list(product(NOISES.items(), SEEDS, (2, 8, 20), ((False, 0.0), (True, 0.6))))
IMAGE_SETTINGS = list(product((3, 5, 10), (200, 2000)))


@dataclass
class Count:
    """How often something was so."""

    yes: int = 0
    of: int = 0

    def add(self, outcome: bool) -> None:
        """Count one outcome."""
        self.yes += outcome
        self.of += 1

    def text(self) -> str:
        """Return the share with its 95 % interval, in percent."""
        if not self.of:
            return "–"
        low, high = binomtest(self.yes, self.of).proportion_ci(0.95, "wilson")
        return f"{100 * self.yes / self.of:.1f} [{100 * low:.1f} … {100 * high:.1f}]"


def simulate(
    rng: np.random.Generator,
    *,
    seeds: tuple[int, int],
    arms: int,
    noise: Draw,
    unequal: bool,
    correlated: float,
    studies: int,
) -> dict[str, Count]:
    """Simulate studies of arms without an effect, at the margin, and far beyond it.

    `seeds` are the fewest and the most: where they differ, the study is adaptive, and an arm gets more until it is
    decided. Intervals are those of the seeds that were run in the end, as the report shows them.
    """
    found = {name: Count() for name in ("coverage", "false verdict", "false equivalence", "true effect seen")}
    truth = np.zeros(arms)
    truth[1::4], truth[3::4] = MARGIN, -6.0
    most, schedule = seeds[1], looks(*seeds)
    for _ in range(studies):
        spread = np.exp(rng.normal(0, 0.5, arms)) if unequal else np.ones(arms)
        shared = noise(rng, (most, 1)) * np.sqrt(correlated)
        base = 90 + shared[:, 0] + noise(rng, (most,)) * np.sqrt(1 - correlated)
        own = 90 + truth + spread * (shared + noise(rng, (most, arms)) * np.sqrt(1 - correlated))
        looked: list[list[Difference]] = [[] for _ in range(arms)]
        verdicts = ["undecided"] * arms
        for count in schedule:
            for arm in range(arms):
                if verdicts[arm] == "undecided":
                    looked[arm].append(estimate(own[:count, arm], base[:count]))
            by_name = {str(arm): one for arm, one in enumerate(looked)}
            decided = decide(by_name, planned=len(schedule), margin=MARGIN)
            verdicts = [decided[str(arm)].verdict for arm in range(arms)]
        for arm in range(arms):
            low, high = looked[arm][-1].interval(interval_alpha(len(looked[arm]), len(schedule)))
            found["coverage"].add(low <= truth[arm] <= high)
            if truth[arm] < -MARGIN:
                found["true effect seen"].add(verdicts[arm] == "hurts")
        signs = {"hurts": -1, "helps": 1}
        false = [signs[one] != np.sign(effect) for one, effect in zip(verdicts, truth, strict=True) if one in signs]
        found["false verdict"].add(any(false))
        found["false equivalence"].add(
            any(one == "equivalent" and effect for one, effect in zip(verdicts, truth, strict=True))
        )
    return found


def with_images(rng: np.random.Generator, *, seeds: int, images: int, studies: int) -> dict[str, Count]:
    """Simulate one arm without an effect, seeds and test images drawn anew in each study."""
    found = {"seeds and images": Count(), "seeds alone": Count()}
    for _ in range(studies):
        hard, tastes = rng.normal(1.0, 1.5, images), rng.normal(0, 0.6, (2, images))
        right = [
            hard + taste + rng.normal(0, 0.15, (seeds, 1)) + rng.logistic(0, 0.5, (seeds, images)) > 0
            for taste in tastes
        ]
        own, base = (100 * one.mean(1) for one in right)
        by_image = 100.0 * (right[0].astype(float) - right[1])
        for name, images_too in (("seeds and images", by_image), ("seeds alone", None)):
            low, high = estimate(own, base, images_too).interval()
            found[name].add(bool(low <= 0 <= high))
    return found


def setting(number: int, studies: int) -> dict[str, Any]:
    """Simulate the studies of one setting, each of its own random numbers; return a row."""
    (name, noise), seeds, arms, (unequal, correlated) = SETTINGS[number]
    rng = np.random.default_rng([0, number])
    found = simulate(rng, seeds=seeds, arms=arms, noise=noise, unequal=unequal, correlated=correlated, studies=studies)
    return {
        "noise": name,
        "seeds": f"{seeds[0]} to {seeds[1]}" if seeds[0] < seeds[1] else str(seeds[0]),
        "arms": arms,
        "variances": "unequal" if unequal else "equal",
        "correlation": correlated,
        **{key: count.text() for key, count in found.items()},
    }


def image_setting(number: int, studies: int) -> dict[str, Any]:
    """Simulate the studies of one number of seeds and test images; return a row."""
    seeds, images = IMAGE_SETTINGS[number]
    counts = with_images(np.random.default_rng([1, number]), seeds=seeds, images=images, studies=studies)
    return {"seeds": seeds, "images": images, **{key: count.text() for key, count in counts.items()}}


def ranges(rows: list[dict[str, Any]]) -> str:
    """Return the least, mean and most of each share over the settings, by noise and kind of study, as a table."""
    shares = ("coverage", "false verdict", "false equivalence", "true effect seen")
    lines = ["| | " + " | ".join(shares) + " |", "| --- " + "| --: " * len(shares) + "|"]
    for adaptive, name in product((False, True), NOISES):
        own = [row for row in rows if row["noise"] == name and ("to" in row["seeds"]) == adaptive]
        cells = []
        for share in shares:
            values = [float(row[share].split()[0]) for row in own if row[share] != "–"]
            cells.append(", ".join(f"{value:.1f}" for value in (min(values), float(np.mean(values)), max(values))))
        lines.append(f"| {name}{', adaptive' if adaptive else ''} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000, help="simulated studies a row (%(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes (%(default)s)")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    args = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {"studies": [], "images": []}
    with ProcessPoolExecutor(args.workers) as pool:
        for name, run, settings in (("studies", setting, SETTINGS), ("images", image_setting, IMAGE_SETTINGS)):
            for row in pool.map(run, range(len(settings)), [args.studies] * len(settings)):
                found[name].append(row)
                print(" | ".join(f"{key} {cell}" for key, cell in row.items()), flush=True)
    print(ranges(found["studies"]))
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
