"""The main job: python -m search.run --study kernel_ablation."""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from rich.console import Console
from rich.table import Table

from search import cli
from search import storage as store
from search.defaults import DEFAULT_OUT
from search.study import Study, list_scales, list_studies, load_study
from space.errors import InputError, within

if TYPE_CHECKING:
    from search.engines import Run

TELLING, WATCHING = 0.05, 0.2  # the most of the time that telling what is known takes while trials run; with --watch
EPILOG = f"""examples:
  python -m search.run --list                                    the studies and scales that come along
  python -m search.run --study kernel_ablation                   minutes on a laptop's CPU
  python -m search.run --study kernel_ablation --dry-run         what would run, and for how long
  python -m search.run --study kernel_ablation --seeds 5         two more seeds an arm, later
  python -m search.run --study pareto_search --set sampler=nsga2 --set trials=40 --name my_search
  python -m search.run --study kernel_ablation --set recipe.epochs=20 --fork longer
  python -m search.run --study my_question.yaml --scale cifar --set data.root=DATA_DIR
  python -m search.run --study paper_table8 --scale imagenet --set data.root=IMAGENET_DIR

The same command again goes on where it stopped; finished trials are never repeated.
{cli.EXIT_CODES}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a study; return the exit code."""
    args = _parser().parse_args(argv)
    to_go_on = cli.command("search.run", argv)
    return cli.answer(lambda: _answer(args), f"interrupted; nothing finished is lost. To go on: {to_go_on}")


def _answer(args: argparse.Namespace) -> int:
    if args.list:
        _print_list(cli.stdout())
        return 0
    if args.import_file is not None:
        return _import(args)
    if args.export is not None:
        return _export(args)
    if args.study is None:
        raise InputError("nothing to run: give --study NAME, or --list to see the studies")
    study = load_study(args.study, args.scale, _overrides(args), name=args.fork or args.name)
    if args.dry_run:
        from search.forecast import print_forecast

        print_forecast(study, cli.stdout(), as_json=args.json)
        return 0
    return _run(study, args, Console(stderr=True))


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser(
        "search.run", "Run a study: measure, train and compare its architectures, and write the report.", EPILOG
    )
    add = parser.add_argument
    add(
        "--study",
        metavar="NAME|FILE",
        help="a study that comes along (see --list) or a YAML file of your own",
    )
    add(
        "--scale",
        metavar="NAME|FILE",
        help="at which size to ask: network, data, recipe (default: the study's, or laptop)",
    )
    add(
        "--set",
        metavar="PATH=VALUE",
        action="append",
        default=[],
        help="change a field, e.g. recipe.epochs=2",
    )
    add("--seeds", type=int, metavar="N", help="seeds an arm; more than before adds the missing ones")
    add("--name", help="the name to keep the study under (default: its file's)")
    add("--fork", metavar="NEW_NAME", help="ask a changed question under a new name; trials that still hold are kept")
    add("--list", action="store_true", help="list the studies with their questions, and the scales")
    add(
        "--dry-run",
        action="store_true",
        help="show the planned trials, their counts and the time; run nothing",
    )
    add(
        "--out",
        metavar="DIR",
        default=DEFAULT_OUT,
        help="where reports and databases go (default: %(default)s)",
    )
    cli.add_storage(parser)
    add("--tracking-uri", metavar="URI", help="MLflow store (default: sqlite:///OUT/mlflow.db)")
    add("--workers", type=cli.positive, metavar="N", help="how many train at once (default: 1; all that fit, on Ray)")
    cli.add_grace(parser)
    add("--fresh", action="store_true", help="measure throughput again, e.g. where the report calls it disturbed")
    add("--plan", action="store_true", help="write the trials to the storage, for workers that join; run none here")
    add("--watch", action="store_true", help="write the report again as trials finish; the open page follows")
    add("--export", type=Path, metavar="FILE", help="write a study with its records to a file, and run nothing")
    add("--import", dest="import_file", type=Path, metavar="FILE", help="add a study from such a file")
    ray = parser.add_argument_group("engine")
    ray.add_argument(
        "--engine", choices=("processes", "ray"), default="processes", help="where workers run (default: %(default)s)"
    )
    ray.add_argument(
        "--address", metavar="HOST:PORT", help="a Ray cluster to join (default: one of this machine alone)"
    )
    ray.add_argument(
        "--gpus-per-trial", type=cli.part, metavar="N", help="of each worker on Ray (default: 1 if there are any)"
    )
    ray.add_argument("--cpus-per-trial", type=cli.positive, metavar="N", help="of each worker on Ray (default: 1)")
    add("--json", action="store_true", help="print a machine-readable summary on standard output")
    add("--quiet", action="store_true", help="print no result table at the end")
    return parser


