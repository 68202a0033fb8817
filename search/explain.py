"""Why a model is as fast as it is: python -m search.explain inceptionnext_tiny --reference convnext_tiny."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from search import cli
from space.errors import InputError

EPILOG = f"""examples:
  python -m search.explain inceptionnext_atto --reference convnext_atto --resolution 96
  python -m search.explain inceptionnext_tiny timm:resnet50 --reference convnext_tiny --mode infer --out why

Operators are timed one by one in eager mode: what a compiler fuses cannot be seen so. How much faster one model is
than another, with an interval, is what `python -m search.bench` tells.
{cli.EXIT_CODES}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Explain; return the exit code."""
    args = _parser().parse_args(argv)
    return cli.answer(lambda: _explain(args, cli.command("search.explain", argv)))


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser(
        "search.explain",
        "Say where a step's time goes, by kind of operator and by layer, beside the machine's roofline.",
        EPILOG,
    )
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL", help="a preset, an architecture file, or timm:NAME")
    add("--reference", metavar="MODEL", help="what the differences are to (default: the first model)")
    add("--mode", choices=("train", "infer"), default="train", help="default: %(default)s")
    add("--resolution", type=cli.positive, metavar="PIXELS", help="default: each model's own; 224 for a file")
    add("--out", metavar="DIR", help="write figures, operators.csv and explain.json there")
    add("--json", action="store_true", help="print the JSON on standard output instead of tables")
    cli.add_conditions(parser, memory_format="channels_last")
    return parser


def _explain(args: argparse.Namespace, command: str) -> int:
    from lightning_modules.precision import resolve_device
    from search.models import candidates
    from search.progress import MeasuringProgress
    from search.throughput.conditions import describe_device
    from search.throughput.operators import explain
    from search.throughput.steps import out_of_memory

    reference, names = cli.beside_reference(args)
    protocol = cli.protocol(args)
    models = candidates(names, args.resolution)
    out = cli.folder(args.out) if args.out else None
    with MeasuringProgress() as progress:
        try:
            explained = explain(
                models,
                modes=(args.mode,),
                protocol=protocol,
                device=args.device,
                on_progress=progress.measuring,
                on_wait=progress.waiting,
            )
        except (RuntimeError, MemoryError, ValueError) as error:
            if out_of_memory(error):
                told = f"out of memory at batch size {protocol.batch_size}; give a smaller --batch-size"
            elif isinstance(error, ValueError):  # a batch norm that sees a single value, for one
                told = str(error).splitlines()[0]
            else:
                raise
            raise InputError(told) from error
    roofline = explained.roofline
    found = {name: modes[args.mode] for name, modes in explained.breakdowns.items()}
    result = {
        "command": command,
        "mode": args.mode,
        "protocol": protocol.model_dump(mode="json"),
        **describe_device(resolve_device(args.device), args.threads),
        "roofline": asdict(roofline),
        "models": {name: one.to_dict() for name, one in found.items()},
    }
    if out is not None:
        _write(out, result, found, roofline)
    if args.json:
        print(json.dumps(result))
    else:
        _print(result, found, roofline, reference)
    return 0


def _write(out: Path, result: dict[str, Any], found: dict[str, Any], roofline: Any) -> None:
    import pandas as pd

    from search.analysis.efficiency import gap_figure, waterline_figure

    (out / "explain.json").write_text(json.dumps(result, indent=1) + "\n")
    rows = [{"model": name, **one} for name, model in result["models"].items() for one in model["operators"]]
    pd.DataFrame(rows).to_csv(out / "operators.csv", index=False)
    gap_figure(found, roofline).savefig(out / "efficiency_gap.png", dpi=160)
    for name, one in found.items():
        plain = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in Path(name).name)
        waterline_figure(one, roofline, name).savefig(out / f"waterline_{plain}.png", dpi=160)


def _print(result: dict[str, Any], found: dict[str, Any], roofline: Any, reference: str) -> None:
    from search.analysis.efficiency import efficiency_table, layer_group, time_table

    console, protocol = cli.stdout(), result["protocol"]
    console.print(
        f"{result['device']}, {result['threads']} threads, torch {result['torch']}; {result['mode']}, "
        f"{protocol['batch_size']} images a step, {protocol['precision']}, {protocol['memory_format']}, eager\n"
        f"peaks measured here: {roofline.macs_per_s / 1e9:,.0f} GMAC/s (matrix product), "
        f"{roofline.bytes_per_s / 1e9:,.1f} GB/s (copy); below {roofline.balance:.1f} MACs a byte, bytes are the limit",
        highlight=False,
    )
    for title, frame in (
        ("efficiency: MACs over peak, as a share of the time", efficiency_table(found, roofline)),
        ("where the time goes, by kind of operator: ms an image", time_table(found, reference, roofline)),
        (
            "where the time goes, by layer: ms an image",
            time_table(found, reference, roofline, lambda one: layer_group(one.layer)),
        ),
    ):
        cli.print_table(frame, title, console)


if __name__ == "__main__":
    sys.exit(main())
