"""What a decision costs in a search of very many trials, by many workers: replayed in simulated time.

    python -m benchmarks.search_scale --trials 100000 --workers 64

The space is made up: accuracy and throughput follow formulas, so that nothing is trained. All else is the search's own
code: candidates are proposed, enqueued and claimed, and compared at rungs. Storage is Optuna's in memory, and the
workers, each busy for as long as its network's epochs last, share one process: what is timed is the deciding alone.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from benchmarks.search_strategies import TABLE, Replay, Strategy
from search.candidates import Candidates
from search.gate import Gate
from search.study import Study
from search.table import read
from space import SearchSpace
from space.dimensions import Choice, Dimension

HERE = Path(__file__).parent
DIMENSIONS = {
    "branch ratio": Dimension(path="mixers.*.branch_ratio", choices=tuple(n / 32 for n in range(1, 11))),
    "band kernel": Dimension(path="mixers.*.band_kernel_size", low=3, high=41, step=2),
    "square kernel": Dimension(path="mixers.*.square_kernel_size", low=3, high=11, step=2),
    "depth": Dimension(path="depths.0", low=1, high=20),
    "MLP ratio": Dimension(path="mlp_ratios.*", low=1, high=8),
}
EPOCHS, SEEDS = 9, 1


class MadeUp:
    """An architecture is the more accurate and the slower for all that is larger in it; each factor saturates."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.operators: Mapping[int, dict[str, float]] = _Always({})
        self.counts: Mapping[int, dict[str, float]] = _Always(
            dict.fromkeys(("params", "macs", "activations", "bytes"), 1)
        )

    @cached_property
    def space(self) -> SearchSpace:
        """The space of all architectures."""
        return SearchSpace(base=self.study.base, dimensions=DIMENSIONS, resolution=self.study.data.resolution)

    @cached_property
    def _grid(self) -> Any:
        return np.stack(
            np.meshgrid(*[np.linspace(0, 1, len(one.values)) for one in DIMENSIONS.values()], indexing="ij")
        )

    @cached_property
    def ratio(self) -> Any:
        """Training throughput over the base's, by architecture."""
        return np.exp(1.5 - 3 * self._grid.mean(0)).ravel()

    @cached_property
    def curves(self) -> Any:
        """Validation accuracies: architecture, seed, epoch."""
        final = 40 + 55 * (1 - np.exp(-3 * self._grid)).mean(0).ravel()
        noise = np.random.default_rng(0).normal(0, 2, (len(final), SEEDS, EPOCHS))
        return np.clip(final[:, None, None] * (1 - np.exp(-np.arange(1, EPOCHS + 1) / 3)) + noise, 0, 100)

    def index(self, chosen: Mapping[str, Choice]) -> int:
        """Return which architecture these choices make."""
        places = [one.values.index(chosen[name]) for name, one in DIMENSIONS.items()]
        return int(np.ravel_multi_index(places, [len(one.values) for one in DIMENSIONS.values()]))


class _Always(dict[int, Any]):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def __missing__(self, key: int) -> Any:
        return self.value


class _Nothing:
    """In the place of a front: how good it is does not matter here."""

    now = 0.0

    def add(self, index: int, accuracy: float) -> None:
        pass


class Timings:
    """The seconds of each call of a method, in their order."""

    def __init__(self, owner: type, name: str) -> None:
        self.owner, self.name = owner, name
        self.seconds: list[float] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Time all calls meanwhile."""
        plain: Callable[..., Any] = getattr(self.owner, self.name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return plain(*args, **kwargs)
            finally:
                self.seconds.append(time.perf_counter() - started)

        setattr(self.owner, self.name, timed)
        try:
            yield
        finally:
            setattr(self.owner, self.name, plain)

    def last(self, share: float = 0.1) -> float:
        """Return the milliseconds a call of the last ones."""
        own = self.seconds[-max(1, round(share * len(self.seconds))) :]
        return 1000 * float(np.mean(own))


def measure(strategy: Strategy, trials: int, workers: int) -> dict[str, Any]:
    """Search once; return how many trials came to what, and the milliseconds a decision at the end."""
    table: Any = MadeUp(read(TABLE).study)
    nothing: Any = _Nothing()
    search = Replay(table, strategy.study(table, trials), 0, trials * EPOCHS + 1, workers, nothing, alone=True)
    proposals, rungs = Timings(Candidates, "enqueue_next"), Timings(Gate, "after_epoch")
    started = time.perf_counter()
    with proposals.watched(), rungs.watched():
        search.run()
    return {
        "strategy": strategy.name,
        "trials": len(search.opened.get_trials(deepcopy=False)),
        "workers": workers,
        "seconds": time.perf_counter() - started,
        "ms_a_proposal": proposals.last(),
        "ms_an_epoch": rungs.last(),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        **search.counts,
    }


def _line(found: Mapping[str, Any]) -> str:
    return (
        f"{found['strategy']:20s} {found['trials']:7,d} trials  {found['ms_a_proposal']:7.1f} ms a proposal  "
        f"{found['ms_an_epoch']:6.2f} ms an epoch  {found['seconds']:6.0f} s  {found['peak_mib']:,.0f} MiB  "
        f"{found['complete']:,d} complete, {found['pruned']:,d} pruned"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--workers", type=int, default=64, help="simulated workers side by side (default: 64)")
    parser.add_argument("--samplers", nargs="+", default=["random"])
    parser.add_argument("--json", type=Path, default=HERE / "results" / "search_scale.json")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found: list[dict[str, Any]] = []
    for sampler in args.samplers:
        for trials in args.trials:
            found.append(measure(Strategy(sampler, pruning=True), trials, args.workers))
            print(_line(found[-1]), flush=True)
    args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
