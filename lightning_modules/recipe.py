"""Recipe: how a network is trained, as one frozen value."""

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

import timm.optim
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lightning_modules.precision import MemoryFormat, Precision
from space.errors import InputError, explain, nearest


class Crop(BaseModel):
    """Random resized crop: ranges of the area kept and of the aspect ratio."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (0.75, 1.3333)


class Recipe(BaseModel):
    """Optimiser, schedule, augmentation and arithmetic. Drop path is the architecture's.

    `batch_size` is that of one optimiser step, taken in `accumulate` micro-batches. The cosine schedule moves
    with every step. Data that are read from files get crop, flip, colour jitter, auto-augmentation and erasing
    from timm's loader; data in memory get flip, `shift` (pixels, zero-padded) and erasing on whole batches.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(8, ge=1)
    batch_size: int = Field(64, ge=1)
    accumulate: int = Field(1, ge=1)
    optimizer: str = "adamw"
    lr: float = Field(4e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    schedule: Literal["cosine", "none"] = "cosine"
    warmup_epochs: int = Field(1, ge=0)
    warmup_lr: float = Field(1e-6, ge=0)
    min_lr: float = Field(1e-5, ge=0)
    cooldown_epochs: int = Field(0, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    mixup: float = Field(0.0, ge=0)
    cutmix: float = Field(0.0, ge=0)
    mixup_prob: float = Field(1.0, ge=0, le=1)
    mixup_switch_prob: float = Field(0.5, ge=0, le=1)
    random_resized_crop: Crop | None = None
    hflip: float = Field(0.0, ge=0, le=1)
    shift: int = Field(0, ge=0)
    color_jitter: float = Field(0.0, ge=0)
    auto_augment: str | None = None
    random_erasing: float = Field(0.0, ge=0, le=1)
    eval_crop: float = Field(0.875, gt=0, le=1)
    ema_decay: float | None = Field(None, gt=0, lt=1)
    precision: Precision = "fp32"
    memory_format: MemoryFormat = "channels_last"
    compile: bool = False
    workers: int = Field(0, ge=0)

    @field_validator("optimizer")
    @classmethod
    def _known(cls, name: str) -> str:
        known = timm.optim.list_optimizers()
        if name not in known:
            raise ValueError(f"unknown optimizer{nearest(name, known)}; allowed: those of timm.optim")
        return name

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} is not divided by accumulate {self.accumulate}")
        if self.schedule == "cosine" and self.warmup_epochs >= self.epochs and self.epochs > 1:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} leaves nothing of {self.epochs} epochs")
        return self

    @property
    def total_epochs(self) -> int:
        """Epochs trained, the cooldown included."""
        return self.epochs + self.cooldown_epochs


@lru_cache(maxsize=1)
def _recipes() -> dict[str, dict[str, Any]]:
    loaded: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("recipes.yaml").read_text())
    return loaded


def recipe(name: str) -> Recipe:
    """Return a recipe of recipes.yaml. Raises InputError, naming the nearest, for a name that is not there."""
    if name not in _recipes():
        raise InputError(f"unknown recipe {name!r}{nearest(name, _recipes())}; allowed: {', '.join(_recipes())}")
    try:
        return Recipe.model_validate(_recipes()[name])
    except ValidationError as error:
        raise explain(error, f"recipe {name}") from error
