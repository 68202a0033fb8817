"""Do the paper's speed claims hold on this machine? python -m search.claims."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from search import cli
from space.errors import InputError

MARGIN = 0.03
MODES: tuple[Literal["train", "infer"], ...] = ("train", "infer")
GROUPS = {
    "sizes": "InceptionNeXt against ConvNeXt of the same size (Table 4)",
    "kernels": "ConvNeXt-T with smaller kernels, on fewer channels (Table 1)",
    "ablation": "InceptionNeXt-T, one change at a time (Table 8)",
}
EPILOG = f"""groups of claims:
{chr(10).join(f"  {name:10}{text}" for name, text in GROUPS.items())}

examples:
  python -m search.claims --groups sizes --sizes atto tiny --resolution 96 --budget 5m
  python -m search.claims --precision tf32 --compiled all --budget 1h --out claims

A claim says faster or slower by more than {MARGIN:.0%}, or as fast. It holds where the whole 95 % interval of the
ratio measured here says the same, it does not where the whole interval says otherwise; else nobody can tell.
{cli.EXIT_CODES}
"""


@dataclass(frozen=True)
class Found:
    """A claim's ratio as measured here, in one mode, eager or compiled."""

    ratio: float
    low: float
    high: float
    flags: str

    def verdict(self, paper: float) -> str:
        """Say whether the paper's ratio holds."""
        return verdict(paper, self.low, self.high) + (" †" if self.flags else "")


