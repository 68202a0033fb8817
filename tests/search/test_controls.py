"""The controls' judgement, on records whose answer is known; `make controls` runs them for real."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from search.controls import Check, null, positive, write_page
from search.predictions import pack
from search.study import load_study

KNOWN: dict[str, list[float]] = {
    "baseline": [84, 83, 85],
    "band kernel 15": [99, 98, 99],
    "band kernel 7": [70, 69, 71],
    "no bands": [64, 63, 65],
}
SPEEDS = [f"{mode}_{name}" for mode in ("train", "infer") for name in ("throughput", "ratio")]


def frame(arms: dict[str, list[float]], images: int = 400, seed: int = 0) -> pd.DataFrame:
    """Return trials whose test images are right with the given percentages, an entry a seed."""
    rng = np.random.default_rng(seed)
    rows = []
    for arm, shares in arms.items():
        for number, share in enumerate(shares):
            right = rng.random(images) < share / 100
            ends = {f"{name}{end}": 1.0 for name in SPEEDS for end in ("", "_low", "_high")}
            rows.append(
                {
                    "arm": arm,
                    "factor": "",
                    "seed": number,
                    "baseline": arm == "baseline",
                    "state": "COMPLETE",
                    "test_accuracy": 100 * right.mean(),
                    "val_accuracy": 100 * right.mean(),
                    "test_correct": pack(right),
                    "seconds_total": 1.0,
                    "flags": "",
                    "device": "a CPU",
                    **dict.fromkeys(("params", "macs", "resolution"), 1),
                    **ends,
                }
            )
    made = pd.DataFrame(rows)
    made.attrs = {"definition": {"baseline": "baseline", "margin": 1.0, "seeds": 3}, "study": "control-alignment"}
    return made


def test_what_is_known_is_found() -> None:
    found = positive(frame(KNOWN))
    assert [check.passed for check in found] == [True] * 4


@pytest.mark.parametrize(
    ("arms", "missed"),
    [
        ({"band kernel 15": [80, 95, 70]}, "positive: band kernel 15"),
        ({"no bands": [75, 74, 76]}, "reach of the bands"),
        ({"no bands": [50, 95, 49]}, "positive: no bands"),
    ],
)
def test_what_is_missed_is_told(arms: dict[str, list[float]], missed: str) -> None:
    assert any(missed in check.name for check in positive(frame(KNOWN | arms)) if not check.passed)


def test_seeds_of_one_network_are_not_told_apart() -> None:
    rng = np.random.default_rng(1)
    (check,) = null(frame({"baseline": rng.normal(90, 1, 36).tolist()}))
    assert check.passed, check
    assert float(check.found.split("%")[0]) < 15  # of one draw of 36 seeds


def test_a_workbench_that_sees_ghosts_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from search.analysis import inference

    monkeypatch.setattr(inference.Difference, "p_different", lambda self: 0.001)
    (check,) = null(frame({"baseline": [90.0 + seed % 5 for seed in range(36)]}))
    assert not check.passed


def test_the_page_says_whether_to_trust(tmp_path: Path) -> None:
    checks = [Check("a <check>", True, "1", "1"), Check("another", False, "2", "3")]
    frames: dict[str, Any] = {"positive_control": frame({"baseline": [90.0]})}
    page = write_page(checks, tmp_path, "python -m search.controls", frames).read_text()
    assert "Not yet: another." in page
    assert "a &lt;check&gt;" in page
    assert "Yes: " in write_page(checks[:1], tmp_path, "", frames).read_text()


def test_the_controls_are_studies() -> None:
    assert load_study("positive_control").data.name == "alignment"
    assert load_study("null_control").seeds == 72
