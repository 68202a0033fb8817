"""Architecture: one network as a frozen value."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from space import paths
from space.errors import InputError, explain, within
from space.fields import PositiveInt, Real
from space.mixers import Inception, Mixer
from space.reading import read_yaml

PER_STAGE = ("widths", "mlp_ratios", "mixers")


class Architecture(BaseModel):
    """A MetaNeXt network (arXiv 2303.16900, Section 3.1) as data: compares by content, validates itself.

    `depths`, `widths`, `mlp_ratios` and `mixers` have one entry a stage; a single value of `mlp_ratios` or
    `mixers` holds for all. The first stage follows the stem directly, each further one a 2x2 convolution of
    stride 2, so one stage is an isotropic network. `mlp` says whether the MLP is written as 1x1 convolutions
    (InceptionNeXt) or as linear layers on channels-last data (ConvNeXt); both compute the same function.
    `head` is global average pooling followed by InceptionNeXt's two-layer ``mlp`` or by ConvNeXt's
    LayerNorm and one ``linear`` layer.

    Raises pydantic.ValidationError for a value that cannot be built; `Architecture.parse` says it in one line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    in_channels: PositiveInt = 3
    num_classes: PositiveInt = 1000
    patch_size: Annotated[PositiveInt, Field(le=1024)] = 4
    depths: tuple[Annotated[PositiveInt, Field(le=1000)], ...] = Field((3, 3, 9, 3), max_length=12)
    widths: tuple[Annotated[PositiveInt, Field(le=65_536)], ...] = (96, 192, 384, 768)
    mlp_ratios: tuple[Annotated[Real, Field(gt=0, le=64)], ...] = (4.0, 4.0, 4.0, 3.0)
    mixers: tuple[Mixer, ...] = (Inception(),) * 4
    norm: Literal["batch_norm", "layer_norm"] = "batch_norm"
    activation: Literal["gelu", "relu", "silu", "hard_swish"] = "gelu"
    mlp: Literal["conv", "linear"] = "conv"
    head: Literal["mlp", "linear"] = "mlp"
    head_dropout: Real = Field(0.0, ge=0, lt=1)
    drop_path: Real = Field(0.0, ge=0, lt=1)
    layer_scale: Annotated[Real, Field(gt=0)] | None = 1e-6

    @model_validator(mode="before")
    @classmethod
    def _one_value_for_all_stages(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("depths"), list | tuple):
            data = dict(data)
            for field in ("mlp_ratios", "mixers"):
                if field in data and not isinstance(data[field], list | tuple):
                    data[field] = [data[field]] * len(data["depths"])
        return data

    @model_validator(mode="after")
    def _stages_agree(self) -> Self:
        if not self.depths:
            raise ValueError("depths: at least one stage is needed")
        for field in PER_STAGE:
            if len(getattr(self, field)) != len(self.depths):
                raise ValueError(
                    f"{field} has {len(getattr(self, field))} entries and depths has {len(self.depths)}; "
                    "both need one entry a stage"
                )
        for stage, (mixer, width, ratio) in enumerate(zip(self.mixers, self.widths, self.mlp_ratios, strict=True)):
            try:
                mixer.check(width)
            except ValueError as error:
                raise ValueError(f"mixers.{stage}: {error}") from error
            if int(ratio * width) < 1:
                raise ValueError(f"mlp_ratios.{stage}: {ratio:g} of {width} channels rounds down to 0")
        return self

    @classmethod
    def parse(cls, data: Mapping[str, Any], where: str = "architecture") -> Self:
        """Validate plain data. Raises InputError, one line that names `where`, field, value and what is allowed."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise explain(error, where) from error

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a YAML (or JSON) file. Raises InputError for a file that is missing or does not hold one."""
        data = read_yaml(Path(path))
        return cls.parse(data, str(path))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `parse` reads back to an equal value."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return YAML that `load` reads back to an equal value."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None)

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that depend on the content alone, the same in every process and release."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def stride(self) -> int:
        """Pixels between neighbouring positions of the last stage."""
        return self.patch_size << (len(self.depths) - 1)

    def replace(self, changes: Mapping[str, Any], where: str = "architecture") -> Self:
        """Return a copy with each dotted path set, such as ``{"mixers.*.band_kernel_size": 7}``.

        Raises InputError for a path that does not exist or a value that cannot be built.
        """
        with within(where):
            data = paths.replaced(self.to_dict(), changes)
        return self.parse(data, where)

    def check_resolution(self, resolution: int) -> None:
        """Raise InputError unless images of `resolution` pixels divide into the last stage's positions."""
        if resolution < 1 or resolution % self.stride:
            raise InputError(
                f"resolution {resolution} is not divided by the network's stride {self.stride} "
                f"(patch_size {self.patch_size}, {len(self.depths)} stages); "
                f"allowed: multiples of {self.stride}"
            )
