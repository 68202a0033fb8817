"""Where a trial ran: what a reader needs to repeat it."""

import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

PACKAGES = ("torch", "timm", "optuna", "pytorch-lightning", "mlflow")


@lru_cache(maxsize=1)
def environment(device: str) -> dict[str, Any]:
    """Return versions, commit, device and host, as plain data."""
    return {
        "git_commit": _commit(),
        "python": platform.python_version(),
        **{name.removeprefix("pytorch-"): _version(name) for name in PACKAGES},
        "device": device_name(device),
        "hostname": platform.node(),
        "threads": torch.get_num_threads(),
    }


def device_name(device: str) -> str:
    """Return the product name of a device such as ``cpu`` or ``cuda:0``."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{name}, {psutil.cpu_count()} CPUs"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    root = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}, with changes" if changed else head
