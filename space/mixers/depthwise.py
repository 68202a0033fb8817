"""The depthwise mixer: ConvNeXt's, on all or on a share of the channels."""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from space.fields import KernelSize, Ratio


class Depthwise(BaseModel):
    """A depthwise convolution on ``int(channels * conv_ratio)`` channels; the rest is passed on unchanged.

    With ``conv_ratio`` 1 it is ConvNeXt's mixer; below 1 it is that of the InceptionNeXt paper's Table 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["depthwise"] = "depthwise"
    kernel_size: KernelSize = 7
    conv_ratio: Ratio = 1.0

    def check(self, channels: int) -> None:
        """Raise ValueError unless at least one of `channels` is convolved."""
        if int(channels * self.conv_ratio) == 0:
            raise ValueError(
                f"conv_ratio {self.conv_ratio:g} of {channels} channels rounds down to 0 channels; "
                f"allowed: at least 1/{channels}"
            )

    def build(self, channels: int) -> nn.Module:
        """Build the mixer: (B, channels, H, W) -> (B, channels, H, W)."""
        return DepthwiseMixer(self, channels)


class DepthwiseMixer(nn.Module):
    """The convolved channels come first."""

    def __init__(self, config: Depthwise, channels: int) -> None:
        super().__init__()
        width = int(channels * config.conv_ratio)
        self.conv = nn.Conv2d(width, width, config.kernel_size, padding=config.kernel_size // 2, groups=width)
        self.split_sizes = [width, channels - width]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.split_sizes[1] == 0:
            out: torch.Tensor = self.conv(x)
            return out
        convolved, kept = torch.split(x, self.split_sizes, dim=1)
        return torch.cat((self.conv(convolved), kept), dim=1)