def _export(args: argparse.Namespace) -> int:
    from search.transfer import export_study

    if args.study is None:
        raise InputError("--export FILE needs --study NAME, its name in the storage")
    count = export_study(args.study, store.open_storage(cli.storage_url(args), create=False, write=False), args.export)
    print(f"{count} trials written to {args.export}", file=sys.stderr)
    return 0


def _import(args: argparse.Namespace) -> int:
    from search.transfer import import_study

    name = import_study(args.import_file, cli.storage_url(args))
    print(f"{name} is in {store.masked(cli.storage_url(args))}", file=sys.stderr)
    return 0


def _overrides(args: argparse.Namespace) -> list[str]:
    return [*args.set, *([f"seeds={args.seeds}"] if args.seeds is not None else [])]


def _run(study: Study, args: argparse.Namespace, err: Console) -> int:
    # Imported here, so that --help and mistakes in the command answer at once.
    from search.analysis import answer, main_table, write_report
    from search.analysis import load as load_records
    from search.analysis.findings import nearest_feasible
    from search.analysis.once import unchanged
    from search.plan import fork_study, open_study, paper_rows
    from search.progress import LineProgress, LiveProgress
    from search.queue import counted, is_over
    from search.tracking import Copy, Unreachable, check_reachable
    from search.worker import be_quiet

    be_quiet()
    began = time.monotonic()
    out = Path(args.out)
    storage_url = cli.storage_url(args)
    tracking_uri = cli.tracking_uri(args)
    # What was asked for, the engine, with its data, and both stores are tried before anything is written to them.
    with within(f"study {study.full_name}"):
        paper_rows(study)
    work = _engine(study, args, storage_url, out) if not args.plan else None
    with cli.new_folder(out):
        with suppress(Unreachable):  # that costs the copy, not the study
            check_reachable(tracking_uri)
        storage = store.open_storage(storage_url, grace=args.grace)
        if args.fork is not None:
            opened = fork_study(study, f"{args.name or Path(args.study).stem}-{study.scale}", storage)
        else:
            opened = open_study(study, storage)

    def say(text: str) -> None:
        err.print(text, markup=False, highlight=False, soft_wrap=True)

    if work is None:
        joining = f"python -m search.worker --study {study.full_name}, with this storage in ${cli.STORAGE}"
        say(f"{study.full_name} is in {store.masked(storage_url)}. To work on it, from anywhere: {joining}")
        return 0

    copy = Copy(tracking_uri, study=opened, definition=opened.user_attrs["definition"], out=out, tell=say)
    copy.connect()
    folder = cli.folder(out / study.full_name)

    command = f"python -m search.run {shlex.join(_repeat(args))}"

    @unchanged()
    def tell() -> None:
        frame = store.patiently(lambda: load_records(study.full_name, storage=storage), say)
        text = answer(frame)
        copy.do(lambda tracker: tracker.log_answer(text))
        if args.watch:
            with suppress(OSError):  # the last report says what is wrong
                write_report(frame, folder, command=command, live=True)

    trials = counted(opened.get_trials(deepcopy=False))
    total = study.trials if study.kind == "search" else len(trials)
    done = sum(map(is_over, trials))
    progress = LiveProgress if err.is_terminal else LineProgress
    say(f"{study.full_name}: {study.question}")
    if study.kind in ("ablation", "factorial") and study.first_seeds == 1:
        err.print("one seed an arm decides nothing: no intervals, no verdicts; --seeds 3 gives both", style="yellow")
    with progress(err, total, done) as watcher:
        try:
            work(opened, storage, _Copying(watcher, copy, tell, WATCHING if args.watch else TELLING))
        finally:
            copy.do(lambda tracker: tracker.sync(again=args.fresh))

    frame = load_records(study.full_name, storage=storage)
    try:
        written = write_report(frame, folder, command=command)
    except OSError as error:
        say(f"the report cannot be written to {folder}: {error.strerror}; the records are whole: run this again")
        return 1
    copy.do(lambda tracker: tracker.log_answer(answer(frame)))
    copy.do(lambda tracker: tracker.log_report(written))
    complete, failed = (int((frame["state"] == state).sum()) for state in ("COMPLETE", "FAIL"))
    if args.json:
        print(json.dumps(_summary(study, frame, written, storage_url, tracking_uri, time.monotonic() - began)))
    else:
        err.print(
            f"report   {written['report']}\n"
            f"records  {store.masked(storage_url)}\n"
            f"browse   mlflow ui --backend-store-uri {store.masked(tracking_uri)}   (or: make ui)",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        if not args.quiet:
            cli.print_table(main_table(frame), frame.attrs["study"])
    if nearest_feasible(frame) is not None:
        say(answer(frame))
        return 1
    if failed:
        err.print(f"{failed} of {complete + failed} trials failed; the report says why", style="yellow")
    return 0 if complete else 1


def _engine(study: Study, args: argparse.Namespace, url: str, out: Path) -> "Run":
    """Return what has the trials run. Raises InputError where it lacks what it needs."""
    of_ray = {"address": args.address, "gpus": args.gpus_per_trial, "cpus": args.cpus_per_trial}
    if args.engine == "ray":
        from search.engines import ray

        of_ray["cpus"] = args.cpus_per_trial or 1
        return ray.prepare(study, url, out, count=args.workers, grace=args.grace, fresh=args.fresh, **of_ray)
    for name, value in of_ray.items():
        if value is not None:
            raise InputError(f"--{name}{'-per-trial' if name != 'address' else ''} {value}: for --engine ray only")
    if args.workers is not None and args.workers > 1:
        from search.engines import processes

        return processes.prepare(study, url, out, count=args.workers, grace=args.grace, fresh=args.fresh)
    from search.engines import here

    return here.prepare(study, out / study.full_name / "work", fresh=args.fresh)


class _Copying:
    """Passes everything on to the progress display, each finished trial to MLflow, and has told what is known then.

    What is known takes longer to tell the more it is: that is put off where it would take more than this `share` of the
    time.
    """

    def __init__(self, watcher: Any, copy: Any, tell: Callable[[], None], share: float) -> None:
        self.planned, self.waiting, self.measuring = watcher.planned, watcher.waiting, watcher.measuring
        self.told = watcher.told
        self.started, self.epoch = watcher.started, watcher.epoch
        self._finished, self._copy, self._tell = watcher.finished, copy, tell
        self._share, self._not_before = share, 0.0

    def finished(self, trial: optuna.trial.FrozenTrial) -> None:
        self._finished(trial)
        self._copy.do(lambda tracker: tracker.sync())
        began = time.monotonic()
        if began >= self._not_before:
            self._tell()
            ended = time.monotonic()
            self._not_before = ended + (ended - began) * (1 / self._share - 1)


def _repeat(args: argparse.Namespace) -> list[str]:
    """Return the arguments that ask the same question again, wherever its records are kept."""
    parts = ["--study", args.study]
    for flag, value in (("--scale", args.scale), ("--seeds", args.seeds), ("--name", args.fork or args.name)):
        parts += [flag, str(value)] if value is not None else []
    return parts + [part for change in args.set for part in ("--set", change)]


def _summary(
    study: Study, frame: Any, written: dict[str, Path], storage: str, tracking: str, seconds: float
) -> dict[str, Any]:
    from search.analysis import summary

    return {
        "study": study.full_name,
        "question": study.question,
        **summary(frame),
        "report": str(written["report"]),
        "storage": store.masked(storage),
        "tracking_uri": store.masked(tracking),
        "seconds": round(seconds, 1),
    }


def _print_list(console: Console) -> None:
    for title, entries in (("study", list_studies()), ("scale", list_scales())):
        table = Table(title, "question" if title == "study" else "what it is", box=None, pad_edge=False)
        for name, text in entries.items():
            table.add_row(name, text)
        console.print(table)
        console.print()


if __name__ == "__main__":
    sys.exit(main())
