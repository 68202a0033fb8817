"""Studies that move between real storages of either kind, whole."""

import gzip
import json
from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState
from trial_records import make, record

from search.analysis import load
from search.run import main
from search.storage import open_storage
from search.transfer import export_study, import_study
from space.errors import InputError


def written(path: Path, kind: str = "ablation") -> tuple[optuna.storages.RDBStorage, Path]:
    """Return a storage with a study, and the file it was exported to."""
    rows = [
        (record("base", 0, 90.0, 1000.0, params_sampled={"a": 2}), TrialState.COMPLETE),
        (record("small", 0, 80.0, 1500.0, failure="out of memory", params_sampled={"a": 1}), TrialState.FAIL),
        (record("small", 1, 81.0, 1500.0, worker="me:1:2", params_sampled={"a": 1}), TrialState.RUNNING),
    ]
    _, storage = make(path, kind, rows, dimensions={"a": {}})
    file = path / "study.json.gz"
    assert export_study("mine", storage, file) == 3
    return storage, file


@pytest.mark.parametrize("storage_url", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize("kind", ["ablation", "search"])
def test_a_study_moves_whole(tmp_path: Path, storage_url: str, kind: str) -> None:
    (tmp_path / "from").mkdir()
    storage, file = written(tmp_path / "from", kind)
    there = open_storage(storage_url)
    assert import_study(file, there) == "mine-laptop"
    before, after = load("mine", storage=storage), load("mine", storage=there)
    assert after["state"].tolist() == ["COMPLETE", "FAIL", "WAITING"]  # whoever ran it does not run it there
    pd.testing.assert_frame_equal(after.drop(columns="state"), before.drop(columns="state"))
    assert after.attrs == before.attrs
    old, new = (optuna.load_study(study_name="mine-laptop", storage=one) for one in (storage, there))
    assert new.directions == old.directions
    for one, other in zip(old.get_trials()[:2], new.get_trials()[:2], strict=True):
        assert (one.params, one.values, one.datetime_complete) == (other.params, other.values, other.datetime_complete)
    assert "worker" not in new.get_trials()[2].user_attrs
    with pytest.raises(InputError, match="has a study 'mine-laptop' already"):
        import_study(file, there)


def test_what_is_damaged_is_not_imported(tmp_path: Path) -> None:
    _, file = written(tmp_path)
    there = open_storage(f"sqlite:///{tmp_path / 'there.db'}")
    whole = file.read_bytes()
    packed = json.loads(gzip.decompress(whole))
    packed["body"]["trials"][0]["values"][0] = 99.0
    cases = {
        "checksum does not match": gzip.compress(json.dumps(packed).encode()),
        "has version 9": gzip.compress(json.dumps(packed | {"version": 9}).encode()),
        "not a study that was exported": whole[: len(whole) // 2],
        "not a study that": b"",
    }
    for told, content in cases.items():
        file.write_bytes(content)
        with pytest.raises(InputError, match=told):
            import_study(file, there)
    assert optuna.get_all_study_names(there) == []


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path)
    file, there = str(tmp_path / "moved.gz"), f"sqlite:///{tmp_path / 'there.db'}"
    assert main(["--study", "mine", "--storage", f"sqlite:///{tmp_path / 'studies.db'}", "--export", file]) == 0
    assert main(["--import", file, "--storage", there]) == 0
    assert "mine-laptop is in sqlite" in capsys.readouterr().err
    assert len(load("mine", storage=there)) == 3
    assert main(["--export", file]) == 2
    assert main(["--study", "other", "--storage", there, "--export", file]) == 2
    assert main(["--study", "mine", "--storage", there, "--export", "/proc/no/x.gz"]) == 2
