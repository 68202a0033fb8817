"""Trials as a worker would have left them, in a real storage."""

from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

Made = tuple[str, optuna.storages.RDBStorage]


def measured(speed: float) -> dict[str, Any]:
    mode = {"images_per_s": speed, "low": 0.95 * speed, "high": 1.05 * speed, "rounds": [speed]}
    ratio = {"ratio": speed / 1000, "ratio_low": 0.95 * speed / 1000, "ratio_high": 1.05 * speed / 1000}
    return {"train": mode | ratio, "infer": mode | ratio}


def record(arm: str, seed: int, accuracy: float | None, speed: float, **rest: Any) -> dict[str, Any]:
    curves = [{"epoch": e, "lr": 0.1, "train_loss": 1.0, "val_loss": 1.0, "val_accuracy": 50.0 + e} for e in (1, 2)]
    return {
        "arm": arm,
        "factor": "size",
        "seed": seed,
        "baseline": arm == "base",
        "fingerprint": arm,
        "architecture": {"depths": [1]},
        "resolution": 24,
        "params": 17_749,
        "macs": 1_898_592,
        "throughput": measured(speed),
        "val_accuracy": accuracy,
        "test_accuracy": accuracy,
        "curves": curves if accuracy is not None else [],
        "seconds": {"train": 5.0, "total": 6.0},
        "environment": {"device": "a CPU", "git_commit": "abc"},
    } | rest


def make(path: Path, kind: str, rows: list[tuple[dict[str, Any], TrialState]], **definition: Any) -> Made:
    storage = optuna.storages.RDBStorage(f"sqlite:///{path / 'studies.db'}")
    directions = ["maximize"] if kind == "table" else ["maximize", "maximize"]
    study = optuna.create_study(study_name="mine-laptop", storage=storage, directions=directions)
    fields = {"name": "mine", "scale": "laptop", "question": "Is <script>alert(1)</script> safe?", "kind": kind}
    study.set_user_attr("definition", fields | {"baseline": "base", "throughput": {"budget": 9}} | definition)
    for attrs, state in rows:
        params = attrs.pop("params_sampled", {})
        choices = {name: optuna.distributions.CategoricalDistribution([1, 2, 3, 4]) for name in params}
        speed = attrs["throughput"]["train"]["images_per_s"]
        values = [speed] if kind == "table" else [attrs["val_accuracy"], speed]
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                values=values if state is TrialState.COMPLETE else None,
                user_attrs=attrs,
                params=params,
                distributions=choices,
            )
        )
    return "mine", storage
