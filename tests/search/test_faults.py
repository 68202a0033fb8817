"""Faults that are injected for real: afterwards the study is completed, and nothing is lost or counted twice."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from at_work import Holders, each_once
from faults import PATIENCE, Command, command
from mlflow import MlflowClient
from optuna.trial import TrialState
from PIL import Image

from search.analysis import load
from search.measurements import Measurements
from search.storage import find_study, open_storage
from search.tracking import ALL_TRIALS

pytestmark = pytest.mark.usefixtures("runs")
STUDY = ("--study", "norm_ablation", "--scale", "laptop", "--seeds", "2")
TRIED_AGAIN = "its worker died; it is tried again"


@pytest.fixture
def args(miniature: list[str]) -> tuple[str, ...]:
    return (*STUDY, *(part for change in miniature for part in ("--set", change)), "--set", "recipe.epochs=2")


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'runs/studies.db'}"


def is_whole(folder: Path, args: tuple[str, ...]) -> str:
    """Complete the study; check the records, their copy and the report; return what was told."""
    last = command(folder, *args)
    assert last.end() == 0, last.told
    assert "Traceback" not in last.told
    each_once(url(folder), 4, "norm_ablation")
    client = MlflowClient(f"sqlite:///{folder / 'runs/mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name LIKE 'norm%'")
    copied = client.search_runs([experiment.experiment_id], ALL_TRIALS)
    assert len(copied) == 4
    assert all("test_accuracy_percent" in run.data.metrics and run.info.status == "FINISHED" for run in copied)
    assert "LayerNorm" in (folder / "runs/norm_ablation-laptop/report.html").read_text()
    assert not list(folder.rglob("*.part")) + list(folder.rglob("*.ckpt"))
    return last.told


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("dies_measuring", "measuring throughput"),
        ("dies_building", TRIED_AGAIN),
        ("dies_training", TRIED_AGAIN),
        ("dies_checkpointing", TRIED_AGAIN),
        ("dies_telling", TRIED_AGAIN),
        ("dies_copying", "report"),
        ("dies_reporting", "report"),
    ],
)
def test_who_dies_at_any_point_loses_nothing(tmp_path: Path, args: tuple[str, ...], fault: str, told: str) -> None:
    assert command(tmp_path, *args, fault=fault).end() == -signal.SIGKILL
    assert told in is_whole(tmp_path, args)


def test_who_dies_making_the_copy_leaves_none_that_is_half_made(tmp_path: Path, args: tuple[str, ...]) -> None:
    (tmp_path / "runs/mlflow.db").unlink()
    assert command(tmp_path, *args, fault="dies_making_the_copy").end() == -signal.SIGKILL
    is_whole(tmp_path, args)


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_power_that_fails_loses_nothing_that_was_told(tmp_path: Path, args: tuple[str, ...], kept: float) -> None:
    """What was not brought to the disk, as far as `kept`, is gone: SQLite's journal of a transaction under way."""
    assert command(tmp_path, *args, fault="dies_writing").end() == -signal.SIGKILL
    journal = tmp_path / "runs/studies.db-journal"
    os.truncate(journal, int(kept * journal.stat().st_size))
    (tmp_path / "runs/norm_ablation-laptop/work").mkdir(parents=True, exist_ok=True)
    is_whole(tmp_path, args)


def test_everybody_dies(tmp_path: Path, args: tuple[str, ...]) -> None:
    study = command(tmp_path, *args, "--set", "recipe.epochs=40", "--workers", "2")
    holders = Holders(url(tmp_path), "norm_ablation")
    wait_for(lambda: len(holders()) == 2, study)
    assert study.process.pid is not None
    everybody = [*psutil.Process(study.process.pid).children(recursive=True), psutil.Process(study.process.pid)]
    for process in reversed(everybody):
        process.kill()
    study.end()
    psutil.wait_procs(everybody, timeout=PATIENCE)
    assert TRIED_AGAIN in is_whole(tmp_path, (*args, "--set", "recipe.epochs=40"))


def test_two_who_run_the_same_study_at_once_share_it(tmp_path: Path, args: tuple[str, ...]) -> None:
    both = [command(tmp_path, *args) for _ in range(2)]
    assert [one.end() for one in both] == [0, 0], [one.told for one in both]
    is_whole(tmp_path, args)


