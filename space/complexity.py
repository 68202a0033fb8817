"""What a network costs by counting; what it costs in time is measured elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from space.architecture import Architecture
from space.build import build
from space.operators import Work, kind_of, macs_of


@dataclass(frozen=True)
class Complexity:
    """Counts for one image. None of them says how fast the network is.

    Attributes:
        params: learned parameters.
        macs: multiply-adds of convolutions and matrix products; norms, activations and pooling count 0.
        activations: output elements of convolutions and matrix products (Dollár et al., arXiv 2103.06877).
        bytes: bytes that all operators read and write in fp32 if no two of them are fused.
    """

    params: int
    macs: int
    activations: int
    bytes: int


def complexity(architecture: Architecture, resolution: int = 224) -> Complexity:
    """Count the inference of one image of `resolution` x `resolution` pixels.

    Raises InputError for a resolution that the network's strides do not divide.
    """
    return _counted(architecture, resolution)[0]


def operators(architecture: Architecture, resolution: int = 224) -> Mapping[str, Work]:
    """Return the work of each kind of operator in the inference of one image. Raises as `complexity` does."""
    return _counted(architecture, resolution)[1]


@lru_cache(maxsize=4096)
def _counted(architecture: Architecture, resolution: int) -> tuple[Complexity, Mapping[str, Work]]:
    architecture.check_resolution(resolution)
    with torch.device("meta"):
        network = build(architecture)
        image = torch.empty(1, architecture.in_channels, resolution, resolution)
    return count(network, image)


def count(network: nn.Module, image: torch.Tensor) -> tuple[Complexity, Mapping[str, Work]]:
    """Count one forward pass in eval mode, in all and by kind; on the meta device nothing is computed."""
    network.eval()
    seen = _Traffic()
    with torch.no_grad(), seen:
        network(image)
    params = sum(p.numel() for p in network.parameters())
    macs, moved = (sum(work[part] for work in seen.works.values()) for part in (0, 1))
    return Complexity(params, macs, seen.activations, moved), MappingProxyType(seen.works)


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what each operator that is not a view computes, reads and writes."""

    PRODUCTS = ("convolution", "mm", "addmm", "bmm")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.works: dict[str, Work] = {}
        self.activations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not func.is_view:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)]
            kind, moved = kind_of(func, args), sum(t.numel() * t.element_size() for t in tensors)
            before = self.works.get(kind, Work())
            macs = before.macs + macs_of(func, args, kwargs, out)
            self.works[kind] = Work(macs, before.bytes + moved, before.calls + 1)
        if func._schema.name.removeprefix("aten::") in self.PRODUCTS:
            self.activations += out.numel()
        return out
