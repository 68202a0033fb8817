"""Where and in which arithmetic a network runs; training and measurement share it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from space.errors import InputError

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
MemoryFormat = Literal["channels_last", "contiguous"]

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
FORMATS: dict[MemoryFormat, torch.memory_format] = {
    "channels_last": torch.channels_last,
    "contiguous": torch.contiguous_format,
}


def resolve_device(device: str) -> str:
    """Return a torch device's name; ``auto`` is the first GPU, or the CPU. Raises InputError for one that is absent."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of devices that there were once
            if torch.empty(0, device=device).is_meta:
                raise RuntimeError("computes nothing")
    except (RuntimeError, AssertionError, ImportError) as error:
        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        raise InputError(
            f"device {device!r} is not on this machine; allowed: {', '.join(['auto', 'cpu', *gpus])}"
        ) from error
    return device


@contextmanager
def arithmetic(precision: Precision) -> Iterator[None]:
    """Switch TF32 on for ``tf32`` and off for the rest, and back again.

    By default PyTorch uses TF32 in convolutions but not in matrix products, so "fp32" would mean either.
    """
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])


def autocast(precision: Precision, device: str) -> torch.autocast:
    """Return the autocast context of a precision, which does nothing for fp32 and tf32."""
    kind = torch.device(device).type
    return torch.autocast(kind, AUTOCAST.get(precision, torch.bfloat16), enabled=precision in AUTOCAST)
