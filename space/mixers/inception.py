"""The Inception mixer: a depthwise convolution split, along the channels, into parallel branches."""

from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import nn

from space.fields import KernelSize, Ratio

Branch = Literal["square", "horizontal", "vertical"]
ORDER: tuple[Branch, ...] = ("square", "horizontal", "vertical")


class Inception(BaseModel):
    """Configuration of InceptionNeXt's token mixer (arXiv 2303.16900, Section 3.3 and Algorithm 1).

    Each branch convolves ``int(channels * branch_ratio)`` channels, rounded down as the authors do; what no
    branch takes is passed on unchanged. With the arrangement ``sequential`` the two bands share one group of
    channels, horizontal first. The paper does not print how its sequential row was built; this reading has
    that row's parameters and MACs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["inception"] = "inception"
    square_kernel_size: KernelSize = 3
    band_kernel_size: KernelSize = 11
    branch_ratio: Ratio = 0.125
    branches: tuple[Branch, ...] = ORDER
    arrangement: Literal["parallel", "sequential"] = "parallel"

    @model_validator(mode="after")
    def _branches_are_a_set(self) -> Self:
        if len(set(self.branches)) != len(self.branches):
            raise ValueError(f"branches: each of {', '.join(ORDER)} at most once")
        if self.arrangement == "sequential" and not {"horizontal", "vertical"} <= set(self.branches):
            raise ValueError("arrangement: sequential needs both bands, horizontal and vertical")
        return self

    @property
    def groups(self) -> int:
        """How many groups of channels are convolved."""
        return len(self.branches) - (self.arrangement == "sequential")

    def check(self, channels: int) -> None:
        """Raise ValueError unless the branches fit into `channels`."""
        width = int(channels * self.branch_ratio)
        if self.branches and width == 0:
            raise ValueError(
                f"branch_ratio {self.branch_ratio:g} of {channels} channels rounds down to 0 channels; "
                f"allowed: at least 1/{channels}"
            )
        if width * self.groups > channels:
            raise ValueError(
                f"branch_ratio {self.branch_ratio:g}: {self.groups} branches of {width} channels exceed "
                f"{channels} channels; allowed: at most 1/{self.groups}"
            )

    def build(self, channels: int) -> nn.Module:
        """Build the mixer: (B, channels, H, W) -> (B, channels, H, W)."""
        return InceptionMixer(self, channels)


class InceptionMixer(nn.Module):
    """Channels are split into identity, square, horizontal and vertical, in this order, as timm's weights are.

    The paper's Algorithm 1 puts the identity last; the authors' code and published weights put it first.
    """

    def __init__(self, config: Inception, channels: int) -> None:
        super().__init__()
        width = int(channels * config.branch_ratio)
        square, band = config.square_kernel_size, config.band_kernel_size
        kernels = {"square": (square, square), "horizontal": (1, band), "vertical": (band, 1)}
        names = {"square": "dwconv_hw", "horizontal": "dwconv_w", "vertical": "dwconv_h"}
        for branch in ORDER:
            if branch in config.branches:
                size = kernels[branch]
                padding = (size[0] // 2, size[1] // 2)
                self.add_module(names[branch], nn.Conv2d(width, width, size, padding=padding, groups=width))
        paths = [[names[branch]] for branch in ORDER if branch in config.branches]
        if config.arrangement == "sequential":
            paths = [*paths[:-2], paths[-2] + paths[-1]]
        self.paths = paths
        self.split_sizes = [channels - width * len(paths), *[width] * len(paths)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(torch.split(x, self.split_sizes, dim=1))
        for index, path in enumerate(self.paths, start=1):
            for name in path:
                parts[index] = self.get_submodule(name)(parts[index])
        return torch.cat(parts, dim=1)