def verdict(paper: float, low: float, high: float, margin: float = MARGIN) -> str:
    """Compare a published ratio, of which no interval is known, with a measured interval."""
    faster, slower = 1 + margin, 1 / (1 + margin)
    if slower <= paper <= faster:
        same, other = slower <= low and high <= faster, high < slower or low > faster
    elif paper > faster:
        same, other = low > faster, high < faster
    else:
        same, other = high < slower, low > slower
    return "holds" if same else "does not hold" if other else "cannot tell"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the claims; return the exit code."""
    args = _parser().parse_args(argv)
    return cli.answer(lambda: _claims(args, cli.command("search.claims", argv)))


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser(
        "search.claims",
        "Measure the paper's speed claims here, and put them beside the paper's and timm's ratios.",
        EPILOG,
    )
    add = parser.add_argument
    add("--groups", nargs="+", choices=tuple(GROUPS), default=list(GROUPS), help="default: all")
    add("--sizes", nargs="+", metavar="SIZE", help="of the group sizes: atto, tiny, small, base (default: all)")
    add("--compiled", choices=("sizes", "all", "none"), default="sizes", help="which to compile too (%(default)s)")
    add("--resolution", type=cli.positive, metavar="PIXELS", help="default: 224 on a GPU, 96 on a CPU")
    add("--out", metavar="DIR", help="write claims.csv, claims.md and claims.json there")
    add("--json", action="store_true", help="print the JSON on standard output instead of tables")
    cli.add_conditions(parser)
    cli.add_effort(parser, budget="20m")
    return parser


def _claims(args: argparse.Namespace, command: str) -> int:
    from lightning_modules.precision import resolve_device
    from search.analysis.tables import markdown
    from search.progress import MeasuringProgress
    from search.published import SIZES, Group, claims
    from search.throughput.conditions import describe_device

    if unknown := [size for size in args.sizes or () if size not in SIZES]:
        raise InputError(f"--sizes {unknown[0]}: allowed: {', '.join(SIZES)}")
    assert set(GROUPS) == set(get_args(Group))
    device = resolve_device(args.device)
    resolution = args.resolution or (96 if device == "cpu" else 224)
    chosen = [
        claim
        for claim in claims(tuple(args.groups))
        if claim.group != "sizes" or not args.sizes or claim.name.rpartition("_")[2] in args.sizes
    ]
    for claim in chosen:
        for one in (claim.network, claim.reference):
            one.architecture.check_resolution(resolution)  # type: ignore[union-attr]
    out = cli.folder(args.out) if args.out else None
    with MeasuringProgress() as progress:
        rows, failures = _measure(chosen, args, device, resolution, progress)
    result = {
        "command": command,
        "resolution": resolution,
        "protocol": cli.protocol(args, target=args.target, budget=args.budget).model_dump(mode="json"),
        **describe_device(device, args.threads),
        "claims": rows,
        "failures": failures,
    }
    tables: dict[str, Any] = {mode: table(rows, mode) for mode in MODES}
    if out is not None:
        import pandas as pd

        (out / "claims.json").write_text(json.dumps(result, indent=1) + "\n")
        pd.DataFrame(rows).to_csv(out / "claims.csv", index=False)
        (out / "claims.md").write_text("\n".join(f"{mode}\n\n{markdown(one)}" for mode, one in tables.items()))
    if args.json:
        print(json.dumps(result))
    else:
        _print(result, tables)
    for name, reason in failures.items():
        print(f"error: {name}: {reason}", file=sys.stderr)
    return 1 if failures else 0


def _measure(
    chosen: Sequence[Any], args: argparse.Namespace, device: str, resolution: int, progress: Any
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Measure what belongs together at once, eager and compiled; return a row a claim and mode, and what failed."""
    from search.throughput import Candidate, measure
    from search.throughput.operators import explain

    compiled = {"none": (), "sizes": ("sizes",), "all": tuple(GROUPS)}[args.compiled]
    # One measurement for each reference: all that is compared with it is timed in the same rounds.
    together: dict[str, list[Any]] = {}
    for claim in chosen:
        together.setdefault(claim.reference_name, []).append(claim)
    runs = [(some, way) for some in together.values() for way in (False, True) if not way or some[0].group in compiled]
    whole = sum(len(some) + 1 for some, _ in runs)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    failures: dict[str, str] = {}
    for some, way in runs:
        base = some[0].reference_name
        networks = {base: some[0].reference} | {claim.name: claim.network for claim in some}
        networks = {name: Candidate(one.architecture, resolution) for name, one in networks.items()}
        share = args.budget * len(networks) / whole
        protocol = cli.protocol(args, target=args.target, budget=share, compile=way, modes=MODES)
        kept = {"on_progress": progress.measuring, "on_wait": progress.waiting}
        records = measure(networks, reference=base, protocol=protocol, device=device, **kept)
        failures |= {name: one["failure"] for name, one in records.items() if "failure" in one}
        ran = {name: one for name, one in networks.items() if "failure" not in records[name]}
        explained = None if way else explain(ran, modes=MODES, protocol=_plain(protocol), device=device)
        for claim in some:
            if not {claim.name, base} <= set(ran):
                continue
            for mode in MODES:
                row = rows.setdefault((claim.name, mode), _published(claim, mode))
                found, flags = records[claim.name][mode], records[claim.name]["flags"]
                ends = {key: found[key] for key in ("ratio", "ratio_low", "ratio_high", "stopped")}
                ends["flags"] = "; ".join(flag for flag in flags if flag.startswith(f"{mode}: "))
                row |= {f"{'compiled' if way else 'eager'}_{key}": value for key, value in ends.items()}
                if explained is not None:
                    row |= _why(explained, claim.name, base, mode)
                    # Time is MACs over efficiency, up to the peak, which both have: what MACs leave is efficiency.
                    row["efficiency_ratio"] = found["ratio"] / row["macs_ratio"]
    return list(rows.values()), failures


def _plain(protocol: Any) -> Any:
    """Return the protocol with one memory format: operators are looked at in one."""
    return protocol.model_copy(update={"memory_format": "channels_last"} if protocol.memory_format == "best" else {})


