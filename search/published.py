"""Published claims on speed, as data: the paper's ratios, and timm's for the same networks on other machines."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import pandas as pd

import studies
from search.plan import paper_rows
from search.study import load_study
from search.throughput import Candidate
from space import preset
from space.presets import native_resolution

Group = Literal["sizes", "kernels", "ablation"]
SIZES = ("atto", "tiny", "small", "base")
TIMM_FILE = "paper/timm_inference_throughput.csv"
COMPILED = "-dynamo"


@dataclass(frozen=True)
class Claim:
    """That one network runs at `train` and `infer` times the reference's throughput (arXiv 2303.16900, an A100)."""

    group: Group
    name: str
    network: Candidate
    reference_name: str
    reference: Candidate
    train: float
    infer: float
    timm: tuple[str, str] | None = None


def claims(groups: tuple[Group, ...]) -> list[Claim]:
    """Return the paper's speed claims: Table 4's pairs by size, Table 1's kernels, Table 8's ablation."""
    makers = {"sizes": _sizes, "kernels": _kernels, "ablation": _ablation}
    return [claim for group in groups for claim in makers[group]()]


def _sizes() -> list[Claim]:
    published = paper_rows(load_study("main_table"))
    assert published is not None
    rows, found = published["rows"], []
    for size in SIZES:
        own, other = f"inceptionnext_{size}", f"convnext_{size}"
        ratios = {mode: rows[own][mode] / rows[other][mode] for mode in ("train", "infer")}
        timm = (f"inception_next_{size}", f"convnext_{size}")
        found.append(Claim("sizes", own, _preset(own), other, _preset(other), **ratios, timm=timm))
    return found


def _kernels() -> list[Claim]:
    return _of_study("kernels", "paper_table1", "ConvNeXt-T, ")


def _ablation() -> list[Claim]:
    return _of_study("ablation", "paper_table8", "InceptionNeXt-T, ")


def _of_study(group: Group, name: str, family: str) -> list[Claim]:
    """Return the claims of an ablation's arms, at the size that the paper gives them."""
    study = load_study(name, "imagenet")
    published = paper_rows(study)
    assert published is not None
    rows = published["rows"]
    networks = {arm: Candidate(study.architecture(arm), study.resolution(arm)) for arm in rows}
    base = study.baseline
    return [
        Claim(
            group,
            family + arm,
            networks[arm],
            family + base,
            networks[base],
            **{mode: rows[arm][mode] / rows[base][mode] for mode in ("train", "infer")},
        )
        for arm in rows
        if arm != base
    ]


def _preset(name: str) -> Candidate:
    return Candidate(preset(name), native_resolution(name))


@lru_cache(maxsize=1)
def timm_throughput() -> pd.DataFrame:
    """Return timm's published inference throughput, with its source in the file: a row a setup, model and size."""
    return pd.read_csv(Path(studies.__file__).parent / TIMM_FILE, comment="#")


def timm_ratios(claim: Claim, *, compiled: bool) -> dict[str, float]:
    """Return timm's inference ratios of the claim's pair by setup, at one image size in both; often none."""
    if claim.timm is None:
        return {}
    table = timm_throughput()
    table = table[table["setup"].str.endswith(COMPILED) == compiled]
    size = claim.network.resolution
    speeds = table[table["image_size"] == size].set_index(["model", "setup"])["images_per_s"]
    own, other = (speeds.loc[name] if name in speeds.index else pd.Series(dtype=float) for name in claim.timm)
    return {str(setup): float(ratio) for setup, ratio in (own / other).dropna().items()}
