"""Studies on a real Ray of two nodes, one of which dies."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from at_work import LONG, PATIENCE, ROOT, Begin, Holders, each_once, until
from optuna.trial import TrialState

from search.measurements import PREFIX
from search.run import main
from search.storage import find_study, open_storage
from search.throughput import quiet

cluster_utils = pytest.importorskip("ray.cluster_utils")
STUDY = ("--study", "kernel_ablation", "--seeds", "1", "--engine", "ray")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[cluster_utils.Cluster]:
    """Two nodes with one CPU each."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    yield made
    made.shutdown()


def test_a_study_outlives_a_node(begin: Begin, cluster: cluster_utils.Cluster, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    with quiet.training("cpu"):  # as a training of somebody else's on this machine
        study = begin("search.run", *STUDY, "--address", cluster.address, "--storage", url, *LONG)
        assert study.stderr is not None
        told = ""
        while "waiting: another process measures on the device, or trains on it" not in told:
            line = study.stderr.readline()
            assert line, told
            told += line
        opened = find_study("kernel_ablation", open_storage(url, create=False, write=False))
        assert not any(name.startswith(PREFIX) for name in opened.user_attrs)  # so nothing was measured beside it
    holders = Holders(url)
    until(lambda: len(holders()) == 2, study)
    (lost,) = cluster.worker_nodes
    cluster.remove_node(lost, allow_graceful=False)
    told += study.communicate(timeout=PATIENCE)[1]
    assert study.returncode == 0, told
    assert "its worker died; it is tried again" in told
    assert "Traceback" not in told
    each_once(url, 7)


def test_ctrl_c_gives_back_what_workers_on_ray_hold(
    begin: Begin, cluster: cluster_utils.Cluster, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    study = begin("search.run", *STUDY, "--address", cluster.address, "--storage", url, *LONG)
    holders, met = Holders(url), list[int]()
    until(lambda: met.extend(holders()) or met, study)
    study.send_signal(signal.SIGINT)
    assert study.wait(timeout=PATIENCE) == 130
    trials = find_study("kernel_ablation", open_storage(url, create=False, write=False)).get_trials()
    assert {trial.state for trial in trials} <= {TrialState.WAITING, TrialState.COMPLETE}
    assert len(trials) == 7
    assert not any(psutil.pid_exists(pid) for pid in met)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--gpus-per-trial", "1"], "no node of the Ray cluster has that; they have 0 GPUs and"),
        (["--cpus-per-trial", "4096"], "no node of the Ray cluster has that; they have 0 GPUs and"),
        (["--set", "device=cuda", "--gpus-per-trial", "0"], "the study's device is 'cuda'; change one of them"),
        (["--address", "127.0.0.1:1"], "--address 127.0.0.1:1: nobody answers there"),
        (["--address", "nonsense"], "--address 'nonsense': allowed: HOST:PORT, ray://HOST:PORT, auto, local"),
        (["--address", "127.0.0.1:port"], "allowed: HOST:PORT"),
        (["--engine", "processes", "--gpus-per-trial", "1"], "--gpus-per-trial 1.0: for --engine ray only"),
    ],
)
def test_what_no_cluster_has_is_said_at_once(
    args: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert main([*STUDY, "--out", str(tmp_path / "runs"), *args]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len([line for line in error.splitlines() if line.startswith("error:")]) == 1
    assert not (tmp_path / "runs").exists()