def _published(claim: Any, mode: str) -> dict[str, Any]:
    from search.published import timm_ratios

    row = {"group": claim.group, "claim": claim.name, "reference": claim.reference_name, "mode": mode}
    row["paper_ratio"] = getattr(claim, mode)
    for name, way in (("eager", False), ("compiled", True)):
        row[f"timm_{name}"] = timm_ratios(claim, compiled=way) if mode == "infer" else {}
    return row


def _why(explained: Any, name: str, base: str, mode: str) -> dict[str, Any]:
    """Return what explains a ratio: that of the MACs, of the rooflines, and where the time differs most."""
    own, other = (explained.breakdowns[one][mode] for one in (name, base))
    bounds = [explained.roofline.bound(one.by_kind().values()) for one in (own, other)]
    kinds = [{kind: part["seconds"] for kind, part in one.by_kind().items()} for one in (own, other)]
    differences = {kind: kinds[0].get(kind, 0.0) - kinds[1].get(kind, 0.0) for kind in {*kinds[0], *kinds[1]}}
    most = sorted(differences, key=lambda kind: -abs(differences[kind]))[:3]
    return {
        "macs_ratio": other.macs / own.macs,
        "bytes_ratio": other.bytes / own.bytes,
        "roofline_ratio": bounds[1] / bounds[0],
        "difference_ms": {kind: 1000 * differences[kind] / own.images for kind in most},
    }


def found(row: Mapping[str, Any], way: str) -> Found | None:
    """Return what a row holds for eager or compiled networks."""
    if row.get(f"{way}_ratio_low") is None:
        return None
    return Found(*(row[f"{way}_{key}"] for key in ("ratio", "ratio_low", "ratio_high", "flags")))


def table(rows: Sequence[Mapping[str, Any]], mode: str) -> Any:
    """Return a mode's rows as text: paper, timm, here, verdicts, and what explains them."""
    import pandas as pd

    from search.analysis.tables import NONE, number, spread

    lines = []
    for row in rows:
        if row["mode"] != mode:
            continue
        cells = {"claim": f"{row['claim']} / {row['reference']}", "paper, A100": number(row["paper_ratio"], 2)}
        for way in ("eager", "compiled"):
            here, published = found(row, way), row[f"timm_{way}"].values()
            if mode == "infer":
                cells[f"timm, {way}"] = (
                    f"{min(published):.2f} … {max(published):.2f} ({len(published)})" if published else NONE
                )
            cells[f"here, {way}"] = NONE if here is None else spread(here.ratio, here.low, here.high, 3)
            cells[f"verdict, {way}"] = NONE if here is None else here.verdict(row["paper_ratio"])
        cells["roofline"] = number(row["roofline_ratio"], 2)
        cells["MACs × efficiency"] = f"{row['macs_ratio']:.2f} × {row['efficiency_ratio']:.2f}"
        cells["most different, ms an image"] = ", ".join(f"{k} {v:+.2f}" for k, v in row["difference_ms"].items())
        lines.append(cells)
    return pd.DataFrame(lines)


def _print(result: Mapping[str, Any], tables: Mapping[str, Any]) -> None:
    console, protocol = cli.stdout(), result["protocol"]
    if console.width < 240 and not console.is_terminal:
        console.width = 240
    console.print(
        f"{result['device']}, {result['threads']} threads, torch {result['torch']}; {protocol['precision']}, "
        f"{protocol['memory_format']}, {protocol['batch_size']} images a step, {result['resolution']} px",
        highlight=False,
    )
    for mode, frame in tables.items():
        cli.print_table(frame, f"{mode}: speed over the reference's", console)
    console.print(
        "paper: one A100, TF32, 224 px, one reading. timm: least … most of (so many) published setups, AMP or fp32.\n"
        "roofline: the ratio if every operator ran at this machine's peak or copy bandwidth. MACs × efficiency: the\n"
        "reference's MACs over the network's, times the network's efficiency over the reference's, eager.\n"
        "†: the measurement was disturbed; the JSON and CSV say how, and the same command measures again.",
        highlight=False,
    )


if __name__ == "__main__":
    sys.exit(main())
