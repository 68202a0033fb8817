"""Counts against closed forms (arXiv 2303.16900, Table 2)."""

import pytest

from space import Architecture, complexity
from space.complexity import Complexity


def one_block(width: int = 16, **rest: object) -> Architecture:
    return Architecture.parse(
        {"in_channels": 3, "num_classes": 10, "patch_size": 2, "depths": [1], "widths": [width], "mlp_ratios": 4}
        | {"mixers": {"kind": "identity"}, "head": "linear", "layer_scale": None}
        | rest
    )


def added(mixer: dict[str, object], width: int = 16, resolution: int = 8) -> tuple[int, int]:
    """Return the parameters and MACs that a mixer adds to the identity's block."""
    bare = complexity(one_block(width), resolution)
    with_mixer = complexity(one_block(width, mixers=mixer), resolution)
    return with_mixer.params - bare.params, with_mixer.macs - bare.macs


def test_stem_mlp_and_head() -> None:
    width, positions = 16, 4 * 4
    counts = complexity(one_block(width), 8)
    stem, mlp, head = 3 * 2 * 2 * width, 2 * 4 * width * width, 10 * width
    biases = width + 5 * width + 10
    norms = 3 * 2 * width
    assert counts.params == stem + mlp + head + biases + norms
    assert counts.macs == positions * (stem + mlp) + head
    assert counts.activations == positions * (width + 5 * width) + 10


@pytest.mark.parametrize(("kernel", "width"), [(3, 16), (7, 24)])
def test_depthwise(kernel: int, width: int) -> None:
    params, macs = added({"kind": "depthwise", "kernel_size": kernel}, width)
    assert params == kernel**2 * width + width
    assert macs == kernel**2 * width * 16


@pytest.mark.parametrize("kernel", [5, 11])
def test_inception(kernel: int) -> None:
    width = 32
    params, macs = added({"kind": "inception", "band_kernel_size": kernel}, width)
    # Table 2: (2k + 9) C / 8 weights for a branch ratio of 1/8; the paper leaves the 3 C / 8 biases out.
    assert params == (2 * kernel + 9) * width // 8 + 3 * width // 8
    assert macs == (2 * kernel + 9) * width // 8 * 16


def test_sequential_bands_cost_what_parallel_ones_do() -> None:
    parallel = added({"kind": "inception", "arrangement": "parallel"}, 32)
    assert added({"kind": "inception", "arrangement": "sequential"}, 32) == parallel


def test_macs_grow_with_the_area_and_params_do_not() -> None:
    small, large = complexity(one_block(), 8), complexity(one_block(), 16)
    assert large.params == small.params
    assert large.macs - 10 * 16 == 4 * (small.macs - 10 * 16)


def test_bytes_of_a_single_operator() -> None:
    """A block of identities alone: the difference of two depths is one block's traffic."""
    deep = one_block().replace({"depths.0": 2})
    moved = complexity(deep, 8).bytes - complexity(one_block(), 8).bytes
    width, positions = 16, 16
    tensor = 4 * width * positions
    weights = 4 * (2 * 4 * width * width + 5 * width)
    norm = 2 * tensor + 4 * 4 * width
    mlp = (tensor + 4 * tensor) + 2 * 4 * tensor + (4 * tensor + tensor) + weights
    residual = 3 * tensor
    assert moved == pytest.approx(norm + mlp + residual, rel=0.1)


def test_counts_are_values() -> None:
    assert complexity(one_block(), 8) == Complexity(**vars(complexity(one_block(), 8)))
