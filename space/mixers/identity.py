"""The identity mixer: no mixing between positions at all."""

from typing import Literal

from pydantic import BaseModel, ConfigDict
from torch import nn


class Identity(BaseModel):
    """Passes its input on: what remains is the stem's, the downsampling's and the MLP's doing.

    After the identity mapping of MetaFormer Baselines (arXiv 2210.13452).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["identity"] = "identity"

    def check(self, channels: int) -> None:
        """Any number of channels will do."""

    def build(self, channels: int) -> nn.Module:
        """Build the mixer: (B, channels, H, W) -> (B, channels, H, W)."""
        return nn.Identity()
