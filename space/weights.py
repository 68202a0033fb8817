"""Weights to and from timm's `inception_next_*` and `convnext_*` models."""

from collections.abc import Mapping

import torch

from space.architecture import Architecture
from space.build import build
from space.errors import InputError

StateDict = dict[str, torch.Tensor]

OURS, TIMMS = ".token_mixer.conv.", ".conv_dw."


def from_timm(architecture: Architecture, state_dict: Mapping[str, torch.Tensor]) -> StateDict:
    """Return timm's weights under the names of `build(architecture)`.

    Only the depthwise convolution is named differently. Raises InputError where names or shapes do not fit,
    naming the first that does not.
    """
    renamed = {name.replace(TIMMS, OURS): value for name, value in state_dict.items()}
    _check(architecture, renamed)
    return renamed


def to_timm(architecture: Architecture, state_dict: Mapping[str, torch.Tensor]) -> StateDict:
    """Return the weights of `build(architecture)` under timm's names. Raises InputError as `from_timm` does."""
    _check(architecture, state_dict)
    return {name.replace(OURS, TIMMS): value for name, value in state_dict.items()}


def _check(architecture: Architecture, state_dict: Mapping[str, torch.Tensor]) -> None:
    with torch.device("meta"):
        expected = {name: value.shape for name, value in build(architecture).state_dict().items()}
    for name in sorted(expected.keys() - state_dict.keys()):
        raise InputError(f"the weights do not fit: {name!r} is missing")
    for name in sorted(state_dict.keys() - expected.keys()):
        raise InputError(f"the weights do not fit: the architecture has no {name!r}")
    for name, shape in expected.items():
        if state_dict[name].shape != shape:
            raise InputError(
                f"the weights do not fit: {name!r} is {tuple(state_dict[name].shape)}, "
                f"the architecture needs {tuple(shape)}"
            )
