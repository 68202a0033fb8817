"""Several workers on one study, in processes of their own, killed where it hurts."""

from pathlib import Path

import psutil
import pytest
from at_work import LONG, PATIENCE, Begin, Holders, each_once, until
from servers import postgresql

from search.run import main as plan


@pytest.mark.parametrize("storage_url", ["sqlite", "postgresql"], indirect=True)
def test_a_killed_worker_is_replaced_and_nothing_is_lost(begin: Begin, storage_url: str) -> None:
    args = ("--study", "kernel_ablation", "--seeds", "1", "--workers", "2", "--storage", storage_url)
    study, holders, met = begin("search.run", *args, *LONG), Holders(storage_url), list[int]()
    until(lambda: met.extend(holders()) or met, study)
    psutil.Process(met[0]).kill()
    _, told = study.communicate(timeout=PATIENCE)
    assert study.returncode == 0, told
    assert "ended by signal 9; another takes its place" in told
    assert "failed" not in told  # what is tried again has not
    each_once(storage_url, 7)


def test_a_database_that_goes_away_is_waited_for(begin: Begin, programs: Path) -> None:
    with postgresql(programs) as server:
        url = f"postgresql+psycopg://postgres@127.0.0.1:{server.port}/postgres"
        study = begin("search.run", "--study", "kernel_ablation", "--seeds", "1", "--storage", url)
        assert study.stderr is not None
        told = ""
        for line in study.stderr:
            told += line
            if line.startswith("2/7"):
                server.stop()
            if "the storage cannot be reached; trying for" in line:
                server.start()
                break
        told += study.stderr.read()
        assert study.wait(timeout=PATIENCE) == 0, told
        assert "Traceback" not in told
        each_once(url, 7)


def test_workers_join_what_was_planned_and_the_environment_says_where(
    begin: Begin,
    tmp_path: Path,
    miniature: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    monkeypatch.setenv("STUDY_STORAGE", url)
    changes = [part for change in miniature for part in ("--set", change)]
    assert (
        plan(["--study", "kernel_ablation", "--seeds", "1", "--plan", "--out", str(tmp_path / "runs"), *changes]) == 0
    )
    told = capsys.readouterr().err
    assert "To work on it, from anywhere: python -m search.worker --study kernel_ablation-laptop" in told
    joined = [begin("search.worker", "--study", "kernel_ablation-laptop", small=False) for _ in range(2)]
    for worker in joined:
        _, told = worker.communicate(timeout=PATIENCE)
        assert worker.returncode == 0, told
    each_once(url, 7)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--study", "x"], "--storage URL, or STUDY_STORAGE in the environment, is needed"),
        (["--study", "x", "--storage", "sqlite:///absent.db"], "does not exist"),
        (["--study", "x", "--storage", "nonsense"], "not a database URL"),
        (["--study", "x", "--storage", "postgresql+psycopg://me:secret@127.0.0.1:1/db"], "cannot be opened"),
    ],
)
def test_a_mistake_of_a_worker_is_one_line(
    args: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from search.worker import main

    monkeypatch.delenv("STUDY_STORAGE", raising=False)
    assert main(args) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "secret" not in error
    assert len(error.strip().splitlines()) == 1
