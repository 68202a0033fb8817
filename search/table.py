"""A space trained once and for all, to try strategies on without training: python -m search.table."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from search import cli
from search import storage as store
from search.analysis import load
from search.defaults import DEFAULT_OUT
from search.factorial import Factor, crossed
from search.study import Study
from space import Architecture, SearchSpace
from space.dimensions import Choice, Dimension
from space.errors import InputError, first_line

EPILOG = f"""examples:
  python -m search.run --study studies/tables/laptop.yaml
  python -m search.table --study laptop-laptop studies/tables/laptop.parquet
{cli.EXIT_CODES}
"""
COUNTS = ("params", "macs", "activations", "bytes")
RATIOS = ("ratio", "ratio_low", "ratio_high")
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Every architecture of a space, with all its seeds.

    `choices` and `counts` are by architecture, like `ratio`, the training throughput over the base's, and `operators`,
    the seconds that each kind of operator took in a training step. `curves` (architectures, seeds, epochs) are
    validation accuracies in percent, `test` (architectures, seeds) test accuracies.
    """

    study: Study
    choices: tuple[dict[str, Choice], ...]
    counts: tuple[dict[str, float], ...]
    operators: tuple[dict[str, float], ...]
    ratio: Array
    curves: Array
    test: Array

    @cached_property
    def space(self) -> SearchSpace:
        """The space, which the table holds whole."""
        dimensions = {
            name: Dimension(path=factor.path, choices=factor.levels) for name, factor in self.study.factors.items()
        }
        return SearchSpace(base=self.study.base, dimensions=dimensions, resolution=self.study.data.resolution)

    def index(self, chosen: Mapping[str, Choice]) -> int:
        """Return which architecture these choices make."""
        return self._places[tuple(chosen[name] for name in self.study.factors)]

    @cached_property
    def _places(self) -> dict[tuple[Choice, ...], int]:
        return {tuple(one.values()): place for place, one in enumerate(self.choices)}


def rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a factorial study's records as the rows of a table: one a trial, of the seeds that every arm has.

    Raises InputError for another kind of study, or where no seed is whole.
    """
    definition, name = frame.attrs["definition"], frame.attrs["study"]
    if definition.get("kind") != "factorial" or definition.get("fraction") != 1:
        raise InputError(f"study {name!r}: only a factorial study of the whole grid makes a table")
    done = frame[frame["state"] == "COMPLETE"]
    whole = [seed for seed, own in done.groupby("seed") if set(own["arm"]) == set(definition["arms"])]
    if not whole:
        raise InputError(f"study {name!r}: no seed has all of its {len(definition['arms'])} arms yet")
    made = pd.DataFrame(
        [
            {
                **{
                    factor: definition["arms"][row["arm"]]["change"][one["path"]]
                    for factor, one in _factors(definition)
                },
                "seed": int(row["seed"]),
                **{count: int(row[count]) for count in COUNTS},
                **{ratio: float(row[f"train_{ratio}"]) for ratio in RATIOS},
                "operators": [
                    {"kind": one["kind"], "seconds": one["seconds"]}
                    for one in row["operators"].get("train", {}).get("operators", [])
                ],
                "val_accuracy": np.array([point["val_accuracy"] for point in row["curves"]], dtype=np.float32),
                "test_accuracy": float(row["test_accuracy"]),
            }
            for _, row in done[done["seed"].isin(whole)].iterrows()
        ]
    )
    kept = {field: value for field, value in definition.items() if field not in ("arms", "paper")}
    made.attrs = {"study": name, "definition": kept, "commit": sorted(set(done["git_commit"].dropna()))}
    return made


def _factors(definition: Mapping[str, dict[str, dict[str, str]]]) -> list[tuple[str, dict[str, str]]]:
    return list(definition["factors"].items())


def read(path: Path) -> Table:
    """Read a table. Raises InputError for a file that holds none."""
    try:
        frame = pd.read_parquet(path)
        definition = frame.attrs["definition"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: holds no table: {first_line(error)}") from error
    base = Architecture.parse(definition["base"], f"{path}: base")
    grid = {name: Factor.model_validate(one) for name, one in definition["factors"].items()}
    study = Study.recorded(definition | {"arms": crossed(base, grid, 1)}, str(path))
    factors, seeds = list(study.factors), frame["seed"].nunique()
    ordered = frame.sort_values([*factors, "seed"])
    first = ordered.iloc[::seeds]
    return Table(
        study=study,
        choices=tuple(dict(zip(factors, one, strict=True)) for one in first[factors].itertuples(index=False)),
        counts=tuple({str(k): float(v) for k, v in one.items()} for one in first[list(COUNTS)].to_dict("records")),
        operators=tuple({one["kind"]: float(one["seconds"]) for one in own} for own in first["operators"]),
        ratio=first["ratio"].to_numpy(dtype=float),
        curves=np.stack(ordered["val_accuracy"].to_list()).reshape(len(first), seeds, -1).astype(float),
        test=ordered["test_accuracy"].to_numpy(dtype=float).reshape(len(first), seeds),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Write a table; return the exit code."""
    args = _parser().parse_args(argv)
    return cli.answer(lambda: _write(args), "interrupted; nothing was written")


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("search.table", "Write the records of a factorial study as a table to replay.", EPILOG)
    parser.add_argument("--study", required=True, metavar="NAME", help="its name in the storage")
    parser.add_argument("--out", metavar="DIR", default=DEFAULT_OUT, help="where the storage is (default: %(default)s)")
    cli.add_storage(parser)
    parser.add_argument("file", type=Path, help="the Parquet file to write")
    return parser


def _write(args: argparse.Namespace) -> int:
    storage = store.open_storage(cli.storage_url(args), create=False, write=False)
    found = rows(load(args.study, storage=storage))
    try:
        found.to_parquet(args.file, compression="zstd", index=False)
    except OSError as error:
        raise InputError(f"{args.file}: cannot be written: {error.strerror or error}") from error
    print(f"{len(found)} trials, {found['seed'].nunique()} seeds each, written to {args.file}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
