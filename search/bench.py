"""Measure models beside each other: python -m search.bench inceptionnext_tiny --reference convnext_tiny."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search import cli
from space.errors import InputError

EPILOG = f"""examples:
  python -m search.bench inceptionnext_atto --reference convnext_atto
  python -m search.bench inceptionnext_tiny timm:resnet50 --reference convnext_tiny --mode infer --resolution 96
  python -m search.bench my_network.yaml --reference inceptionnext_tiny --target 0.5% --budget 5m --out bench.csv
  python -m search.bench inceptionnext_tiny --reference convnext_tiny --precision bf16 --compile --batch-size 256

MODEL: a preset, an architecture file (.yaml, .json), or timm:NAME. Weights are random, which costs no speed.
{cli.EXIT_CODES}
"""
MODES = {"train": ("train", "latency"), "infer": ("infer", "latency"), "both": ("train", "infer", "latency")}
TITLES = {
    "train": "training step (forward, backward, SGD)",
    "infer": "inference",
    "latency": "latency: inference of one image",
}
SUFFIXES = (".json", ".csv")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; return the exit code."""
    args = _parser().parse_args(argv)
    return cli.answer(lambda: _bench(args, cli.command("search.bench", argv)))


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser(
        "search.bench", "Measure images/s of models, all timed in turn beside a reference, with 95 % intervals.", EPILOG
    )
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL", help="a preset, an architecture file, or timm:NAME")
    add("--reference", metavar="MODEL", help="what the ratios are to (default: the first model)")
    add("--mode", choices=tuple(MODES), default="both", help="default: %(default)s; latency is measured as well")
    add("--resolution", type=cli.positive, metavar="PIXELS", help="default: each model's own; 224 for a file")
    add(
        "--out",
        action="append",
        default=[],
        metavar="FILE",
        help="write FILE.json (all rounds) or FILE.csv; repeatable",
    )
    add("--json", action="store_true", help="print the JSON on standard output instead of tables")
    add("--compile", action="store_true", help="torch.compile; its time is reported, not counted")
    add("--cuda-graphs", action="store_true", help="replay steps as CUDA graphs")
    cli.add_conditions(parser)
    cli.add_effort(parser)
    return parser


def _bench(args: argparse.Namespace, command: str) -> int:
    for file in args.out:
        if not file.endswith(SUFFIXES):
            raise InputError(f"--out {file}: the name's end says the format; allowed: {', '.join(SUFFIXES)}")
        if not Path(file).resolve().parent.is_dir():
            raise InputError(f"--out {file}: the folder does not exist")
        if Path(file).is_dir():
            raise InputError(f"--out {file}: is a folder")

    from search.models import candidates
    from search.progress import MeasuringProgress
    from search.throughput import measure

    reference, names = cli.beside_reference(args)
    effort = {"target": args.target, "budget": args.budget}
    options = {"compile": args.compile, "cuda_graphs": args.cuda_graphs}
    protocol = cli.protocol(args, modes=MODES[args.mode], **options, **effort)
    models = candidates(names, args.resolution)
    with MeasuringProgress() as progress:
        records = measure(
            models,
            reference=reference,
            protocol=protocol,
            device=args.device,
            on_progress=progress.measuring,
            on_wait=progress.waiting,
        )
        _count_memory(records, models, protocol)
    found = {name: {"resolution": models[name].resolution, **record} for name, record in records.items()}
    result = {"command": command, "reference": reference, "models": found}
    for file in args.out:
        text = json.dumps(result, indent=1) if file.endswith(".json") else rows(result).to_csv(index=False)
        Path(file).write_text(text + "\n" * file.endswith(".json"))
    if args.json:
        print(json.dumps(result))
    else:
        _print(result)
    failures = {name: record["failure"] for name, record in records.items() if "failure" in record}
    for name, reason in failures.items():
        print(f"error: {name}: {reason}", file=sys.stderr)
    return 1 if failures else 0


