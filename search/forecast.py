"""What a study would run, and for how long: planned trials, counts and a time, nothing trained or stored."""

import json
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lightning_modules.precision import resolve_device
from search.plan import Job, job, paper_rows
from search.study import AdaptiveSeeds, Study
from search.throughput import Candidate, Protocol, measure
from space.errors import InputError


def print_forecast(study: Study, console: Console, *, as_json: bool) -> None:
    """Print the plan as a table, or as JSON."""
    plan = forecast(study)
    if as_json:
        print(json.dumps(plan))
        return
    table = Table("arm", "factor", "seeds", "params", "MACs", "pixels", title=f"{study.full_name} (nothing is run)")
    for row in plan["arms"]:
        counts = (f"{row['params']:,}", f"{row['macs']:,}", str(row["resolution"]))
        table.add_row(escape(row["arm"]), escape(row["factor"]), str(plan["seeds"]), *counts)
    console.print(study.question, markup=False)
    console.print(table)
    if study.kind == "search":
        space = study.space
        by = f"{study.sampler}{' and predictors' if study.predicts else ''}"
        console.print(f"{study.trials} trials by {by} out of at most {space.combinations:,} combinations:")
        for name, dimension in study.dimensions.items():
            console.print(f"  {name}: {', '.join(map(str, dimension.values))}   ({dimension.path})", markup=False)
    console.print(f"{plan['trials']} trials. {plan['time']}", markup=False, highlight=False)


def forecast(study: Study) -> dict[str, Any]:
    """Return the plan as plain data; ``seconds`` is None where the size of the data is only known by reading it."""
    paper_rows(study)
    arms = [_base(study)] if study.kind == "search" else [job(study, arm, 0) for arm in study.arms]
    trials = study.trials if study.kind == "search" else len(arms) * study.first_seeds
    seconds, words = _time(study, trials)
    if isinstance(study.seeds, AdaptiveSeeds):
        words += f" Then up to {_words(study.seeds.budget)} for seeds beyond {study.seeds.min}, where they decide."
    if study.kind == "search":
        words += " Less where candidates are given up, more for the further seeds of those near the front."
    rows = [{key: value for key, value in one.attrs().items() if key not in ("architecture", "seed")} for one in arms]
    return {
        "study": study.full_name,
        "arms": rows,
        "seeds": study.first_seeds if study.kind != "search" else 1,
        "trials": trials,
        "seconds": seconds,
        "time": words,
    }


def _base(study: Study) -> Job:
    return Job("base", "", True, 0, study.base, study.data.resolution)


def _time(study: Study, trials: int) -> tuple[float | None, str]:
    """Estimate from a few training steps of the base, timed now, and the images that a trial trains on."""
    measuring = study.throughput.budget * (trials if study.kind == "search" else 1)
    if study.kind == "table":
        return None, "Time: a few training steps and inferences of each model."
    if study.data.sizes is None:
        return None, "Time: not known before the data are read."
    precision = study.recipe.precision
    if precision == "tf32" and resolve_device(study.device) == "cpu":
        precision = "fp32"  # which is what a CPU then does
    quick = Protocol(batch_size=min(32, study.recipe.batch_size), min_rounds=3, max_rounds=3, warmup_seconds=0.5)
    found = measure(
        {"base": Candidate(study.base, study.data.resolution)},
        reference="base",
        protocol=quick.model_copy(update={"precision": precision}),
        device=study.device,
    )["base"]
    if "failure" in found:
        raise InputError(f"the base network cannot run here: {found['failure']}")
    epochs = study.recipe.total_epochs
    images, val, test = study.data.sizes
    evaluated = epochs * val + test
    each = epochs * images / found["train"]["images_per_s"] + evaluated / found["infer"]["images_per_s"]
    total = trials * each + measuring
    return total, (
        f"Time: about {_words(total)}, from the base's speed in this second "
        f"({found['train']['images_per_s']:,.0f} training images/s): {_words(each)} a trial, one after another."
    )


def _words(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
