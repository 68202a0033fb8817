"""The report: one HTML file that needs nothing else, with tables and figures beside it."""

import fcntl
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from search.analysis import efficiency
from search.analysis.answer import answer
from search.analysis.dominance import dominations, noisy_front
from search.analysis.factorial import is_factorial
from search.analysis.figures import all_figures
from search.analysis.findings import prediction_quality
from search.analysis.once import unchanged
from search.analysis.records import flat
from search.analysis.scores import accuracy_column
from search.analysis.tables import (
    DISTURBED,
    dimensions_table,
    main_table,
    markdown,
    paper_table,
    replication_table,
    steps_table,
    variance_table,
)
from search.strategy.predictors import POOR

NEW = "unfinished"  # the folder in which a report is written
TITLES = {
    "accuracy_throughput": ("Accuracy against training throughput", "Up and to the right is better."),
    "effects": (
        "Effects on accuracy",
        "Differences at the same seed, with 95 % intervals for each by itself; the verdicts are corrected for the "
        "number of arms. Shaded: differences that the study says do not matter.",
    ),
    "interactions": (
        "Factors together",
        "Mean accuracy and Student's 95 % interval over seeds, of two factors' levels; parallel lines: neither effect "
        "depends on the other.",
    ),
    "throughput": (
        "Throughput",
        "All arms were timed in turn within each round, so drift hits all alike. Hollow: disturbed.",
    ),
    "learning_curves": ("Learning curves", ""),
    "hypervolume": ("Progress of the search", "The area that the front found so far dominates."),
    "operators": (
        "Where the time goes",
        "Operators of a training step timed one by one, in eager mode; depthwise kernels are height x width.",
    ),
    "efficiency": (
        "Efficiency",
        "A network's time is its MACs over the machine's peak, over its efficiency (after Lavin, arXiv 2404.03617). "
        "The peak is the fastest matrix product measured here.",
    ),
    "levels": (
        "What the front is made of",
        "A line a value: the front of the architectures that have it; grey: the whole front. Trained to the end only.",
    ),
    "importances": ("What mattered", "Shares come from a model fitted to few trials: read them as an order."),
}
SCALED = "Candidates were timed one after another: their times are scaled to the base's by the ratios."


@unchanged()
def write_report(frame: pd.DataFrame, out: Path, *, command: str, live: bool = False) -> dict[str, Path]:
    """Write report.html, tables as CSV, Markdown and LaTeX (booktabs), trials as CSV and figures as PNG into `out`.

    Return their paths by name; ``report`` is the page. `command` is what repeats the study: tables and figures carry
    it, and which records they were made from. A `live` page loads itself anew every few seconds.
    What was there before is replaced once all of it is written. Raises OSError where it cannot be, as on a full disk.
    """
    origin = f"{_identity(frame)}: {command}"
    figures = all_figures(frame)
    explained = efficiency.of_arms(frame)
    operators = None
    if explained is not None:
        roofline, found = explained
        operators = efficiency.kinds_table(found, roofline)
        figures |= {"operators": efficiency.kinds_figure(found), "efficiency": efficiency.gap_figure(found, roofline)}
    tables = {
        "result": main_table(frame),
        "steps": steps_table(frame),
        "variance": variance_table(frame),
        "replication": replication_table(frame),
        "dimensions": dimensions_table(frame),
        "paper": paper_table(frame),
        "operators": operators,
    }
    with _alone(out):
        new = out / NEW
        (new / "figures").mkdir(parents=True, exist_ok=True)
        paths = {"report": Path("report.html"), "trials": Path("trials.csv")}
        for name, table in tables.items():
            if table is not None:
                paths |= {f"{name}_{kind}": Path(f"{name}.{kind}") for kind in ("csv", "md", "tex")}
                table.to_csv(new / f"{name}.csv", index=False)
                (new / f"{name}.md").write_text(f"{markdown(table)}\n{origin}\n")
                (new / f"{name}.tex").write_text(f"% {origin}\n{table.to_latex(index=False, escape=True)}")
        flat(frame).to_csv(new / paths["trials"], index=False)
        for name, figure in figures.items():
            paths[name] = Path("figures") / f"{name}.png"
            figure.savefig(new / paths[name], dpi=160, metadata={"Description": origin})
        (new / paths["report"]).write_text(_page(frame, figures, tables, command, live))
        (out / "figures").mkdir(exist_ok=True)
        for path in paths.values():
            (new / path).replace(out / path)
        shutil.rmtree(new)
    return {name: out / path for name, path in paths.items()}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time write to a folder: two may run the same study."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _identity(frame: pd.DataFrame) -> str:
    """Name the records that a table or figure was made from."""
    numbers = frame["number"]
    trials = f"trials {numbers.min()} to {numbers.max()}" if len(numbers) else "no trials"
    keys = sorted({str(key)[:8] for key in frame["measurement"].dropna()})
    shown = f", measurements {' '.join(keys[:12])}{' …' if len(keys) > 12 else ''}" if keys else ""
    commit = _one_or_several(frame["git_commit"].astype("string").str[:12])
    return f"{frame.attrs['study']}, {trials}{shown}, commit {commit}"


