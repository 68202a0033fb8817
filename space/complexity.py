"""What a network costs by counting; what it costs in time is measured elsewhere."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from space.architecture import Architecture
from space.build import build


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


@lru_cache(maxsize=4096)
def complexity(architecture: Architecture, resolution: int = 224) -> Complexity:
    """Count the inference of one image of `resolution` x `resolution` pixels.

    Raises InputError for a resolution that the network's strides do not divide.
    """
    architecture.check_resolution(resolution)
    with torch.device("meta"):
        network = build(architecture)
        image = torch.empty(1, architecture.in_channels, resolution, resolution)
    return count(network, image)


def count(network: nn.Module, image: torch.Tensor) -> Complexity:
    """Count one forward pass in eval mode; on the meta device nothing is computed."""
    network.eval()
    # torch counts a multiply-add as two operations.
    flops, moved = FlopCounterMode(display=False), _Traffic()
    with torch.no_grad(), flops, moved:
        network(image)
    params = sum(p.numel() for p in network.parameters())
    return Complexity(params, flops.get_total_flops() // 2, moved.activations, moved.bytes)


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what each operator that is not a view reads and writes."""

    PRODUCTS = ("convolution", "mm", "addmm", "bmm")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self.activations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor)]
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
        if func._schema.name.removeprefix("aten::") in self.PRODUCTS:
            self.activations += out.numel()
        return out
