"""Published networks, and two small ones for a laptop, each as an Architecture.

Sources: arXiv 2303.16900, Table 3 (InceptionNeXt; Atto's second width is the authors' code's, the table
misprints it), Table 1 (ConvNeXt-T variants), Table 5 (isotropic) and Table 9 (drop path);
arXiv 2201.03545 (ConvNeXt); timm (ConvNeXt-Atto).
"""

from typing import Any

from space.architecture import Architecture
from space.errors import InputError, nearest

Fields = dict[str, Any]

_TINY: Fields = {"depths": [3, 3, 9, 3], "widths": [96, 192, 384, 768]}
_SMALL: Fields = {"depths": [3, 3, 27, 3], "widths": [96, 192, 384, 768]}
_BASE: Fields = {"depths": [3, 3, 27, 3], "widths": [128, 256, 512, 1024]}
_ATTO: Fields = {"depths": [2, 2, 6, 2], "widths": [40, 80, 160, 320]}


def _inceptionnext(size: Fields, drop_path: float, **rest: Any) -> Fields:
    mixer = {"kind": "inception"} | rest.pop("mixer", {})
    return {**size, "mlp_ratios": [4, 4, 4, 3], "mixers": mixer, "drop_path": drop_path} | rest


def _convnext(size: Fields, drop_path: float, kernel_size: int = 7, conv_ratio: float = 1, **rest: Any) -> Fields:
    mixer = {"kind": "depthwise", "kernel_size": kernel_size, "conv_ratio": conv_ratio}
    layers = {"norm": "layer_norm", "mlp": "linear", "head": "linear"}
    return {**size, **layers, "mlp_ratios": 4, "mixers": mixer, "drop_path": drop_path} | rest


# Small enough to train in seconds on two CPU cores, deep enough that the band kernel's reach shows.
_LAPTOP: Fields = {
    "in_channels": 1,
    "num_classes": 5,
    "patch_size": 2,
    "depths": [3],
    "widths": [32],
    "mlp_ratios": 2,
    "drop_path": 0,
    "layer_scale": 1.0,
}

PRESETS: dict[str, Fields] = {
    "inceptionnext_atto": _inceptionnext(_ATTO, 0.1, mixer={"band_kernel_size": 9, "branch_ratio": 0.25}),
    "inceptionnext_tiny": _inceptionnext(_TINY, 0.1),
    "inceptionnext_small": _inceptionnext(_SMALL, 0.3),
    "inceptionnext_base": _inceptionnext(_BASE, 0.4),
    "inceptionnext_base_384": _inceptionnext(_BASE, 0.7, head_dropout=0.5),
    # Table 5 prints width, depth and the counts; the linear head is the one of the two that has those counts.
    "inceptionnext_small_iso": _inceptionnext(
        {"depths": [18], "widths": [384], "patch_size": 16}, 0.1, mlp_ratios=4, head="linear"
    ),
    "convnext_small_iso": _convnext({"depths": [18], "widths": [384], "patch_size": 16}, 0.1),
    "convnext_atto": _convnext(_ATTO, 0.1, mlp="conv"),
    "convnext_tiny": _convnext(_TINY, 0.1),
    "convnext_tiny_k5": _convnext(_TINY, 0.1, kernel_size=5),
    "convnext_tiny_k3": _convnext(_TINY, 0.1, kernel_size=3),
    "convnext_tiny_k3_par1_2": _convnext(_TINY, 0.1, kernel_size=3, conv_ratio=1 / 2),
    "convnext_tiny_k3_par3_8": _convnext(_TINY, 0.1, kernel_size=3, conv_ratio=3 / 8),
    "convnext_tiny_k3_par1_4": _convnext(_TINY, 0.1, kernel_size=3, conv_ratio=1 / 4),
    "convnext_tiny_k3_par1_8": _convnext(_TINY, 0.1, kernel_size=3, conv_ratio=1 / 8),
    "convnext_tiny_k3_par1_16": _convnext(_TINY, 0.1, kernel_size=3, conv_ratio=1 / 16),
    "convnext_small": _convnext(_SMALL, 0.4),
    "convnext_base": _convnext(_BASE, 0.5),
    "convnext_base_384": _convnext(_BASE, 0.5),
    "inceptionnext_laptop": _inceptionnext({}, 0, mixer={"branch_ratio": 0.25}) | _LAPTOP,
    "convnext_laptop": _convnext({}, 0) | _LAPTOP,
}

NATIVE_RESOLUTIONS = {"inceptionnext_base_384": 384, "convnext_base_384": 384}


def preset(name: str) -> Architecture:
    """Return the named network. Raises InputError, naming the nearest, for a name that is not in PRESETS."""
    if name not in PRESETS:
        raise InputError(f"unknown preset {name!r}{nearest(name, PRESETS)}; allowed: {', '.join(PRESETS)}")
    return Architecture.parse(PRESETS[name], f"preset {name}")


def native_resolution(name: str) -> int:
    """Return the pixels a side at which the preset was published."""
    return NATIVE_RESOLUTIONS.get(name, 224)
