"""The copy in a real MLflow store."""

from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from optuna.trial import TrialState

from search.tracking import ALL_TRIALS, FEW, Tracker
from space import preset
from space.errors import InputError

CURVES = [{"epoch": e, "lr": 0.1, "train_loss": 2.0 / e, "val_loss": 1.0, "val_accuracy": 40.0 * e} for e in (1, 2)]
DEFINITION = {"name": "mine", "scale": "laptop", "question": "Why?", "kind": "ablation", "recipe": {"epochs": 2}}


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    made = optuna.create_study(study_name="mine-laptop", storage=storage, directions=["maximize", "maximize"])
    add(made, "baseline", 0)
    add(made, "band kernel 3", 0, failure="out of memory")
    made.enqueue_trial({}, user_attrs={"arm": "later", "seed": 1})
    return made


def add(study: optuna.Study, arm: str, seed: int, failure: str | None = None) -> None:
    mode = {"images_per_s": 5000.0, "ratio": 1.1}
    attrs = {
        "arm": arm,
        "seed": seed,
        "params": 17_749,
        "macs": 1_898_592,
        "architecture": preset("inceptionnext_laptop").to_dict(),
        "fingerprint": "abc",
        "environment": {"git_commit": "1234", "torch": "2"},
    }
    scored = {
        "throughput": {"train": mode, "infer": mode},
        "test_accuracy": 81.5,
        "val_accuracy": 80.0,
        "curves": CURVES,
    }
    attrs |= scored if failure is None else {"failure": failure}
    state = TrialState.FAIL if failure else TrialState.COMPLETE
    values = None if failure else [80.0, 5000.0]
    study.add_trial(optuna.trial.create_trial(state=state, values=values, user_attrs=attrs))


def tracker(study: optuna.Study, folder: Path) -> Tracker:
    return Tracker(f"sqlite:///{folder / 'new/mlflow.db'}", study=study, definition=DEFINITION, out=folder)


def test_finished_trials_are_copied_once(study: optuna.Study, tmp_path: Path) -> None:
    first = tracker(study, tmp_path)
    assert first.sync() == 2
    assert first.sync() == 0
    second = tracker(study, tmp_path)  # another process, later
    assert second.sync() == 0
    add(study, "baseline", 1)
    assert second.sync() == 1

    client = MlflowClient(f"sqlite:///{tmp_path / 'new/mlflow.db'}")
    runs = client.search_runs([first.experiment_id])
    assert len(runs) == 4
    children = {
        run.info.run_name: run for run in runs if run.data.tags.get("mlflow.parentRunId") == first.parent_run_id
    }
    assert set(children) == {"baseline · seed 0", "baseline · seed 1", "band kernel 3 · seed 0"}
    listed = client.search_runs([first.experiment_id], ALL_TRIALS)  # what the experiment's note tells to search for
    assert {run.info.run_name for run in listed} == set(children)

    done = children["baseline · seed 0"]
    assert done.info.status == "FINISHED"
    assert done.data.metrics["test_accuracy_percent"] == 81.5
    assert done.data.metrics["train_images_per_s"] == 5000
    assert done.data.metrics["params_M"] == pytest.approx(0.017749)
    assert done.data.params["mixer.band_kernel_size"] == "11"  # the same in all stages, so said once
    assert done.data.tags["git_commit"] == "1234"
    steps = client.get_metric_history(done.info.run_id, "val_accuracy")
    assert [(point.step, point.value) for point in steps] == [(1, 40.0), (2, 80.0)]
    assert [file.path for file in client.list_artifacts(done.info.run_id)] == ["architecture.yaml"]

    failed = children["band kernel 3 · seed 0"]
    assert failed.info.status == "FAILED"
    assert failed.data.tags["failure"] == "out of memory"


def test_two_who_copy_many_trials_copy_each_once(study: optuna.Study, tmp_path: Path) -> None:
    first, second = tracker(study, tmp_path), tracker(study, tmp_path)
    for seed in range(1, FEW + 1):
        add(study, "baseline", seed)
    assert (first.sync(), second.sync()) == (FEW + 2, 0)
    add(study, "baseline", FEW + 1)
    assert (second.sync(), first.sync()) == (1, 0)
    runs = MlflowClient(f"sqlite:///{tmp_path / 'new/mlflow.db'}").search_runs([first.experiment_id], ALL_TRIALS)
    assert sorted(int(run.data.tags["trial"]) for run in runs) == [0, 1, *range(3, FEW + 4)]  # trial 2 is to come


def test_a_copy_that_was_cut_off_is_completed(study: optuna.Study, tmp_path: Path) -> None:
    copy = tracker(study, tmp_path)
    client = copy.client
    tags = {"trial": "0", "mlflow.parentRunId": copy.parent_run_id}
    client.create_run(copy.experiment_id, tags=tags, run_name="cut off")
    assert copy.sync() == 2
    assert len(client.search_runs([copy.experiment_id])) == 3
    assert copy.sync() == 0


def test_the_report_hangs_on_the_parent(study: optuna.Study, tmp_path: Path) -> None:
    copy = tracker(study, tmp_path)
    copy.sync()
    paths = {}
    for name, file in {"report": "report.html", "effects": "effects.png", "result_csv": "result.csv"}.items():
        paths[name] = tmp_path / file
        paths[name].write_text("x")
    copy.log_report(paths)
    stored = {file.path for file in copy.client.list_artifacts(copy.parent_run_id)}
    assert stored == {"definition.yaml", "report.html", "figures", "tables"}
    parent = copy.client.get_run(copy.parent_run_id)
    assert parent.data.tags["trials complete"] == "1"
    assert parent.data.tags["trials waiting"] == "1"
    assert parent.data.params["recipe.epochs"] == "2"
    assert parent.data.tags["mlflow.note.content"].startswith("Why?")
    copy.log_answer("Nothing is known yet.")
    note = copy.client.get_run(copy.parent_run_id).data.tags["mlflow.note.content"]
    assert note.startswith("Why?")
    assert note.endswith("Nothing is known yet.")


def test_a_deleted_experiment_comes_back(study: optuna.Study, tmp_path: Path) -> None:
    copy = tracker(study, tmp_path)
    copy.client.delete_experiment(copy.experiment_id)
    again = tracker(study, tmp_path)
    assert again.experiment_id == copy.experiment_id
    assert again.sync() == 2


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("http://me:secret@127.0.0.1:1", "nobody answers"),
        ("postgresql://me:secret@127.0.0.1:1/x", "nobody answers"),
        ("sqlite:////proc/no/x.db", "cannot be created"),
        ("runs", "not a store that works here; allowed: sqlite:///FILE"),
    ],
)
def test_a_store_that_cannot_be_reached_is_told(study: optuna.Study, tmp_path: Path, uri: str, told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        Tracker(uri, study=study, definition=DEFINITION, out=tmp_path)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
