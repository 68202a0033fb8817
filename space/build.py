"""Architecture -> torch module. Names of parameters follow timm's InceptionNeXt."""

import torch
from timm.layers import (
    DropPath,
    LayerNorm,
    LayerNorm2d,
    Mlp,
    NormMlpClassifierHead,
    calculate_drop_path_rates,
    get_act_layer,
    trunc_normal_,
)
from timm.models.inception_next import MlpClassifierHead
from torch import nn

from space.architecture import Architecture
from space.mixers import Mixer


def build(architecture: Architecture) -> nn.Module:
    """Build the network: (B, in_channels, H, W) -> logits (B, num_classes).

    Convolutions and linear layers start from a normal distribution of standard deviation 0.02, truncated, and
    biases from zero (the authors' code), drawn from torch's global generator.
    """
    return MetaNeXt(architecture)


def build_paired(architecture: Architecture, with_: Architecture | None) -> tuple[nn.Module, float]:
    """Build a network whose weights start as those of another do, wherever name and shape agree.

    Both are drawn from torch's global generator, the other first: it starts as it would alone. Returns the network
    and the share of its weights that are the other's.
    """
    if with_ is None or with_ == architecture:
        return build(architecture), 1.0
    other = build(with_).state_dict()
    network = build(architecture)
    own = network.state_dict()
    same = {name: other[name] for name, value in own.items() if name in other and other[name].shape == value.shape}
    network.load_state_dict(own | same)
    return network, sum(value.numel() for value in same.values()) / sum(value.numel() for value in own.values())


class MetaNeXt(nn.Module):
    """Stem, stages and head (arXiv 2303.16900, Section 3.1 and Table 3)."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        arch, widths = architecture, architecture.widths
        self.stem = nn.Sequential(
            nn.Conv2d(arch.in_channels, widths[0], arch.patch_size, stride=arch.patch_size),
            _norm(arch, widths[0]),
        )
        rates = calculate_drop_path_rates(arch.drop_path, list(arch.depths), stagewise=True)
        self.stages = nn.Sequential(*(Stage(arch, stage, rates[stage]) for stage in range(len(arch.depths))))
        self.head = _head(arch)
        self.apply(_init)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.stages(self.stem(x)))
        return out


class Stage(nn.Module):
    """Downsampling, but in the first stage, then blocks."""

    def __init__(self, architecture: Architecture, stage: int, drop_path_rates: list[float]) -> None:
        super().__init__()
        width, mixer = architecture.widths[stage], architecture.mixers[stage]
        self.downsample = nn.Identity() if stage == 0 else _downsample(architecture, stage)
        self.blocks = nn.Sequential(
            *(Block(architecture, mixer, width, architecture.mlp_ratios[stage], p) for p in drop_path_rates)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.blocks(self.downsample(x))
        return out


class Block(nn.Module):
    """Mixer, norm, MLP, layer scale and drop path inside one residual (arXiv 2303.16900, Section 3.1)."""

    def __init__(
        self, architecture: Architecture, mixer: Mixer, width: int, mlp_ratio: float, drop_path: float
    ) -> None:
        super().__init__()
        self.linear_mlp = architecture.mlp == "linear"
        self.token_mixer = mixer.build(width)
        # A LayerNorm fits linear layers on channels-last data; a BatchNorm wants its channels second.
        self.norm_last = self.linear_mlp and architecture.norm == "layer_norm"
        self.norm = LayerNorm(width, eps=1e-6) if self.norm_last else _norm(architecture, width)
        activation = get_act_layer(architecture.activation)
        self.mlp = Mlp(width, int(mlp_ratio * width), act_layer=activation, use_conv=not self.linear_mlp)
        scale = architecture.layer_scale
        self.gamma = nn.Parameter(torch.full((width,), scale)) if scale is not None else None
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        x = self.token_mixer(x)
        if not self.norm_last:
            x = self.norm(x)
        if self.linear_mlp:
            x = x.permute(0, 2, 3, 1)
            x = self.mlp(self.norm(x) if self.norm_last else x)
            x = x.permute(0, 3, 1, 2)
        else:
            x = self.mlp(x)
        if self.gamma is not None:
            x = x * self.gamma.reshape(1, -1, 1, 1)
        out: torch.Tensor = shortcut + self.drop_path(x)
        return out


def _norm(architecture: Architecture, width: int) -> nn.Module:
    norm: nn.Module = nn.BatchNorm2d(width) if architecture.norm == "batch_norm" else LayerNorm2d(width, eps=1e-6)
    return norm


def _downsample(architecture: Architecture, stage: int) -> nn.Sequential:
    before, width = architecture.widths[stage - 1], architecture.widths[stage]
    return nn.Sequential(_norm(architecture, before), nn.Conv2d(before, width, 2, stride=2))


def _head(architecture: Architecture) -> nn.Module:
    width, classes, dropout = architecture.widths[-1], architecture.num_classes, architecture.head_dropout
    if architecture.head == "mlp":
        head: nn.Module = MlpClassifierHead(width, classes, pool_type="avg", drop=dropout)
    else:
        norm = LayerNorm2d if architecture.norm == "layer_norm" else nn.BatchNorm2d
        head = NormMlpClassifierHead(width, classes, pool_type="avg", drop_rate=dropout, norm_layer=norm)
    return head


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear) and not module.weight.is_meta:  # which has no values to be drawn
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