def _page(
    frame: pd.DataFrame,
    figures: dict[str, Figure],
    tables: dict[str, pd.DataFrame | None],
    command: str,
    live: bool,
) -> str:
    definition = frame.attrs["definition"]
    states = frame["state"].value_counts()
    kind, published = definition.get("kind", "ablation"), definition.get("paper") or {}
    environment = Environment(loader=PackageLoader("search.analysis", "."), autoescape=True, undefined=StrictUndefined)
    machine = _one_or_several(frame["device"])
    noisy = noisy_front(frame)
    return environment.get_template("report.html").render(
        study=frame.attrs["study"],
        question=definition.get("question", ""),
        kind=kind,
        counts=", ".join(f"{count} {str(state).lower()}" for state, count in states.items()) or "no trials",
        answer=answer(frame),
        tables=tables | _halves(tables["result"]),
        reading=_reading(frame),
        identity=_identity(frame),
        hypervolume=None if noisy is None else "{:.1f} [{:.1f} … {:.1f}]".format(*noisy.hypervolume()),
        dominated=list(dominations(frame).itertuples(index=False)),
        figures=[(name, TITLES[name][0], _svg(figure), _beneath(name, kind)) for name, figure in figures.items()],
        paper_source=published.get("source", ""),
        paper_machine=published.get("machine", ""),
        machine=machine,
        poor=POOR,
        expectations=[
            f"{name}: {rho:+.2f} over {count} candidates" for name, (rho, count) in prediction_quality(frame).items()
        ],
        failures=[
            f"{row['arm']}, seed {row['seed']}: {row['failure']}"
            for _, row in frame[frame["state"] == "FAIL"].iterrows()
        ],
        disturbed=[
            f"{arm}: {flags}"
            for arm, flags in frame[["arm", "flags"]].drop_duplicates().itertuples(index=False)
            if flags
        ],
        facts=_facts(frame, machine),
        command=command,
        live=live,
        definition=yaml.safe_dump(dict(definition), sort_keys=False, allow_unicode=True),
    )


def _beneath(figure: str, kind: str) -> str:
    """Say how a figure is to be read."""
    text = TITLES[figure][1]
    return f"{text} {SCALED}" if figure in ("operators", "efficiency") and kind == "search" else text


def _halves(result: pd.DataFrame | None) -> dict[str, pd.DataFrame | None]:
    """Return what is known of accuracy and what of speed and size as two tables: one would not fit a screen."""
    if result is None:
        return {}
    columns = [str(name) for name in result]
    speed = [name for name in columns if name.startswith(("train ", "infer ", "params ", "MACs ", "pixels"))]
    rest = [name for name in columns if name not in speed]
    # What names a row stands before the seeds, or is all that there is.
    named = rest[: rest.index("seeds")] if "seeds" in rest else rest[:1]
    if len(rest) == len(named):
        return {"result": result, "speed": None}
    return {"result": result[rest], "speed": result[[*named, *speed]]}


def _svg(figure: Figure) -> Markup:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    # matplotlib escapes what people typed; the XML prologue does not belong inside a page.
    return Markup(text[text.index("<svg") :])


def _reading(frame: pd.DataFrame) -> str:
    speed = "Throughput: ratios are taken within rounds that time every network once; brackets hold 95 % intervals."
    if frame["flags"].str.len().any():
        speed += f" {DISTURBED}: the measurement was disturbed, see below."
    if accuracy_column(frame) is None:
        return speed
    if frame.attrs["definition"].get("kind") == "search":
        drift = "Candidates were measured one after another: compare ratios, not images/s."
        return f"Chosen by validation accuracy; the test accuracy is reported once. {speed} {drift}"
    if is_factorial(frame):
        return f"Accuracy: mean over seeds and Student's 95 % interval. {speed}"
    return (
        "Accuracy: mean over seeds and Student's 95 % interval. Effect: mean difference from the baseline at the same "
        "seed; its 95 % interval holds for other seeds and other test images. Verdict: corrected over the arms (Holm); "
        f"equivalent means within {frame.attrs['definition'].get('margin')} points. P(front): the probability that no "
        "other arm is both faster and more accurate. A dash: too few seeds to tell. "
        f"{speed}"
    )


def _facts(frame: pd.DataFrame, machine: str) -> list[tuple[str, str]]:
    definition: dict[str, Any] = frame.attrs["definition"]
    protocol = definition.get("throughput") or {}
    facts = [("scale", str(definition.get("scale", ""))), ("machine", machine)]
    if definition.get("kind") != "table":
        facts += [("data", _inline(definition.get("data"))), ("recipe", _inline(definition.get("recipe")))]
        facts.append(("seeds", str(definition.get("seeds"))))
    facts += [
        ("throughput", f"training step (forward, backward, SGD) and inference; {_inline(protocol)}"),
        ("commit", _one_or_several(frame["git_commit"])),
    ]
    seconds = pd.to_numeric(frame["seconds_total"]).sum()
    return [*facts, ("time", f"{seconds:,.0f} s of trials, measurement not counted")]


def _inline(section: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in (section or {}).items() if value is not None)


def _one_or_several(column: pd.Series) -> str:
    return "; ".join(sorted({str(value) for value in column.dropna()})) or "not known yet"