def test_memory_that_runs_out_costs_one_trial(tmp_path: Path, args: tuple[str, ...]) -> None:
    study = command(tmp_path, *args, fault="runs_out_of_memory")
    assert study.end() == 0, study.told
    assert "1/4 BatchNorm, seed 0: failed: out of memory:" in study.told
    frame = load("norm_ablation", storage=url(tmp_path))
    assert frame["state"].tolist() == ["FAIL", *["COMPLETE"] * 3]


def test_a_full_disk_costs_the_report_not_the_records(tmp_path: Path, args: tuple[str, ...]) -> None:
    unfinished = tmp_path / "runs/norm_ablation-laptop/unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "report.html").symlink_to("/dev/full")
    study = command(tmp_path, *args)
    assert study.end() == 1
    assert "the report cannot be written to" in study.told
    assert "No space left on device; the records are whole: run this again" in study.told
    assert "Traceback" not in study.told
    (unfinished / "report.html").unlink()
    is_whole(tmp_path, args)


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_a_scheduler_that_takes_the_machine_gets_it_at_once(
    tmp_path: Path, args: tuple[str, ...], workers: tuple[str, ...]
) -> None:
    study = command(tmp_path, *args, "--set", "recipe.epochs=40", *workers)
    holders = Holders(url(tmp_path), "norm_ablation")
    wait_for(holders, study)
    study.process.terminate()
    assert study.end() == 130
    assert "nothing finished is lost. To go on: python -m search.run" in study.told
    trials = find_study("norm_ablation", open_storage(url(tmp_path), write=False)).get_trials()
    assert len(trials) == 4
    assert {trial.state for trial in trials} <= {TrialState.WAITING, TrialState.COMPLETE}
    is_whole(tmp_path, (*args, "--set", "recipe.epochs=40"))


def test_measuring_anew_keeps_what_was_measured(tmp_path: Path, args: tuple[str, ...]) -> None:
    for more in ((), ("--fresh",), ("--fresh", "--workers", "2")):
        study = command(tmp_path, *args, *more)
        assert study.end() == 0, study.told
    opened = find_study("norm_ablation", open_storage(url(tmp_path), write=False))
    assert list(Measurements(opened).counts().values()) == [3, 3]


@pytest.fixture
def of_files(tmp_path: Path, args: tuple[str, ...]) -> tuple[str, ...]:
    """Arguments for a study of images that lie in files, read by a process of a loader."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 4), ("test", 4)):
        for label in range(2):
            folder = tmp_path / "images" / split / str(label)
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(rng.integers(0, 255, (24, 24), dtype=np.uint8)).save(folder / f"{number}.png")
    data = {"name": "timm", "root": str(tmp_path / "images"), "num_classes": 2, "resolution": 24, "in_channels": 1}
    splits = {"val_split": "val", "test_split": "test", "mean": [0.5], "std": [0.25]}
    laptop = yaml.safe_load((Path(__file__).parents[2] / "studies/scales/laptop.yaml").read_text())
    scale = laptop | {"data": data | splits, "network": laptop.get("network", {}) | {"num_classes": 2}}
    (tmp_path / "files.yaml").write_text(yaml.safe_dump(scale))
    changes = [part for part in args if "=" in part and not part.startswith("data.")]
    overrides = [*changes, "recipe.workers=1", "recipe.batch_size=2", "device=cpu"]
    at = ("--study", "norm_ablation", "--scale", "files.yaml", "--seeds", "2")
    return (*at, *(part for change in overrides for part in ("--set", change)))


def test_a_loader_that_is_killed_costs_one_more_try(tmp_path: Path, of_files: tuple[str, ...]) -> None:
    study = command(tmp_path, *of_files, fault="loses_a_loader")
    assert study.end() == 0, study.told
    assert "(BatchNorm, seed 0): DataLoader worker (pid" in study.told
    assert "; it is tried again" in study.told
    frame = load("norm_ablation", storage=url(tmp_path))
    assert frame["state"].tolist() == ["COMPLETE"] * 4
    assert not frame.duplicated(["arm", "seed"]).any()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, of_files: tuple[str, ...], split: str) -> None:
    damaged = tmp_path / "images" / split / "1" / "3.png"
    os.truncate(damaged, damaged.stat().st_size // 2)
    study = command(tmp_path, *of_files)
    assert study.end() == 1
    assert f"1/4 BatchNorm, seed 0: failed: image {damaged}: cannot be read: " in study.told
    assert "Traceback" not in study.told


def wait_for(condition: object, study: Command) -> None:
    """Wait for something that a running command brings about."""
    end = time.monotonic() + PATIENCE
    while not condition():  # type: ignore[operator]
        assert study.process.is_alive(), study.told
        assert time.monotonic() < end, study.told
