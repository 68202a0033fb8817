"""The average pooling mixer: PoolFormer's, without a parameter."""

from typing import Literal

from pydantic import BaseModel, ConfigDict
from torch import nn

from space.fields import KernelSize


class AveragePool(BaseModel):
    """Average pooling with stride 1 that leaves padding out of the mean.

    PoolFormer (arXiv 2111.11418) subtracts the input because its residual adds it again; here, as in MetaNeXt,
    the residual spans mixer and MLP, so nothing is subtracted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["average_pool"] = "average_pool"
    pool_size: KernelSize = 3

    def check(self, channels: int) -> None:
        """Any number of channels will do."""

    def build(self, channels: int) -> nn.Module:
        """Build the mixer: (B, channels, H, W) -> (B, channels, H, W)."""
        return nn.AvgPool2d(self.pool_size, stride=1, padding=self.pool_size // 2, count_include_pad=False)
