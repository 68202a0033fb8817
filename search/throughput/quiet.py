"""Quiet: one measurement at a time on a device, and none beside a training, across all processes of a machine."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from search.locks import locked


@contextmanager
def measuring(device: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Have the device alone: waits until trainings and measurements on it are over. `on_wait` is called if so."""
    # The gate keeps new trainings from starting while a measurement waits; else it might wait for ever.
    with _locked(device, "gate", on_wait), _locked(device, "device", on_wait):
        yield


@contextmanager
def turn(device: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Take turns in deciding what is to be measured: whoever waits here may find it measured by then."""
    with _locked(device, "turn", on_wait):
        yield


@contextmanager
def training(device: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Share the device with other trainings: waits until no measurement runs on it or waits for it."""
    with _locked(device, "gate", on_wait, shared=True):
        held = _locked(device, "device", on_wait, shared=True)
        held.__enter__()
    try:
        yield
    finally:
        held.__exit__(None, None, None)


def _locked(
    device: str, what: str, on_wait: Callable[[], None] | None, *, shared: bool = False
) -> AbstractContextManager[None]:
    return locked(f"{_unit(device)}.{what}", shared=shared, on_wait=on_wait)


def _unit(device: str) -> str:
    """Return a name that all processes have for a device, whatever its number is in theirs."""
    if torch.device(device).type == "cuda":
        return f"gpu-{torch.cuda.get_device_properties(device).uuid}"
    return "cpu"
