"""Token mixers, one a file. To add one: write its file, then name its configuration in `Mixer`.

A configuration is a frozen value with a `kind`, `check(channels)`, which raises ValueError where it does not
fit, and `build(channels)`, which returns a module (B, channels, H, W) -> (B, channels, H, W).
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from space.mixers.average_pool import AveragePool
from space.mixers.depthwise import Depthwise
from space.mixers.identity import Identity
from space.mixers.inception import Inception


def _kind_alone(value: Any) -> Any:
    """Let the name of a kind stand for that mixer with its defaults."""
    return {"kind": value} if isinstance(value, str) else value


Mixer = Annotated[
    Annotated[Inception | Depthwise | Identity | AveragePool, Field(discriminator="kind")],
    BeforeValidator(_kind_alone),
]

__all__ = ["AveragePool", "Depthwise", "Identity", "Inception", "Mixer"]
