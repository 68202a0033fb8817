import pytest
import torch

from space import preset
from space.complexity import complexity, operators
from space.operators import family, kind_of


def test_kinds_of_convolutions() -> None:
    operator = torch.ops.aten.convolution.default

    def kind(out_channels: int, in_channels: int, size: tuple[int, int], groups: int) -> str:
        weight = torch.empty(out_channels, in_channels // groups, *size)
        return kind_of(operator, [None, weight, None, 1, 0, 1, False, 0, groups])

    assert kind(8, 8, (7, 7), 8) == "depthwise 7x7"
    assert kind(8, 8, (1, 11), 8) == "depthwise 1x11"
    assert kind(8, 4, (1, 1), 1) == "pointwise 1x1"
    assert kind(8, 4, (4, 4), 1) == "dense 4x4"
    assert kind(8, 4, (3, 3), 2) == "dense 3x3"
    assert kind_of(torch.ops.aten.gelu_backward.default, []) == "activation"
    assert kind_of(torch.ops.aten.native_batch_norm_backward.default, []) == "norm"
    assert kind_of(torch.ops.aten.add_.Tensor, []) == "element-wise"


@pytest.mark.parametrize(
    ("kind", "same"),
    [
        ("depthwise 7x7", "depthwise kxk"),
        ("depthwise 1x11", "depthwise 1xk"),
        ("depthwise 11x1", "depthwise kx1"),
        ("pointwise 1x1", "pointwise 1x1"),
        ("norm", "norm"),
    ],
)
def test_a_family_is_a_kind_whatever_its_size(kind: str, same: str) -> None:
    assert family(kind) == same


def test_kinds_of_work_add_up_to_the_counts() -> None:
    tiny = preset("inceptionnext_tiny")
    works, counts = operators(tiny), complexity(tiny)
    assert sum(work.macs for work in works.values()) == counts.macs
    assert sum(work.bytes for work in works.values()) == counts.bytes
    # Each of its 18 blocks has the two bands and the square kernel.
    assert [works[kind].calls for kind in ("depthwise 1x11", "depthwise 11x1", "depthwise 3x3")] == [18, 18, 18]
