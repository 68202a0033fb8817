"""Operators that a network calls: their kinds, and the work that is counted of a call."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import flop_registry

GROUPS: dict[str, tuple[str, ...]] = {
    "linear": ("mm", "addmm", "bmm", "baddbmm"),
    "activation": ("gelu", "relu", "silu", "hardswish", "threshold", "sigmoid", "leaky_relu", "hardtanh"),
    "concatenation": ("cat", "stack"),
    "copy": ("clone", "copy_", "_to_copy", "fill_", "zero_", "zeros", "constant_pad_nd"),
    "reduction": ("mean", "sum", "amax", "max", "var_mean"),
    "softmax and loss": ("_log_softmax", "_softmax", "nll_loss_forward", "nll_loss"),
    "element-wise": ("add", "sub", "mul", "div", "neg", "sqrt", "rsqrt", "pow", "exp", "tanh", "add_", "mul_", "div_"),
}
OTHER = (
    "empty",
    "_unsafe_view",
    "as_strided",
    "ones_like",
    "new_zeros",
    "new_empty",
    "new_empty_strided",
    "zeros_like",
    "set",
)
KIND_OF = {name: kind for kind, names in GROUPS.items() for name in names}


class Work(NamedTuple):
    """What operators of one kind compute and move: multiply-accumulates, bytes, and in how many calls."""

    macs: int = 0
    bytes: int = 0
    calls: int = 0


def macs_of(func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> int:
    """Return the multiply-accumulates of a call of an operator."""
    if func._overloadpacket is torch.ops.aten.convolution_backward:
        # As many for each of the gradients asked for as forward; torch's own formula takes depthwise for dense.
        gradient, weight, asked = args[0], args[2], args[10]
        return int(gradient.numel() * weight[0].numel() * sum(asked[:2]))
    count = flop_registry.get(func._overloadpacket)
    return count(*args, **kwargs, out_val=out) // 2 if count is not None else 0


def kind_of(func: Any, args: Sequence[Any]) -> str:
    """Name the kind of an operator; of a convolution with its kernel: ``depthwise 1x11`` is a horizontal band."""
    name = str(func._schema.name).removeprefix("aten::")
    if name in ("convolution", "convolution_backward"):
        backward = name == "convolution_backward"
        weight, groups = args[2 if backward else 1], args[9 if backward else 8]
        size = "x".join(str(side) for side in weight.shape[2:])
        if groups > 1 and groups == weight.shape[0]:
            return f"depthwise {size}"
        return f"pointwise {size}" if set(weight.shape[2:]) == {1} else f"dense {size}"
    plain = name.removesuffix("_backward").removesuffix("_backward_data")
    if "norm" in plain:
        return "norm"
    if "pool" in plain:
        return "pooling"
    if plain.startswith("_foreach"):
        return "element-wise"
    if "scaled_dot_product" in plain:
        return "attention"
    short = plain.rstrip("_")
    return "other" if short in OTHER else KIND_OF.get(plain, KIND_OF.get(short, short))


def family(kind: str) -> str:
    """Return a kind whatever its size: a depthwise kernel is named by its shape, others of a size by their name."""
    found = re.fullmatch(r"depthwise (\d+)x(\d+)", kind)
    if found is None:
        return kind
    if found[1] == found[2]:
        return "depthwise kxk"
    return "depthwise 1xk" if found[1] == "1" else "depthwise kx1"
