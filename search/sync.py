"""Complete the copy of a study in MLflow: python -m search.sync --study NAME."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from search import cli
from search.defaults import DEFAULT_OUT
from space.errors import InputError, first_line

EPILOG = f"""MLflow holds a copy to look at; the storage holds the truth. What the copy lacks, as after an outage of its
server, is added; what it has is left alone.
{cli.EXIT_CODES}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Copy; return the exit code."""
    args = _parser().parse_args(argv)
    return cli.answer(lambda: _sync(args))


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("search.sync", "Complete the copy of a study in MLflow.", EPILOG)
    add = parser.add_argument
    add("--study", required=True, metavar="NAME", help="its name in the storage, with or without its scale")
    add("--out", metavar="DIR", default=DEFAULT_OUT, help="where reports and databases are (default: %(default)s)")
    cli.add_storage(parser)
    add("--tracking-uri", metavar="URI", help="MLflow store (default: sqlite:///OUT/mlflow.db)")
    return parser


def _sync(args: argparse.Namespace) -> int:
    from search.analysis import answer, load
    from search.storage import definition, find_study, masked, open_storage
    from search.tracking import FAILED, Tracker

    storage = open_storage(cli.storage_url(args), create=False, write=False)
    opened = find_study(args.study, storage)
    uri = cli.tracking_uri(args)
    tracker = Tracker(uri, study=opened, definition=definition(opened), out=Path(args.out))
    try:
        copied = tracker.sync()
        tracker.log_answer(answer(load(opened.study_name, storage=storage)))
    except FAILED as error:
        raise InputError(f"--tracking-uri {masked(uri)}: went away: {first_line(error)}") from error
    print(f"{copied} trial{'s' if copied != 1 else ''} copied", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
