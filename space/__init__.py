"""What can be built: architectures as data, the space around them, their networks and their counts."""

from space.architecture import Architecture
from space.build import build
from space.complexity import complexity
from space.dimensions import SearchSpace
from space.presets import preset
from space.weights import from_timm, to_timm

__all__ = ["Architecture", "SearchSpace", "build", "complexity", "from_timm", "preset", "to_timm"]
