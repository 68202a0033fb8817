import csv
import json
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path

import pytest

from search import cli
from search.bench import main
from search.models import candidate, candidates
from space import preset
from space.errors import InputError

QUICK = ["--resolution", "32", "--batch-size", "2", "--budget", "0.5s", "--memory-format", "channels_last"]


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(preset("inceptionnext_laptop").to_yaml())
    return str(path)


def test_files_presets_and_timms_models_are_measured_beside_each_other(
    small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = [str(tmp_path / f"found{suffix}") for suffix in (".json", ".csv")]
    models = [small, "convnext_laptop", "timm:test_convnext"]
    # The small file sees one channel, timm's model three: each gets images of its own.
    assert main([*models, "--reference", "convnext_laptop", *QUICK, "--out", out[0], "--out", out[1]]) == 0
    found = json.loads(Path(out[0]).read_text())
    assert list(found["models"]) == models
    assert found["reference"] == "convnext_laptop"
    assert "--reference convnext_laptop" in found["command"]
    for record in found["models"].values():
        assert set(record) >= {"train", "infer", "latency", "flags", "protocol", "device", "resolution"}
        assert len(record["train"]["rounds"]) >= 3
        assert record["train"]["memory_bytes"] > record["infer"]["memory_bytes"] > 0
    with Path(out[1]).open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["model"], line["mode"]) for line in lines] == [
        (model, mode) for model in models for mode in ("train", "infer", "latency")
    ]
    for line in lines:
        assert float(line["low"]) <= float(line["images_per_s"]) <= float(line["high"])
        assert line["batch_size"] == ("1" if line["mode"] == "latency" else "2")
    shown = capsys.readouterr().out
    for text in ("training step", "inference", "latency", "1 (reference)", "peak memory, MiB", "timm:test_convnext"):
        assert text in shown


def test_the_json_is_all_that_is_printed(small: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([small, small, *QUICK, "--mode", "infer", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["models"]) == [small, f"{small} (2)"]
    assert found["reference"] == small
    assert all("train" not in record for record in found["models"].values())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["inceptionnext_tinny"], "unknown model 'inceptionnext_tinny', did you mean 'inceptionnext_tiny'?"),
        (["resnet50"], "timm:resnet50 is one of timm's"),
        (["timm:resnet5"], "timm has no model 'resnet5', did you mean 'resnet50'?"),
        (["nothing.yaml"], "nothing.yaml: cannot be read as YAML"),
        (["inceptionnext_tiny", "--resolution", "33"], "resolution 33 is not divided by the network's stride 32"),
        (["inceptionnext_tiny", "--precision", "tf32"], "precision tf32 needs an NVIDIA GPU"),
        (["inceptionnext_tiny", "--cuda-graphs"], "cuda_graphs needs a GPU"),
        (["inceptionnext_tiny", "--device", "cuda:9"], "device 'cuda:9' is not on this machine; allowed: auto, cpu"),
        (["inceptionnext_tiny", "--out", "found.txt"], "found.txt: the name's end says the format"),
        (["inceptionnext_tiny", "--out", "no/such/found.csv"], "no/such/found.csv: the folder does not exist"),
    ],
)
def test_mistakes_are_one_line(
    change: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*change, *(() if "--device" in change else ("--device", "cpu"))]) == 2
    seen = capsys.readouterr()
    assert told in seen.err
    assert len(seen.err.strip().splitlines()) == 1
    assert not seen.out


@pytest.mark.parametrize("option", [["--batch-size", "0"], ["--target", "2"], ["--budget", "soon"], ["--mode", "fly"]])
def test_options_that_make_no_sense_exit_with_two(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["inceptionnext_tiny", *option])
    assert ended.value.code == 2
    assert option[0] in capsys.readouterr().err


def test_a_batch_that_cannot_fit_is_told_and_nothing_else_is_measured_instead(
    small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    impossible = ["--batch-size", str(10**10), "--mode", "infer", "--resolution", "320"]
    assert main([small, *QUICK, *impossible, "--json"]) == 1
    seen = capsys.readouterr()
    assert "out of memory at batch size 10000000000; the largest that fits is about " in seen.err
    assert json.loads(seen.out)["models"][small].keys() == {"failure", "resolution"}


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (cli.share, "1%", 0.01),
        (cli.share, "0.5%", 0.005),
        (cli.share, "0.02", 0.02),
        (cli.seconds, "60s", 60),
        (cli.seconds, "1.5m", 90),
        (cli.seconds, "1h", 3600),
        (cli.seconds, "7", 7),
        (cli.positive, "3", 3),
    ],
)
def test_shares_times_and_counts_are_read(read: Callable[[str], float], text: str, value: float) -> None:
    assert read(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        *((cli.share, text) for text in ("0", "100%", "-1%", "x", "")),
        *((cli.seconds, text) for text in ("0s", "-3", "1d", "", ".")),
        *((cli.positive, text) for text in ("0", "-1", "1.5", "x")),
    ],
)
def test_what_cannot_be_read_is_told(read: Callable[[str], float], text: str) -> None:
    with pytest.raises(ArgumentTypeError, match=r"such as|whole number"):
        read(text)


def test_models_have_their_published_resolution() -> None:
    assert candidate("inceptionnext_base_384").resolution == 384
    assert candidate("inceptionnext_tiny").resolution == 224
    assert candidate("timm:inception_next_base.sail_in1k_384").resolution == 384
    assert candidate("timm:resnet50", 96).resolution == 96
    assert list(candidates(["convnext_tiny", "convnext_tiny", "convnext_tiny"])) == [
        "convnext_tiny",
        "convnext_tiny (2)",
        "convnext_tiny (3)",
    ]
    with pytest.raises(InputError, match="unknown model"):
        candidates(["convnext_tiny", "x"])