def _count_memory(records: dict[str, dict[str, Any]], models: dict[str, Any], protocol: Any) -> None:
    """Add a CPU's peak memory, which takes a step of its own under the profiler; a GPU counts it by itself."""
    from search.throughput.steps import peak_memory

    for name, record in records.items():
        for mode in ("train", "infer"):
            part = record.get(mode)
            if part is not None and part["memory_bytes"] is None:
                own = protocol.model_copy(update={"memory_format": part["memory_format"]})
                part["memory_bytes"] = peak_memory(models[name], mode, own)


def rows(result: dict[str, Any]) -> Any:
    """Return a DataFrame of a result, a row a model and mode, without the readings of single rounds."""
    import pandas as pd

    from search.measurements import modes

    found = []
    for name, record in result["models"].items():
        for mode, part in modes(record).items():
            protocol = record["protocol"]
            found.append(
                {
                    "model": name,
                    "mode": mode,
                    "resolution": record["resolution"],
                    "batch_size": 1 if mode == "latency" else protocol["batch_size"],
                    **{field: protocol[field] for field in ("precision", "compile", "cuda_graphs")},
                    **{field: record[field] for field in ("device", "driver", "cpus", "threads", "torch")},
                    "reference": result["reference"],
                    **{key: value for key, value in part.items() if key not in ("rounds", "reference")},
                    "rounds": len(part["rounds"]),
                    "flags": "; ".join(flag for flag in record["flags"] if flag.startswith(f"{mode}: ")),
                }
            )
    return pd.DataFrame(found)


def _print(result: dict[str, Any]) -> None:
    import pandas as pd

    from search.analysis.tables import DISTURBED

    frame = rows(result)
    if frame.empty:
        return
    console, first = cli.stdout(), frame.iloc[0]
    settings = [first["precision"], *(name for name in ("compile", "cuda_graphs") if first[name])]
    driver = f", driver {first['driver']}" if first["driver"] else ""
    console.print(f"{first['device']}{driver}, {first['threads']} threads, torch {first['torch']}", highlight=False)
    for mode, part in frame.groupby("mode", sort=False):
        images = f", {part['batch_size'].iloc[0]} images a step" if mode != "latency" else ""
        table = pd.DataFrame([cells(row, result["reference"]) for _, row in part.iterrows()])
        cli.print_table(table, f"{TITLES[str(mode)]}, {', '.join(settings)}{images}", console)
        for flag in sorted({flag for text in part["flags"] for flag in text.split("; ") if flag}):
            console.print(f"{DISTURBED} {flag}", highlight=False)
    if frame["joules_per_image"].isna().all():
        console.print("energy: not available here (neither NVML nor RAPL tells it)", highlight=False)
    if frame["flags"].any():
        console.print("disturbed: the same command measures again", highlight=False)


def cells(row: Any, reference: str) -> dict[str, str]:
    """Return a table's row as text."""
    from search.analysis.tables import DISTURBED, NONE, number, spread

    found = {"model": f"{row['model']}, {row['resolution']} px"}
    if row["mode"] == "latency":
        found["ms, 95 % CI"] = spread(*(1000 / row[end] for end in ("images_per_s", "high", "low")))
    else:
        digits = 2 if row["images_per_s"] < 100 else 0
        found["images/s, 95 % CI"] = spread(row["images_per_s"], row["low"], row["high"], digits)
    same = row["model"] == reference
    ratio = "1 (reference)" if same else spread(row["ratio"], row["ratio_low"], row["ratio_high"], 4)
    found[f"speed ratio to {reference}, 95 % CI"] = ratio + f" {DISTURBED}" * bool(row["flags"])
    if row["mode"] != "latency":
        memory = row["memory_bytes"]
        found["peak memory, MiB"] = NONE if memory is None else number(memory / 2**20, 0)
    joules = row["joules_per_image"]
    found["J/image"] = number(joules, 3)
    found["format"] = str(row["memory_format"])
    warm = "" if row["steady"] else ", not steady"
    found["first step + warm-up, s"] = f"{row['first_step_seconds']:.1f} + {row['warmup_seconds']:.1f}{warm}"
    found["rounds"] = f"{row['rounds']}, to the {row['stopped'] if row['stopped'] != 'rounds' else 'most'}"
    return found


if __name__ == "__main__":
    sys.exit(main())
