"""Can this machine and installation be trusted? python -m search.controls."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search import cli
from search.defaults import DEFAULT_OUT

EPILOG = f"""Two studies whose answer is known, and a measurement of one network under two names. The same command again
goes on where it stopped.
{cli.EXIT_CODES}
"""
SEEDS, ARMS, REGROUPED, MEASURED = 3, 3, 2000, 12
REACH = ("no bands", "band kernel 7", "baseline", "band kernel 15")
KNOWN = {"band kernel 15": "helps", "band kernel 7": "hurts", "no bands": "hurts"}


@dataclass(frozen=True)
class Check:
    """One thing that must be so."""

    name: str
    passed: bool
    found: str
    expected: str


def main(argv: Sequence[str] | None = None) -> int:
    """Run the controls; return the exit code."""
    args = _parser().parse_args(argv)
    return cli.answer(
        lambda: _controls(args, cli.command("search.controls", argv)),
        f"interrupted; nothing finished is lost. To go on: {cli.command('search.controls', argv)}",
    )


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser(
        "search.controls",
        "Run a positive and a null control, and say whether results of this installation can be trusted.",
        EPILOG,
    )
    add = parser.add_argument
    add("--out", metavar="DIR", default=DEFAULT_OUT, help="where reports and databases go (default: %(default)s)")
    add("--set", metavar="PATH=VALUE", action="append", default=[], help="change a field of both studies")
    return parser


def _controls(args: argparse.Namespace, command: str) -> int:
    import pandas as pd

    from search.analysis import load
    from search.run import main as run

    changes = [part for change in args.set for part in ("--set", change)]
    storage, frames = f"sqlite:///{Path(args.out) / 'studies.db'}", {}
    for name in ("positive_control", "null_control"):
        code = run(["--study", name, "--out", args.out, "--storage", storage, "--quiet", *changes])
        if code:
            return code
        frames[name] = load(name, storage=storage)
    checks = [*positive(frames["positive_control"]), *null(frames["null_control"]), *throughput()]
    page = write_page(checks, Path(args.out) / "controls", command, frames)
    shown = [
        {"control": one.name, "": "passed" if one.passed else "FAILED", "found": one.found, "expected": one.expected}
        for one in checks
    ]
    cli.print_table(pd.DataFrame(shown), "controls")
    print(f"page     {page}", file=sys.stderr)
    return 0 if all(check.passed for check in checks) else 1


def positive(frame: Any) -> list[Check]:
    """Check that what is known to hurt or help is found to, the more the further the bands reach."""
    from search.analysis import effects

    found = {row["arm"]: row for row in effects(frame).to_dict("records")}
    means = {str(arm): float(row["accuracy"]) for arm, row in found.items()}
    checks = [
        Check(
            "positive: accuracy goes by the reach of the bands",
            sorted(REACH, key=means.__getitem__) == list(REACH),
            " < ".join(f"{arm} {means[arm]:.1f} %" for arm in sorted(REACH, key=means.__getitem__)),
            " < ".join(REACH),
        )
    ]
    for arm, verdict in KNOWN.items():
        row = found[arm]
        shown = f"{row['verdict']}: {row['effect']:+.1f} points [{row['effect_low']:+.1f} … {row['effect_high']:+.1f}]"
        checks.append(Check(f"positive: {arm}", row["verdict"] == verdict, shown, verdict))
    return checks


def null(frame: Any) -> list[Check]:
    """Check that groups of seeds of one network are not told apart more often than the stated rate."""
    import numpy as np
    from scipy.stats import binomtest

    from search.analysis.inference import decide, estimate
    from search.analysis.scores import Scores

    scores = Scores.of(frame)
    seeds = scores.shared("baseline")
    accuracy, right = scores.accuracy[scores.arms.index("baseline"), seeds], scores.by_image("baseline", seeds)
    rng, false = np.random.default_rng(0), 0
    for _ in range(REGROUPED):
        base, *arms = rng.permutation(len(seeds))[: SEEDS * (ARMS + 1)].reshape(ARMS + 1, SEEDS)
        found = {
            str(index): [estimate(accuracy[arm], accuracy[base], None if right is None else right[arm] - right[base])]
            for index, arm in enumerate(arms)
        }
        false += any(one.verdict in ("hurts", "helps") for one in decide(found).values())
    # The groups share seeds, so they tell no more than as many studies as the seeds make without sharing any.
    studies = len(seeds) // (SEEDS * (ARMS + 1))
    share = false / REGROUPED
    surprise = binomtest(round(share * studies), studies, 0.05, alternative="greater").pvalue if studies else 1.0
    return [
        Check(
            "null: studies with any false verdict",
            bool(surprise > 0.01),
            f"{share:.1%} of {REGROUPED} regroupings of {len(seeds)} seeds",
            "5 % or fewer, as far as so many seeds can tell",
        )
    ]


def throughput() -> list[Check]:
    """Check that one network under two names is as fast as itself, and that the machine was quiet."""
    from scipy.stats import binomtest

    from search.throughput import Candidate, Protocol, measure
    from space import preset

    small = Candidate(preset("inceptionnext_laptop"), 24)
    protocol = Protocol(batch_size=16, modes=("infer",), target=0.02, budget=4, block_seconds=0.02, warmup_seconds=1)
    records = [measure({"a": small, "b": small}, reference="a", protocol=protocol)["b"] for _ in range(MEASURED)]
    parts = [record["infer"] for record in records]
    outside = sum(not part["ratio_low"] <= 1 <= part["ratio_high"] for part in parts)
    quiet = sum(not record["flags"] for record in records)
    reasons = sorted({flag.split(": ")[1] for record in records for flag in record["flags"]})
    return [
        Check(
            "null: one network as fast as itself",
            binomtest(outside, MEASURED, 0.05, alternative="greater").pvalue > 0.01,
            f"{MEASURED - outside} of {MEASURED} intervals hold 1",
            "19 of 20",
        ),
        Check(
            "the machine is quiet enough to be measured",
            quiet >= MEASURED / 2,
            f"{quiet} of {MEASURED} measurements undisturbed" + (f" ({', '.join(reasons)})" if reasons else ""),
            "more than half",
        ),
    ]


def write_page(checks: Sequence[Check], out: Path, command: str, frames: dict[str, Any]) -> Path:
    """Write controls.html into `out`; return its path."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from search.environment import environment

    out.mkdir(parents=True, exist_ok=True)
    trusted = all(check.passed for check in checks)
    template = Environment(loader=PackageLoader("search.analysis", "."), autoescape=True, undefined=StrictUndefined)
    device = next(iter(frames["positive_control"]["device"].dropna()), "cpu")
    page = template.get_template("controls.html").render(
        trusted=trusted,
        checks=checks,
        facts={**environment("cpu"), "device": device},
        command=command,
        studies=[frame.attrs["study"] for frame in frames.values()],
    )
    path = out / "controls.html"
    path.write_text(page)
    return path


if __name__ == "__main__":
    sys.exit(main())
