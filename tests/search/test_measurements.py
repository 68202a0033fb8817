from pathlib import Path

import optuna
import pytest

from search.analysis import load
from search.measurements import Measurements, identity, key, newest, short
from search.storage import open_storage
from search.throughput import Candidate, Protocol
from space import preset

BASE = Candidate(preset("inceptionnext_laptop"), 24)
SMALL = Candidate(BASE.architecture.replace({"depths.0": 2}), 24)  # type: ignore[union-attr]


def test_two_agree_only_where_all_that_matters_does() -> None:
    protocol = Protocol()
    same = key(identity(SMALL, BASE, protocol, "cpu"))
    assert key(identity(SMALL, BASE, Protocol(), "auto")) == same
    others = [
        identity(BASE, BASE, protocol, "cpu"),
        identity(SMALL, SMALL, protocol, "cpu"),
        identity(Candidate(SMALL.architecture, 32), BASE, protocol, "cpu"),
        identity(SMALL, BASE, Protocol(precision="bf16"), "cpu"),
        identity(SMALL, BASE, Protocol(batch_size=1), "cpu"),
        identity(SMALL, BASE, Protocol(threads=7), "cpu"),
    ]
    assert len({same, *map(key, others)}) == 7


@pytest.mark.parametrize("field", ["device", "cpus", "threads", "torch", "driver"])
def test_another_machine_is_another_identity(field: str) -> None:
    here = identity(SMALL, BASE, Protocol(), "cpu")
    assert field in here
    assert key(here | {field: "another"}) != key(here)


def test_the_newest_counts_and_nothing_is_lost(storage_url: str, tmp_path: Path) -> None:
    storage = open_storage(storage_url)
    study = optuna.create_study(study_name="mine-laptop", storage=storage)
    study.set_user_attr("definition", {"kind": "table", "baseline": "base"})
    found = identity(SMALL, BASE, Protocol(), "cpu")
    mode = {"images_per_s": 100.0, "low": 99.0, "high": 101.0, "ratio": 0.5, "ratio_low": 0.4, "ratio_high": 0.6}
    first = {"train": mode | {"rounds": [99.0, 101.0]}, "flags": ["train: other load"]}
    kept = Measurements(study)
    assert kept.get(key(found)) is None
    kept.put(found, first)
    attrs = {"arm": "small", "seed": 0, "throughput": short(first, key(found))}
    assert "rounds" not in attrs["throughput"]["train"]  # type: ignore[index]
    study.add_trial(optuna.trial.create_trial(value=1.0, user_attrs=attrs))
    before = load("mine", storage=storage_url).iloc[0]
    assert (before["train_ratio"], before["flags"]) == (0.5, "train: other load")

    kept.put(found, {"train": mode | {"ratio": 0.55}, "flags": []})
    after = load("mine", storage=storage_url).iloc[0]
    assert (after["train_ratio"], after["flags"]) == (0.55, "")
    reopened = optuna.load_study(study_name="mine-laptop", storage=open_storage(storage_url))
    assert newest(reopened.user_attrs)[key(found)]["train"]["ratio"] == 0.55
    entry = reopened.user_attrs[f"measurement:{key(found)}"]
    assert entry["identity"] == found
    assert entry["records"][0] == first
