"""Recipe: how a network is trained, as one frozen value."""

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import timm.optim
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from timm.data import create_transform

from lightning_modules.precision import MemoryFormat, Precision
from space.errors import InputError, explain, nearest
from space.fields import Flag, PositiveInt, Real, Whole

Positive = Annotated[Real, Field(gt=0)]
Share = Annotated[Real, Field(gt=0, le=1)]
Probability = Annotated[Real, Field(ge=0, le=1)]
Epochs = Annotated[Whole, Field(ge=0, le=100_000)]


class Crop(BaseModel):
    """Random resized crop: ranges of the area kept and of the aspect ratio."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scale: tuple[Share, Share] = (0.08, 1.0)
    ratio: tuple[Positive, Positive] = (0.75, 1.3333)

    @field_validator("scale", "ratio")
    @classmethod
    def _in_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("the least comes first, then the most")
        return value


class Recipe(BaseModel):
    """Optimiser, schedule, augmentation and arithmetic. Drop path is the architecture's.

    `batch_size` is that of one optimiser step, taken in `accumulate` micro-batches. The cosine schedule moves
    with every step. Data that are read from files get crop, flip, colour jitter, auto-augmentation and erasing
    from timm's loader; data in memory get flip, `shift` (pixels, zero-padded) and erasing on whole batches.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: Annotated[Epochs, Field(ge=1)] = 8
    batch_size: PositiveInt = 64
    accumulate: PositiveInt = 1
    optimizer: str = "adamw"
    lr: Positive = 4e-3
    weight_decay: Real = Field(0.05, ge=0)
    schedule: Literal["cosine", "none"] = "cosine"
    warmup_epochs: Epochs = 1
    warmup_lr: Real = Field(1e-6, ge=0)
    min_lr: Real = Field(1e-5, ge=0)
    cooldown_epochs: Epochs = 0
    label_smoothing: Real = Field(0.0, ge=0, lt=1)
    mixup: Real = Field(0.0, ge=0)
    cutmix: Real = Field(0.0, ge=0)
    mixup_prob: Probability = 1.0
    mixup_switch_prob: Probability = 0.5
    random_resized_crop: Crop | None = None
    hflip: Probability = 0.0
    shift: Whole = Field(0, ge=0, le=2048)
    color_jitter: Real = Field(0.0, ge=0)
    auto_augment: str | None = None
    random_erasing: Probability = 0.0
    eval_crop: Share = 0.875
    ema_decay: Annotated[Real, Field(gt=0, lt=1)] | None = None
    precision: Precision = "fp32"
    memory_format: MemoryFormat = "channels_last"
    compile: Flag = False
    workers: Whole = Field(0, ge=0, le=1024)

    @field_validator("optimizer")
    @classmethod
    def _known(cls, name: str) -> str:
        known = timm.optim.list_optimizers()
        if name not in known:
            raise ValueError(f"unknown optimizer{nearest(name, known)}; allowed: those of timm.optim")
        return name

    @field_validator("auto_augment")
    @classmethod
    def _is_timms(cls, name: str | None) -> str | None:
        try:
            create_transform(32, is_training=True, auto_augment=name)
        except (AssertionError, LookupError, TypeError, ValueError) as error:
            raise ValueError("no policy of timm's; allowed: such as rand-m9-mstd0.5-inc1 or original") from error
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
