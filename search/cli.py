"""What the commands share: exit codes, one line for a mistake, and the options of a measurement."""

import argparse
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, get_args

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from search.folders import made
from space.errors import InputError, explain, without_passwords

EXIT_CODES = "exit codes: 0 done, 1 something failed, 2 a mistake in the command or its files, 130 interrupted"
STORAGE = "STUDY_STORAGE"  # the environment's variable for the storage's URL: a command line is for everyone to see
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(without_passwords(message))  # it quotes what was not understood


def parser(module: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Return the parser of ``python -m module``; lines of `epilog` stay as they are."""
    return _Parser(
        prog=f"python -m {module}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def answer(body: Callable[[], int], on_interrupt: str = "interrupted") -> int:
    """Run a command's body; return its exit code. A mistake of the user's is one line on standard error."""
    err = Console(stderr=True)
    try:
        return body()
    except InputError as error:
        err.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        err.print(on_interrupt, markup=False, soft_wrap=True)
        return 130


def stdout() -> Console:
    """Return a console that folds nothing where nobody watches."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def print_table(frame: Any, title: str, console: Console | None = None) -> None:
    """Print a DataFrame of text, the first column to the left, the others to the right."""
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(frame.columns):
        table.add_column(escape(str(name)), justify="left" if number == 0 else "right")
    for row in frame.itertuples(index=False):
        table.add_row(*(escape(str(cell)) for cell in row))
    (console or stdout()).print(table)


def folder(path: str | Path) -> Path:
    """Make the folder that --out names; return it. Raises InputError where it cannot be made."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {path}: cannot be created: {error.strerror}") from error
    return Path(path)


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Make the folder as `folder` does, for good only where what follows is no mistake."""
    try:
        with made(Path(path)):
            yield Path(path)
    except OSError as error:
        raise InputError(f"--out {path}: cannot be created: {error.strerror}") from error


def beside_reference(args: argparse.Namespace) -> tuple[str, list[str]]:
    """Return the model that --reference names, the first one where it is left out, and all models with it."""
    reference = args.reference or args.models[0]
    return reference, args.models if reference in args.models else [reference, *args.models]


def command(module: str, argv: Sequence[str] | None) -> str:
    """Return the command line that was given, without passwords."""
    given = sys.argv[1:] if argv is None else argv
    return f"python -m {module} {shlex.join(map(without_passwords, given))}".rstrip()


def share(text: str) -> float:
    """Read ``1%`` or ``0.01``; for argparse."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a share between 0 and 1, such as 1% or 0.01")
    return value


def seconds(text: str) -> float:
    """Read ``90``, ``90s``, ``1.5m`` or ``1h``; for argparse."""
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)([smh]?)", text)
    if found is None or not 0 < float(found[1]) < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: a time above zero, such as 60s, 5m or 1h")
    return float(found[1]) * SECONDS[found[2]]


def positive(text: str, most: int = 1_000_000) -> int:
    """Read a whole number from 1 to `most`; for argparse."""
    if not text.isdecimal() or len(text) > len(str(most)) or not 1 <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number from 1 to {most:,}")
    return int(text)


def part(text: str) -> float:
    """Read a number from 0 to 1; for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a number from 0 to 1")
    return value


def add_conditions(parser: argparse.ArgumentParser, *, memory_format: str = "best") -> None:
    """Add the options that say under which conditions networks run."""
    from lightning_modules.precision import MemoryFormat, Precision
    from search.throughput.protocol import MOST_IMAGES

    add = parser.add_argument_group("conditions").add_argument
    add(
        "--batch-size",
        type=partial(positive, most=MOST_IMAGES),
        metavar="N",
        help="images a step (default: 128 on a GPU, 8 on a CPU)",
    )
    add("--precision", choices=get_args(Precision), default="fp32", help="default: %(default)s")
    add(
        "--memory-format",
        choices=(*get_args(MemoryFormat), *(("best",) if memory_format == "best" else ())),
        default=memory_format,
        help="best: each network in the faster of both, as the paper reports it (default: %(default)s)"
        if memory_format == "best"
        else "default: %(default)s",
    )
    add("--device", default="auto", help="cpu, cuda, cuda:1, … (default: the first GPU, or the CPU)")
    add("--threads", type=positive, metavar="N", help="CPU threads (default: torch's, usually one a core)")


def add_effort(parser: argparse.ArgumentParser, *, target: str = "1%", budget: str = "60s") -> None:
    """Add the options that say how long to measure."""
    add = parser.add_argument_group("effort").add_argument
    add("--target", type=share, default=share(target), metavar="SHARE", help=f"stop at this half-width ({target})")
    add("--budget", type=seconds, default=seconds(budget), metavar="TIME", help=f"stop after this time ({budget})")


def storage_url(args: argparse.Namespace) -> str:
    """Return the Optuna storage's URL: --storage, or the environment's, or the one in --out."""
    given = args.storage if args.storage is not None else os.environ.get(STORAGE)
    return given if given is not None else f"sqlite:///{Path(args.out) / 'studies.db'}"


def add_storage(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where the records are."""
    text = f"Optuna storage (default: ${STORAGE}, or sqlite:///OUT/studies.db)"
    parser.add_argument("--storage", metavar="URL", help=text)


def tracking_uri(args: argparse.Namespace) -> str:
    """Return the MLflow store's URI: --tracking-uri, or the one in --out."""
    return args.tracking_uri if args.tracking_uri is not None else f"sqlite:///{Path(args.out) / 'mlflow.db'}"


def add_grace(parser: argparse.ArgumentParser) -> None:
    """Add the option that says when a worker counts as dead."""
    from search.storage import GRACE

    parser.add_argument(
        "--grace",
        type=positive,
        metavar="SECONDS",
        default=GRACE,
        help="give up a worker elsewhere after so long without a sign of life (default: %(default)s)",
    )


def protocol(args: argparse.Namespace, **fields: Any) -> Any:
    """Return the Protocol that the conditions and `fields` ask for. Raises InputError for what the device lacks."""
    from lightning_modules.precision import resolve_device
    from search.throughput import Protocol

    device = resolve_device(args.device)
    try:
        found = Protocol(
            batch_size=args.batch_size or (8 if device == "cpu" else 128),
            precision=args.precision,
            memory_format=args.memory_format,
            threads=args.threads,
            **fields,
        )
    except ValidationError as error:
        raise explain(error, "options") from error
    found.check_device(device)
    return found
