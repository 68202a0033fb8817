"""The command line as a person uses it: real processes, a real SQLite storage and a real MLflow store."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import optuna
import pytest
from at_work import Begin, environment
from mlflow import MlflowClient
from optuna.trial import FrozenTrial, TrialState, create_trial

import search.analysis
import search.run
from search.analysis import effects, load, write_report
from search.run import main
from search.study import list_scales, list_studies
from search.sync import main as sync
from space.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def command(miniature: list[str]) -> Callable[..., list[str]]:
    def build(*args: str, small: bool = True) -> list[str]:
        overrides = [part for change in miniature for part in ("--set", change)] if small else []
        return [sys.executable, "-m", "search.run", *args, *overrides]

    return build


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300)


def call(command: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, which saves the seconds that importing takes."""
    with chdir(folder):
        code = main(command[3:])
    told = capsys.readouterr()
    return subprocess.CompletedProcess(command, code, told.out, told.err)


def storage(folder: Path) -> str:
    return f"sqlite:///{folder / 'runs/studies.db'}"


def test_a_study_from_the_command_to_the_report(command: Callable[..., list[str]], tmp_path: Path) -> None:
    args = command("--study", "norm_ablation", "--scale", "laptop", "--seeds", "2", "--json")
    first = run(args, tmp_path)
    assert first.returncode == 0, first.stderr
    summary = json.loads(first.stdout)
    assert summary["trials"] == {"complete": 4}
    assert [row["arm"] for row in summary["result"]] == ["BatchNorm", "LayerNorm"]
    assert "4/4 LayerNorm, seed 1: val" in first.stderr

    frame = load("norm_ablation", storage=storage(tmp_path))
    assert frame["state"].tolist() == ["COMPLETE"] * 4
    assert frame["test_accuracy"].between(0, 100).all()
    assert (frame["train_throughput"] > 0).all()
    report = (tmp_path / summary["report"]).read_text()
    assert "What does BatchNorm give in speed" in report
    assert not re.search(r'(src|href)="(?!#)|@import|url\(["\']?http', report)  # needs nothing from elsewhere

    client = MlflowClient(f"sqlite:///{tmp_path / 'runs/mlflow.db'}")
    experiment = client.get_experiment_by_name("norm_ablation-laptop")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 5  # one of the study, one of each trial

    # The same command again repeats nothing; one more seed adds what is missing.
    again = json.loads(run(args, tmp_path).stdout)
    assert again["result"] == summary["result"]
    grown = json.loads(run([*args, "--seeds", "3"], tmp_path).stdout)
    assert grown["trials"] == {"complete": 6}
    after = load("norm_ablation", storage=storage(tmp_path))
    assert after["test_accuracy"].tolist()[:4] == frame["test_accuracy"].tolist()
    assert len(client.search_runs([experiment.experiment_id])) == 7


