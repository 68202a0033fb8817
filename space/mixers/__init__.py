"""Token mixers, one a file. To add one: write its file, then name its configuration in `Mixer`.

A configuration is a frozen value with a `kind`, `check(channels)`, which raises ValueError where it does not
fit, and `build(channels)`, which returns a module (B, channels, H, W) -> (B, channels, H, W).
"""

from typing import Annotated

from pydantic import Field

from space.mixers.average_pool import AveragePool
from space.mixers.depthwise import Depthwise
from space.mixers.identity import Identity
from space.mixers.inception import Inception

Mixer = Annotated[Inception | Depthwise | Identity | AveragePool, Field(discriminator="kind")]

__all__ = ["AveragePool", "Depthwise", "Identity", "Inception", "Mixer"]
