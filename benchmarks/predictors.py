"""How well what is known of some architectures ranks the others: on a space that was trained whole.

    python -m benchmarks.predictors --repetitions 100

Of as many architectures as are known, drawn at random, one seed each and the timed operators are looked up; the others'
accuracies (the mean over all seeds) and throughputs are predicted. By itself, "operators" is what the timed operators
alone let one expect; "throughput" has a Gaussian process on top.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.search_strategies import TABLE
from search.strategy.predictors import Knowledge, encode, rank_correlation
from search.strategy.speed import OperatorTimes
from search.table import Table, read
from space.complexity import operators

HERE = Path(__file__).parent
KNOWN = (2, 4, 8, 16, 32)


class Held:
    """A table, as predictors see it."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.rows = np.array(
            [encode(table.space, *pair) for pair in zip(table.choices, table.counts, strict=True)],
        )
        made = [table.space.architecture(one) for one in table.choices]
        self.works = [operators(one, table.study.data.resolution) for one in made]
        self.seen = table.curves.max(2)

    def correlations(self, known: int, seed: int) -> dict[str, float]:
        """Return the rank correlations over the architectures that are not known."""
        rng, table = np.random.default_rng(seed), self.table
        some = rng.choice(len(self.rows), known, replace=False)
        others = np.setdiff1d(np.arange(len(self.rows)), some)
        times = OperatorTimes([(self.works[place], table.operators[place]) for place in some])
        prior = np.array([1 / times.seconds(one) for one in self.works])
        reached = np.column_stack([self.seen[some, rng.integers(self.seen.shape[1], size=known)], table.ratio[some]])
        expected = Knowledge(self.rows[some], reached, prior=prior[some]).expect(self.rows[others], prior[others])
        found: dict[str, NDArray[np.float64]] = {"accuracy": expected[:, 0], "throughput": expected[:, 1]}
        truth = {"accuracy": self.seen.mean(1), "throughput": table.ratio, "operators": table.ratio}
        found["operators"] = prior[others]
        return {name: rank_correlation(found[name], truth[name][others]) for name in truth}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/predictors-TABLE.json")
    args = parser.parse_args()
    held, results = Held(read(args.table)), {}
    with threadpool_limits(1):
        for known in KNOWN:
            runs = [held.correlations(known, seed) for seed in range(args.repetitions)]
            found = {name: np.array([run[name] for run in runs]) for name in runs[0]}
            results[known] = {
                name: [float(one.mean()), *np.quantile(one, (0.025, 0.975))] for name, one in found.items()
            }
            cells = [
                f"{name} {mean:.3f} [{low:.3f} … {high:.3f}]" for name, (mean, low, high) in results[known].items()
            ]
            print(f"{known:3d} known: {'   '.join(cells)}", flush=True)
    path = args.json or HERE / "results" / f"predictors-{args.table.stem}.json"
    path.write_text(json.dumps({"repetitions": args.repetitions, "known": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
