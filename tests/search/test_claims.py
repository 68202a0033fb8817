import csv
import json
from pathlib import Path

import pytest

from search import explain as explain_command
from search.claims import main, verdict
from search.published import SIZES, claims, timm_ratios, timm_throughput
from space import preset


@pytest.mark.parametrize(
    ("paper", "low", "high", "expected"),
    [
        (1.5, 1.4, 1.6, "holds"),
        (1.5, 1.1, 1.2, "holds"),
        (1.5, 0.9, 1.2, "cannot tell"),
        (1.5, 0.99, 1.02, "does not hold"),
        (1.5, 0.7, 0.8, "does not hold"),
        (0.8, 0.7, 0.9, "holds"),
        (0.8, 0.9, 1.1, "cannot tell"),
        (0.8, 0.99, 1.2, "does not hold"),
        (1.004, 0.98, 1.02, "holds"),
        (1.004, 0.9, 1.02, "cannot tell"),
        (1.004, 1.05, 1.1, "does not hold"),
        (1.004, 0.8, 0.9, "does not hold"),
    ],
)
def test_a_claim_holds_where_the_whole_interval_says_so(paper: float, low: float, high: float, expected: str) -> None:
    assert verdict(paper, low, high) == expected
    # A slower network is a faster reference.
    assert verdict(1 / paper, 1 / high, 1 / low) == expected


def test_the_papers_claims_are_its_tables_ratios() -> None:
    found = {claim.name: claim for claim in claims(("sizes", "kernels", "ablation"))}
    assert len(found) == len(SIZES) + 7 + 10
    tiny = found["inceptionnext_tiny"]
    assert (tiny.train, tiny.infer) == (pytest.approx(901 / 575), pytest.approx(2900 / 2413))
    assert found["ConvNeXt-T, kernel 3"].train == pytest.approx(798 / 575)
    assert found["ConvNeXt-T, kernel 3"].network.architecture == preset("convnext_tiny_k3")
    assert found["InceptionNeXt-T, LayerNorm"].infer == pytest.approx(2646 / 2900)
    assert found["InceptionNeXt-T, LayerNorm"].reference.architecture == preset("inceptionnext_tiny")
    assert all(claim.network.resolution == 224 for claim in found.values())


def test_timms_ratios_are_of_one_setup_and_size() -> None:
    tiny = next(claim for claim in claims(("sizes",)) if claim.name == "inceptionnext_tiny")
    eager, compiled = timm_ratios(tiny, compiled=False), timm_ratios(tiny, compiled=True)
    assert eager["amp-nchw-pt240-cu124-rtx4090"] == pytest.approx(3555.09 / 4796.99)
    assert compiled["amp-nchw-pt240-cu124-rtx4090-dynamo"] == pytest.approx(6716.71 / 6713.74)
    assert not set(eager) & set(compiled)
    assert timm_ratios(claims(("kernels",))[0], compiled=False) == {}
    assert timm_throughput()["images_per_s"].gt(0).all()


def test_claims_are_measured_and_put_beside_the_paper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--resolution", "32", "--batch-size", "2", "--memory-format", "channels_last", "--budget", "1s"]
    out = str(tmp_path / "claims")
    assert main(["--groups", "sizes", "--sizes", "atto", "--compiled", "none", *small, "--out", out]) == 0
    shown = capsys.readouterr().out
    assert "inceptionnext_atto / convnext_atto" in shown
    assert "3.19" in shown  # the paper's 2661 / 835
    with (tmp_path / "claims/claims.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["mode"] for row in rows] == ["train", "infer"]
    for row in rows:
        assert float(row["eager_ratio_low"]) <= float(row["eager_ratio"]) <= float(row["eager_ratio_high"])
        assert 0.9 < float(row["macs_ratio"]) < 1.1
    kept = json.loads((tmp_path / "claims/claims.json").read_text())
    assert kept["resolution"] == 32
    assert "| claim |" in (tmp_path / "claims/claims.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--sizes", "huge"], "--sizes huge: allowed: atto, tiny, small, base"),
        (["--resolution", "100"], "resolution 100 is not divided by the network's stride 32"),
        (["--device", "cuda:9"], "device 'cuda:9' is not on this machine"),
        (["--precision", "tf32", "--device", "cpu"], "precision tf32 needs an NVIDIA GPU"),
        (["--out", "file/claims"], "--out file/claims: cannot be created"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert main(["--groups", "sizes", *arguments]) == 2
    seen = capsys.readouterr()
    assert told in seen.err
    assert len(seen.err.strip().splitlines()) == 1


def test_explain_says_where_the_time_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "why"
    small = ["--resolution", "32", "--batch-size", "2", "--out", str(out)]
    assert explain_command.main(["inceptionnext_atto", "--reference", "convnext_atto", *small]) == 0
    shown = capsys.readouterr().out
    for text in ("peaks measured here", "depthwise 1x9", "depthwise 7x7", "stages.2.blocks.*.mlp", "between operators"):
        assert text in shown
    found = json.loads((out / "explain.json").read_text())
    assert set(found["models"]) == {"inceptionnext_atto", "convnext_atto"}
    figures = {path.name for path in out.glob("*.png")}
    assert figures == {
        "efficiency_gap.png",
        "waterline_inceptionnext_atto.png",
        "waterline_convnext_atto.png",
    }
    with (out / "operators.csv").open() as file:
        assert {row["phase"] for row in csv.DictReader(file)} == {"forward", "backward", "update"}


def test_explain_tells_mistakes_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain_command.main(["inceptionnext_tinny"]) == 2
    assert "did you mean 'inceptionnext_tiny'?" in capsys.readouterr().err
    assert explain_command.main(["inceptionnext_atto", "--resolution", "32", "--batch-size", "1"]) == 2
    assert "more than 1 value per channel" in capsys.readouterr().err
