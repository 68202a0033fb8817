"""Protocol: under which conditions throughput is measured."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lightning_modules.precision import MemoryFormat, Precision, arithmetic
from space.errors import InputError
from space.fields import Flag, PositiveInt, Real, Whole

MOST_IMAGES = 10_000_000_000  # a step; what fits is found by trying
Mode = Literal["train", "infer", "latency"]


class Protocol(BaseModel):
    """Batch, arithmetic and timing of a measurement.

    A measurement goes in rounds; in each, every network is timed once, in random order, over a block of as many
    steps as fill `block_seconds`. It ends when the 95 % intervals of all ratios to the reference are within
    `target` of their centres (0.01 is 1 %) and `min_rounds` are done, after `budget` seconds for all networks and
    modes, or after `max_rounds`, whichever comes first; three rounds, which an interval needs, are timed in any
    case. Building and warming up come on top of the budget. What a mode leaves of its share the next ones have.

    Modes are ``train`` (forward, backward, SGD), ``infer``, and ``latency`` (inference of one image). The memory
    format ``best`` tries both and measures each network in its faster one, as the paper reports it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: Annotated[Whole, Field(ge=1, le=MOST_IMAGES)] = 64
    precision: Precision = "fp32"
    memory_format: MemoryFormat | Literal["best"] = "channels_last"
    compile: Flag = False
    cuda_graphs: Flag = False
    threads: Annotated[Whole, Field(ge=1, le=4096)] | None = None
    modes: tuple[Mode, ...] = ("train", "infer")
    target: Real = Field(0.01, gt=0, lt=1)
    budget: Real = Field(60.0, gt=0)
    min_rounds: PositiveInt = 12
    max_rounds: PositiveInt = 2000
    block_seconds: Real = Field(0.1, gt=0, le=600)
    warmup_seconds: Real = Field(5.0, ge=0, le=3600)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.modes or len(set(self.modes)) != len(self.modes):
            raise ValueError("modes: at least one of train, infer, latency, each at most once")
        if self.min_rounds > self.max_rounds:
            raise ValueError(f"min_rounds: {self.min_rounds} is more than max_rounds, {self.max_rounds}")
        return self

    def images(self, mode: Mode) -> int:
        """Return how many images a step takes."""
        return 1 if mode == "latency" else self.batch_size

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Set torch's threads, arithmetic and random numbers for a measurement, and back afterwards."""
        threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True
        torch.set_num_threads(self.threads or threads)
        try:
            with arithmetic(self.precision), torch.random.fork_rng(enabled=True):
                torch.manual_seed(0)
                yield
        finally:
            torch.backends.cudnn.benchmark = benchmark
            torch.set_num_threads(threads)

    def check_device(self, device: str) -> None:
        """Raise InputError where the device lacks what the protocol asks for."""
        cuda = torch.device(device).type == "cuda"
        if self.precision == "tf32" and (not cuda or torch.cuda.get_device_capability(device) < (8, 0)):
            raise InputError(
                f"precision tf32 needs an NVIDIA GPU from Ampere on, not {device}; allowed here: fp32, bf16"
            )
        if self.precision == "bf16" and cuda and not torch.cuda.is_bf16_supported():
            raise InputError(f"precision bf16 is not supported by {device}; allowed here: fp32, fp16")
        if self.cuda_graphs and not cuda:
            raise InputError(f"cuda_graphs needs a GPU, not {device}")
        if self.cuda_graphs and self.precision == "fp16" and "train" in self.modes:
            raise InputError("cuda_graphs cannot capture fp16 training, whose loss scale is decided on the host")
