"""The recipes for clusters, as far as they can be tried without one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import psutil
import pytest
import yaml
from optuna.trial import TrialState

from search.analysis import load
from search.plan import open_study
from search.storage import find_study, open_storage
from search.study import load_study
from search.worker import _parser

ROOT = Path(__file__).parents[1]
SLURM, KUBERNETES = ROOT / "docs/examples/slurm.sh", ROOT / "docs/examples/kubernetes.yaml"
PATIENCE = 240.0


@pytest.fixture
def job() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(KUBERNETES.read_text())
    return found


def validate(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_the_job_is_one_that_kubernetes_knows(job: dict[str, Any]) -> None:
    validate(job)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "paralelism"), 4),
        (("spec", "parallelism"), "four"),
        (("spec", "podFailurePolicy", "rules", 1, "onExitCodes", "values"), "130"),
        (("spec", "template", "spec", "containers", 0, "env", 0, "valueFrom", "secretRef"), {"name": "x"}),
    ],
)
def test_a_job_that_kubernetes_does_not_know_is_rejected(
    job: dict[str, Any], path: tuple[Any, ...], value: Any
) -> None:
    part: Any = job
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(job)


def test_the_job_holds_together(job: dict[str, Any]) -> None:
    """What a schema does not say."""
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["command"] == ["python", "-m", "search.worker"]
    args = _parser().parse_args(container["args"])
    limits = container["resources"]["limits"]
    assert args.threads == int(limits["cpu"])
    assert limits["nvidia.com/gpu"] == 1
    assert args.out == next(mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "work")
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    # The URL comes from the secret, and is not on the command line.
    [storage] = [one for one in container["env"] if one["name"] == "STUDY_STORAGE"]
    assert storage.keys() == {"name", "valueFrom"}
    assert "--storage" not in container["args"]
    # Who gave the trial back comes back; pod failure policies are for pods that are not restarted.
    policy = job["spec"]["podFailurePolicy"]["rules"]
    [codes] = [rule["onExitCodes"] for rule in policy if "onExitCodes" in rule]
    assert codes["containerName"] == container["name"]
    assert {130, 143} <= set(codes["values"])
    assert pod["restartPolicy"] == "Never"


@pytest.fixture
def slurm(tmp_path: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """Run the script as SLURM's batch shell does; `srun` is a line of shell, scontrol's arguments are kept."""
    programs = tmp_path / "programs"
    programs.mkdir()

    def run(url: str, srun: str = 'exec "$@"') -> subprocess.Popen[bytes]:
        for name, line in {"srun": srun, "scontrol": f'echo "$@" >> {tmp_path / "scontrol"}'}.items():
            (programs / name).write_text(f"#!/bin/sh\n{line}\n")
            (programs / name).chmod(0o755)
        environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHON": sys.executable,
            "STUDY": "norm_ablation",
            "STUDY_DEVICE": "cpu",
            "STUDY_STORAGE": url,
            "SLURM_JOB_ID": "4711",
            "SLURM_CPUS_PER_TASK": "1",
        }
        return subprocess.Popen(["bash", SLURM], cwd=tmp_path, env=environment)

    return run


def test_the_script_is_bash() -> None:
    subprocess.run(["bash", "-n", SLURM], check=True)


def test_the_directives_are_seen_by_sbatch() -> None:
    """It stops looking at the first command."""
    lines = SLURM.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    directives = [line.removeprefix("#SBATCH ") for line in lines[:first] if line.startswith("#SBATCH ")]
    assert not [line for line in lines[first:] if line.startswith("#SBATCH")]
    assert {"--array=0-3", "--gres=gpu:1", "--signal=TERM@120", "--requeue"} <= set(directives)


def test_the_scripts_command_is_the_workers(slurm: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    assert slurm("sqlite:///secret.db", f'printf "%s\\n" "$@" > {tmp_path / "given"}').wait(timeout=PATIENCE) == 0
    python, *module, given = (tmp_path / "given").read_text().split("\n", 3)
    assert [python, *module] == [sys.executable, "-m", "search.worker"]
    args = _parser().parse_args(given.split())
    assert (args.study, args.device, args.threads) == ("norm_ablation", "cpu", 1)
    assert "secret" not in given


@pytest.mark.parametrize(("code", "comes_back"), [(0, False), (1, False), (2, False), (130, True), (143, True)])
def test_a_task_comes_back_where_its_worker_was_told_to_stop(
    slurm: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, code: int, comes_back: bool
) -> None:
    assert slurm("sqlite:///x.db", f"exit {code}").wait(timeout=PATIENCE) == (0 if comes_back else code)
    assert (tmp_path / "scontrol").is_file() == comes_back
    if comes_back:
        assert (tmp_path / "scontrol").read_text() == "requeue 4711\n"


def test_a_task_that_runs_out_of_time_comes_back_and_the_study_is_completed(
    slurm: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, miniature: list[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    long = [*miniature, "seeds=1", "recipe.epochs=20"]  # so that the worker is met at work
    open_study(load_study("norm_ablation", "laptop", long), open_storage(url))
    opened = find_study("norm_ablation", open_storage(url, write=False))

    first = slurm(url)
    end = time.monotonic() + PATIENCE
    while not opened.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        assert first.poll() is None, "it ended first"
        assert time.monotonic() < end
        time.sleep(0.02)
    [worker] = psutil.Process(first.pid).children()
    worker.send_signal(signal.SIGTERM)  # to the step alone, as without B:
    assert first.wait(timeout=PATIENCE) == 0
    assert (tmp_path / "scontrol").read_text() == "requeue 4711\n"
    assert not opened.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    assert opened.get_trials(deepcopy=False, states=(TrialState.WAITING,))

    assert slurm(url).wait(timeout=PATIENCE) == 0
    frame = load("norm_ablation", storage=url)
    assert frame["state"].tolist() == ["COMPLETE"] * 2
    assert len(opened.get_trials()) == 2  # given back, not tried again
