"""Hypothesis strategies: architectures small enough to build by the hundred."""

from hypothesis import strategies as st

from space import Architecture
from space.mixers import AveragePool, Depthwise, Identity, Inception, Mixer

ODD = st.integers(0, 4).map(lambda n: 2 * n + 1)
BRANCHES = st.sampled_from(
    [
        (),
        ("square",),
        ("horizontal",),
        ("square", "vertical"),
        ("vertical", "horizontal"),
        ("square", "horizontal", "vertical"),
    ]
)


@st.composite
def inceptions(draw: st.DrawFn) -> Inception:
    branches = draw(BRANCHES)
    both = {"horizontal", "vertical"} <= set(branches)
    return Inception(
        square_kernel_size=draw(ODD),
        band_kernel_size=draw(ODD),
        branch_ratio=draw(st.sampled_from([1 / 8, 1 / 5, 1 / 4, 1 / 3])),
        branches=branches,
        arrangement=draw(st.sampled_from(["parallel", "sequential"])) if both else "parallel",
    )


def mixers() -> st.SearchStrategy[Mixer]:
    return st.one_of(
        inceptions(),
        st.builds(Depthwise, kernel_size=ODD, conv_ratio=st.sampled_from([1 / 8, 3 / 8, 1.0])),
        st.just(Identity()),
        st.builds(AveragePool, pool_size=ODD),
    )


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    stages = draw(st.integers(1, 3))

    def per_stage(strategy: st.SearchStrategy) -> tuple:
        return tuple(draw(st.lists(strategy, min_size=stages, max_size=stages)))

    return Architecture(
        in_channels=draw(st.integers(1, 3)),
        num_classes=draw(st.integers(1, 12)),
        patch_size=draw(st.sampled_from([1, 2, 4])),
        depths=per_stage(st.integers(1, 2)),
        widths=per_stage(st.integers(8, 24)),
        mlp_ratios=per_stage(st.sampled_from([0.5, 1.0, 2.5, 4.0])),
        mixers=per_stage(mixers()),
        norm=draw(st.sampled_from(["batch_norm", "layer_norm"])),
        activation=draw(st.sampled_from(["gelu", "relu", "silu", "hard_swish"])),
        mlp=draw(st.sampled_from(["conv", "linear"])),
        head=draw(st.sampled_from(["mlp", "linear"])),
        drop_path=draw(st.sampled_from([0.0, 0.2])),
        layer_scale=draw(st.sampled_from([None, 1e-6, 1.0])),
    )
