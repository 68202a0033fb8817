"""Protocol: under which conditions throughput is measured."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lightning_modules.precision import MemoryFormat, Precision

Mode = Literal["train", "infer"]


class Protocol(BaseModel):
    """Batch, arithmetic and timing of a measurement.

    In each of `rounds` rounds every network is timed once, in random order, over a block of as many steps as
    fill `block_seconds`. `modes` always has ``train``: a study's second score is training throughput.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: int = Field(64, ge=1)
    rounds: int = Field(7, ge=1, le=10_000)
    block_seconds: float = Field(0.1, gt=0, le=600)
    warmup_steps: int = Field(3, ge=1)
    precision: Precision = "fp32"
    memory_format: MemoryFormat = "channels_last"
    compile: bool = False
    modes: tuple[Literal["train"]] | tuple[Literal["train"], Literal["infer"]] = ("train", "infer")
