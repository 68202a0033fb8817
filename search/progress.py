"""What a person sees while a study runs, and what a log file gets."""

import time
from types import TracebackType
from typing import Protocol, Self

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

WAITING = "waiting: another process measures on the device, or trains on it"


class Watcher(Protocol):
    """What a worker tells while it works."""

    def planned(self, more: int) -> None: ...
    def told(self, text: str) -> None: ...
    def waiting(self) -> None: ...
    def measuring(self, spent: float, budget: float) -> None: ...
    def started(self, number: int, name: str) -> None: ...
    def epoch(self, row: dict[str, float]) -> None: ...
    def finished(self, trial: FrozenTrial) -> None: ...


def outcome(trial: FrozenTrial) -> str:
    """Say in one line what came of a trial."""
    attrs = trial.user_attrs
    name = f"{attrs.get('arm', f'trial {trial.number}')}, seed {attrs.get('seed', 0)}"
    if trial.state is TrialState.PRUNED:
        stopped = attrs.get("stopped", {})
        return f"{name}: {stopped.get('why', 'pruned')}: {stopped.get('text', 'for no known reason')}"
    if trial.state is not TrialState.COMPLETE:
        return f"{name}: failed: {attrs.get('failure', 'for no known reason')}"
    parts = []
    if attrs.get("test_accuracy") is not None:
        parts.append(f"val {attrs['val_accuracy']:.2f} %, test {attrs['test_accuracy']:.2f} %")
    train = attrs["throughput"]["train"]
    parts.append(f"train {train['images_per_s']:,.0f} images/s")
    if train["ratio"] is not None:  # by which trials compare: images/s drift with the machine
        parts[-1] += f" (ratio {train['ratio']:.3f})"
    parts.append(f"{attrs['seconds']['total']:.1f} s")
    return f"{name}: {', '.join(parts)}"


class _Bars:
    """Shows `progress` as long as the context lasts."""

    progress: Progress

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()


class LiveProgress(_Bars):
    """One bar over the trials with the time left, one line for what runs now; for a terminal."""

    def __init__(self, console: Console, total: int, done: int) -> None:
        # What people named their arms is text, not markup.
        what = TextColumn("{task.description}", markup=False)
        columns = (SpinnerColumn(), what, BarColumn(), MofNCompleteColumn())
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False))
        self.progress = Progress(*columns, *times, console=console, speed_estimate_period=600)
        self.trials = self.progress.add_task("trials", total=total, completed=done)
        self.now = self.progress.add_task("starting", total=None)
        self.name = ""

    def planned(self, more: int) -> None:
        """Make room for trials that were added."""
        self.progress.update(self.trials, total=(self.progress.tasks[self.trials].total or 0) + more)

    def told(self, text: str) -> None:
        """Keep a line above the bars."""
        self.progress.console.print(text, markup=False, highlight=False)

    def waiting(self) -> None:
        """Say why nothing moves."""
        self.progress.update(self.now, description=WAITING)

    def measuring(self, spent: float, budget: float) -> None:
        """Show the seconds of the measurement."""
        self.progress.update(self.now, description="measuring throughput", completed=spent, total=budget)

    def started(self, number: int, name: str) -> None:
        """Show which trial runs."""
        self.name = name
        self.progress.reset(self.now, description=name, total=None)

    def epoch(self, row: dict[str, float]) -> None:
        """Show how the trial goes."""
        text = f"{self.name} · epoch {row['epoch']:.0f} · val {row['val_accuracy']:.1f} %"
        self.progress.update(self.now, description=text)

    def finished(self, trial: FrozenTrial) -> None:
        """Keep a line of the trial above the bars."""
        self.progress.console.print(f"[dim]{trial.number:4d}[/]  {escape(outcome(trial))}", highlight=False)
        self.progress.advance(self.trials)


class MeasuringProgress(_Bars):
    """One bar over the seconds of a measurement that is not a study's; nothing but a line in a log."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.task = self.progress.add_task("building and warming up", total=None)

    def waiting(self) -> None:
        """Say why nothing moves."""
        self.console.out(WAITING, highlight=False)

    def measuring(self, spent: float, budget: float) -> None:
        """Show the seconds spent."""
        self.progress.update(self.task, description="measuring", completed=spent, total=budget)


class LineProgress:
    """A line a trial, for a log."""

    def __init__(self, console: Console, total: int, done: int, *, quiet: bool = False) -> None:
        self.console, self.total, self.done, self.quiet = console, total, done, quiet
        self.started_at = time.monotonic()
        self.measured = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def planned(self, more: int) -> None:
        """Make room for trials that were added."""
        self.total += more

    def told(self, text: str) -> None:
        """Write a line."""
        self.console.out(text, highlight=False)

    def waiting(self) -> None:
        """Say why nothing moves."""
        self.told(WAITING)

    def measuring(self, spent: float, budget: float) -> None:
        """Say once that throughput is measured."""
        if not self.measured and not self.quiet:
            self.console.out("measuring throughput", highlight=False)
        self.measured = True

    def started(self, number: int, name: str) -> None:
        """Say nothing: the line comes when the trial ends."""

    def epoch(self, row: dict[str, float]) -> None:
        """Say nothing: the curves are in the record."""

    def finished(self, trial: FrozenTrial) -> None:
        """Write the trial's line."""
        self.done += 1
        if self.quiet:
            return
        self.console.out(f"{self.done}/{self.total} {outcome(trial)}", highlight=False)
