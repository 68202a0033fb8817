"""The storage's trials as one table."""

import json
from typing import Any, Self

import optuna
import pandas as pd
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from search.defaults import DEFAULT_STORAGE
from search.measurements import newest, of_trial
from search.queue import counted, first_trials, is_lost
from search.storage import find_study, open_storage

PLAIN = (
    *("arm", "factor", "baseline", "seed", "val_accuracy", "test_accuracy", "val_top5", "test_top5", "val_images"),
    *("params", "macs", "activations", "bytes", "resolution", "best_epoch", "fingerprint", "failure"),
)
OF_SEARCH = (
    *("stopped", "stopped_epoch", "stopped_text", "audited", "epochs"),
    *("violation", "expected_accuracy", "expected_ratio"),
)
NESTED = ("curves", "architecture", "operators", "test_correct")
SPEEDS = {"images_per_s": "throughput", "low": "throughput_low", "high": "throughput_high"} | {
    key: key for key in ("ratio", "ratio_low", "ratio_high")
}


def load(study: str, *, storage: str | BaseStorage = DEFAULT_STORAGE) -> pd.DataFrame:
    """Return one row a trial, in the order they were planned; of one whose worker died, the repetition.

    Columns: number, state, arm, factor, baseline, seed; val_accuracy, test_accuracy, val_top5, test_top5
    (percent), val_images (their number); train_* and infer_* of throughput (images/s), throughput_low and _high,
    ratio (to the reference), ratio_low and ratio_high (ends of 95 % intervals), flags (what disturbed the measurement,
    in words; empty for a quiet one), measurement (its key in the storage); params, macs, activations, bytes;
    stopped (why a candidate was given up: infeasible, skipped or pruned), stopped_epoch (after how many), stopped_text,
    audited (why it would have been, had it not been drawn to see what is missed), epochs (how many it was trained),
    violation (by how much it breaks constraints, as shares of the limits), expected_accuracy and expected_ratio (what
    predictors expected of it beforehand);
    best_epoch, seconds_train, seconds_total, resolution, fingerprint, failure, device, hostname, git_commit;
    curves (a list of dicts), architecture (a dict), operators (a dict: where the time of a step goes), and
    test_correct (a dict that ``search.predictions.unpack`` reads: which test images were right),
    ``param.NAME`` for what a search sampled.
    ``attrs["definition"]`` is the study's definition, ``attrs["study"]`` its name in the storage.

    `study` is that name, ``kernel_ablation-laptop``, or without the scale where there is one only.
    Raises InputError for a study or storage that does not exist.
    """
    opened = find_study(
        study, open_storage(storage, create=False, write=False) if isinstance(storage, str) else storage
    )
    measured = newest(opened.user_attrs)
    trials = opened.get_trials(deepcopy=False)
    frame = pd.DataFrame(
        [_row(trial, of_trial(trial, measured)) for trial in counted(trials)], columns=_columns(opened)
    )
    if opened.user_attrs.get("definition", {}).get("kind") == "search":
        first = first_trials(trials)
        frame["arm"] = [
            f"trial {first.get(fingerprint, number)}"
            for fingerprint, number in zip(frame["fingerprint"], frame["number"], strict=True)
        ]
    frame.attrs = {"definition": Definition(opened.user_attrs.get("definition", {})), "study": opened.study_name}
    return frame


class Definition(dict[str, Any]):
    """A study's definition, which nobody changes.

    Whenever a column is looked at, pandas copies a frame's attrs, and all that is in them: of 192 arms that took nine
    tenths of the time in which a report was made.
    """

    def __deepcopy__(self, memo: object) -> Self:
        return self


def _columns(opened: optuna.Study) -> list[str]:
    speeds = [f"{mode}_{name}" for mode in ("train", "infer") for name in SPEEDS.values()]
    sampled = [f"param.{name}" for name in opened.user_attrs.get("definition", {}).get("dimensions", {})]
    rest = ["seconds_train", "seconds_total", "device", "hostname", "git_commit", *NESTED]
    return ["number", "state", *PLAIN, *OF_SEARCH, *speeds, "flags", "measurement", *rest, *sampled]


def _row(trial: FrozenTrial, throughput: dict[str, Any]) -> dict[str, Any]:
    attrs = trial.user_attrs
    row = {"number": trial.number, "state": trial.state.name, **{key: attrs.get(key) for key in PLAIN}}
    if is_lost(trial):
        times = len(trial.system_attrs.get("retry_history", [])) + 1
        row["failure"] = f"{attrs.get('lost', 'its worker died')}, {times} times in a row"
    stopped, expected = attrs.get("stopped") or {}, attrs.get("expected") or [None, None]
    row |= {"stopped": stopped.get("why"), "stopped_epoch": stopped.get("epoch"), "stopped_text": stopped.get("text")}
    row |= {"audited": (attrs.get("audited") or {}).get("why"), "epochs": len(attrs.get("curves") or [])}
    row |= {"violation": sum(max(0.0, one) for one in trial.constraints.values())}
    row |= {"expected_accuracy": expected[0], "expected_ratio": expected[1]}
    row["baseline"] = bool(attrs.get("baseline", False))
    for mode in ("train", "infer"):
        measured = throughput.get(mode) or {}
        row |= {f"{mode}_{name}": measured.get(key) for key, name in SPEEDS.items()}
    row["flags"] = "; ".join(throughput.get("flags") or [])
    row["measurement"] = (attrs.get("throughput") or {}).get("key")
    seconds, where = attrs.get("seconds") or {}, attrs.get("environment") or {}
    row |= {f"seconds_{part}": seconds.get(part) for part in ("train", "total")}
    row |= {key: where.get(key) for key in ("device", "hostname", "git_commit")}
    row |= {"curves": attrs.get("curves") or [], "architecture": attrs.get("architecture") or {}}
    row["operators"], row["test_correct"] = throughput.get("operators") or {}, attrs.get("test_correct") or {}
    return row | {f"param.{name}": value for name, value in trial.params.items()}


def flat(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the table for a CSV file: nested values as JSON."""
    nested = {name: frame[name].map(json.dumps) for name in NESTED}
    return frame.assign(**nested)