def test_another_definition_under_the_same_name_is_refused(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = command("--study", "norm_ablation", "--scale", "laptop", "--seeds", "1")
    assert call(args, tmp_path, capsys).returncode == 0
    before = load("norm_ablation", storage=storage(tmp_path))
    changed = call([*args, "--set", "recipe.lr=0.5"], tmp_path, capsys)
    assert changed.returncode == 2
    assert "recipe.lr was 0.008, is 0.5" in " ".join(changed.stderr.split())
    assert "Traceback" not in changed.stderr
    after = load("norm_ablation", storage=storage(tmp_path))
    assert before.drop(columns=["curves", "architecture"]).equals(after.drop(columns=["curves", "architecture"]))
    renamed = call([*args, "--set", "recipe.lr=0.5", "--name", "faster"], tmp_path, capsys)
    assert renamed.returncode == 0, renamed.stderr


@pytest.mark.parametrize(
    ("kill", "storage_url"),
    [(signal.SIGKILL, "sqlite"), (signal.SIGINT, "sqlite"), (signal.SIGKILL, "postgresql")],
    indirect=["storage_url"],
)
def test_a_killed_study_goes_on_where_it_stopped(
    begin: Begin, command: Callable[..., list[str]], tmp_path: Path, kill: signal.Signals, storage_url: str
) -> None:
    args = command("--study", "kernel_ablation", "--seeds", "2", "--storage", storage_url)
    process = begin("search.run", "--study", "kernel_ablation", "--seeds", "2", "--storage", storage_url)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("3/14"):
            process.send_signal(kill)
            break
    told = process.stderr.read()
    code = process.wait(timeout=60)
    if kill is not signal.SIGKILL:
        assert code == 130
        assert "interrupted; nothing finished is lost. To go on: python -m search.run" in told
        assert "Traceback" not in told

    halted = load("kernel_ablation", storage=storage_url)
    finished = halted[halted["state"] == "COMPLETE"]
    assert 3 <= len(finished) < 14

    resumed = run(args, tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    whole = load("kernel_ablation", storage=storage_url)
    assert whole["state"].tolist() == ["COMPLETE"] * 14
    assert not whole.duplicated(["arm", "seed"]).any()
    # What was finished is untouched: its own time of completion is still there.
    study = optuna.load_study(study_name="kernel_ablation-laptop", storage=storage_url)
    started = [trial.datetime_start for trial in study.get_trials()]
    numbers = finished["number"].tolist()
    later = [n for n in whole["number"] if n not in numbers]
    assert max(started[n] for n in numbers) < min(started[n] for n in later)
    # What the killed one held is kept as it was left, and counted nowhere.
    lost = [trial.number for trial in study.get_trials() if trial.state is TrialState.FAIL]
    assert len(lost) <= (kill is signal.SIGKILL)
    assert ("its worker died; it is tried again" in resumed.stderr) == bool(lost)
    assert not set(lost) & set(whole["number"])


def test_a_search_finds_a_front(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for sampler in ("tpe", "nsga2", "qmc", "exhaustive"):
        args = command("--study", "pareto_search", "--name", sampler, "--set", f"sampler={sampler}", "--json")
        done = call([*args, "--set", "trials=6", "--seeds", "1", "--set", "pruning=null"], tmp_path, capsys)
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout)
        assert summary["trials"] == {"complete": 6}
        frame = load(f"{sampler}-laptop", storage=storage(tmp_path))
        assert frame["baseline"].tolist()[0]  # a search starts from its base
        assert frame["param.band kernel"].isin([3, 5, 7, 9, 11, 13]).all()


def test_an_adaptive_study_adds_seeds_where_verdicts_are_open(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = "seeds={min: 2, max: 4, until: decided, budget: 10m}"
    args = command("--study", "branch_ablation", "--set", rule, "--set", "margin=30", "--json")
    assert call(args, tmp_path, capsys).returncode == 0
    frame = load("branch_ablation", storage=storage(tmp_path))
    table = effects(frame).set_index("arm")
    assert table["seeds"].between(2, 4).all()
    # Whoever is open has had all it can get, the baseline as many as any; a second call finds nothing to do.
    assert (table["seeds"][table["verdict"] == "undecided"] == 4).all()
    assert table["seeds"]["baseline"] == table["seeds"].max()
    again = call(args, tmp_path, capsys)
    assert again.returncode == 0
    assert len(load("branch_ablation", storage=storage(tmp_path))) == len(frame)
    other = call([*args, "--set", "seeds.max=9"], tmp_path, capsys)
    assert other.returncode == 2
    assert "seeds.max was 4, is 9" in other.stderr


def test_the_time_for_further_seeds_is_kept(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = "seeds={min: 2, max: 9, budget: 0.000001}"
    call(command("--study", "norm_ablation", "--scale", "laptop", "--set", rule), tmp_path, capsys)
    frame = load("norm_ablation", storage=storage(tmp_path))
    # Before anything is spent one step is taken, to the next look, none after it.
    assert frame.groupby("arm")["seed"].nunique().max() <= 4


def test_a_study_without_mlflow_goes_on_and_is_copied_later(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    away = "http://me:secret@127.0.0.1:1"
    args = command("--study", "norm_ablation", "--scale", "laptop", "--seeds", "1", "--tracking-uri", away)
    done = call(args, tmp_path, capsys)
    assert done.returncode == 0
    told = [line for line in done.stderr.splitlines() if "MLflow" in line]
    assert len(told) == 1
    assert "nobody answers" in told[0]
    assert "secret" not in done.stderr
    for copied in (2, 0):
        assert sync(["--study", "norm_ablation", "--out", str(tmp_path / "runs")]) == 0
        assert f"{copied} trials copied" in capsys.readouterr().err
    assert sync(["--study", "norm_ablation", "--out", str(tmp_path / "runs"), "--tracking-uri", away]) == 2


def test_networks_that_cannot_be_trained_fail_alone(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Far too high a learning rate: the loss overflows, or the accuracy is that of guessing.
    done = call(
        command("--study", "norm_ablation", "--scale", "laptop", "--seeds", "1", "--set", "recipe.lr=1e30", "--json"),
        tmp_path,
        capsys,
    )
    assert done.returncode == 1, done.stderr
    frame = load("norm_ablation", storage=storage(tmp_path))
    assert set(frame["state"]) == {"FAIL"}
    assert frame["failure"].str.contains("the loss is not finite").all()
    assert "2 of 2 trials failed" in done.stderr
    assert "the loss is not finite" in (tmp_path / "runs/norm_ablation-laptop/report.html").read_text()


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("study", [name for name in list_studies() if name != "main_table"])
def test_every_study_runs_in_miniature(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], study: str
) -> None:
    extra = ["--set", "trials=3"] if study == "pareto_search" else ["--seeds", "1"]
    done = call(command("--study", study, "--scale", "laptop", *extra), tmp_path, capsys)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_the_main_table_counts_and_measures(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [
        f"throughput.{field}" for field in ("min_rounds=1", "max_rounds=1", "block_seconds=0.001", "warmup_seconds=0")
    ]
    overrides = [part for change in small for part in ("--set", change)]
    large = ("convnext_small", "inceptionnext_small", "convnext_base", "inceptionnext_base")
    text = (ROOT / "studies/main_table.yaml").read_text()
    kept = [line for line in text.splitlines() if not line.strip().startswith(large)]
    (tmp_path / "small_table.yaml").write_text("\n".join(kept))
    done = call([*command("--study", "small_table.yaml", small=False), *overrides], tmp_path, capsys)
    assert done.returncode == 0, done.stderr
    frame = load("small_table", storage=storage(tmp_path)).set_index("arm")
    assert frame["test_accuracy"].isna().all()
    assert (frame["train_throughput"] > 0).all()
    assert frame.loc["inceptionnext_tiny", "params"] == 28_055_680


def test_a_dry_run_writes_nothing(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = call(command("--study", "kernel_ablation", "--dry-run", "--json", small=False), tmp_path, capsys)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["trials"] == 21
    assert plan["arms"][0]["params"] > 0
    assert plan["seconds"] > 0
    shown = call(command("--study", "pareto_search", "--dry-run", small=False), tmp_path, capsys)
    assert "branch ratio: 0.0625, 0.125, 0.25" in shown.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_list_names_every_study_and_scale(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = call(command("--list", small=False), tmp_path, capsys).stdout
    for name, text in (list_studies() | list_scales()).items():
        assert name in shown
        assert text in shown


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ([], "nothing to run: give --study NAME"),
        (["--study", "kernel_abl"], "unknown study 'kernel_abl', did you mean 'kernel_ablation'?"),
        (["--study", "kernel_ablation", "--scale", "cifar", "--set", "data.root=nowhere"], "'nowhere' does not exist"),
        (["--study", "kernel_ablation", "--storage", "nonsense"], "not a database URL"),
        (["--study", "kernel_ablation", "--storage", "sqlite:////proc/no/x.db"], "cannot be opened"),
        (
            ["--study", "kernel_ablation", "--storage", "postgresql+psycopg://me:secret@127.0.0.1:1/x"],
            "cannot be opened: connection failed",
        ),
        (["--study", "kernel_ablation", "--tracking-uri", "ftp://x"], "not a store that works here"),
        (["--study", "kernel_ablation", "--set", "device=cuda:99"], "device 'cuda:99' is not on this machine"),
        (["--study", "kernel_ablation", "--out", "/proc/no"], "cannot be created"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], told: str
) -> None:
    done = call(command(*args, small=False), tmp_path, capsys)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("*.db"))


def test_records_of_what_is_not_there(
    command: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"storage .* does not exist"):
        load("kernel_ablation", storage=storage(tmp_path))
    assert not list(tmp_path.iterdir())
    assert (
        call(command("--study", "norm_ablation", "--scale", "laptop", "--seeds", "1"), tmp_path, capsys).returncode == 0
    )
    with pytest.raises(InputError, match=r"is not in the storage.*; there are norm_ablation-laptop"):
        load("kernel_ablation", storage=storage(tmp_path))


def test_telling_what_is_known_never_takes_much_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of a second each, after which it takes two to tell what is known."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(search.run, "time", SimpleNamespace(monotonic=lambda: clock.now))
    told = []

    def tell() -> None:
        told.append(clock.now)
        clock.now += 2

    finished: list[FrozenTrial] = []
    display = MagicMock(finished=finished.append)
    copying = search.run._Copying(display, MagicMock(), tell, 0.05)
    for number in range(400):
        clock.now += 1
        copying.finished(create_trial(value=number))
    assert len(finished) == 400
    assert told[0] == 1
    assert 2 * (len(told) - 1) / clock.now <= 0.05
    assert len(told) > 8


@pytest.mark.usefixtures("runs")
def test_a_watched_report_loads_itself_anew_until_the_study_is_over(
    run_here: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[str] = []

    def kept(*args: Any, **rest: Any) -> dict[str, Path]:
        written = write_report(*args, **rest)
        pages.append(written["report"].read_text())
        return written

    monkeypatch.setattr(search.analysis, "write_report", kept)
    monkeypatch.setattr(search.run, "WATCHING", 1.0)  # after every trial
    assert run_here("ratio_ablation", "--seeds", "1", "--watch")[0] == 0
    assert len(pages) > 2
    assert "1 complete" in pages[0]
    assert all('http-equiv="refresh"' in page for page in pages[:-1])
    assert 'http-equiv="refresh"' not in pages[-1]
    assert not any("+nan" in page for page in pages)
