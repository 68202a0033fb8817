import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from space_strategies import mixers
from timm.models.inception_next import InceptionDWConv2d
from torch.nn.functional import avg_pool2d

from space.mixers import AveragePool, Depthwise, Identity, Inception, Mixer


@settings(max_examples=80, deadline=None)
@given(mixers(), st.integers(8, 20), st.integers(1, 9), st.integers(1, 9))
def test_a_mixer_keeps_the_shape(mixer: Mixer, channels: int, height: int, width: int) -> None:
    mixer.check(channels)
    images = torch.randn(2, channels, height, width)
    assert mixer.build(channels)(images).shape == images.shape


@pytest.mark.parametrize(
    ("channels", "square", "band", "ratio"), [(24, 3, 11, 0.125), (40, 5, 9, 0.25), (10, 3, 7, 0.3)]
)
def test_the_inception_mixer_computes_what_timms_does(channels: int, square: int, band: int, ratio: float) -> None:
    theirs = InceptionDWConv2d(channels, square, band, ratio)
    config = Inception(square_kernel_size=square, band_kernel_size=band, branch_ratio=ratio)
    ours = config.build(channels)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, channels, 14, 13)
    assert torch.equal(ours(images), theirs(images))


def test_sequential_bands_share_one_group_of_channels() -> None:
    mixer = Inception(arrangement="sequential", branch_ratio=0.25, band_kernel_size=5).build(16)
    images = torch.randn(2, 16, 9, 9)
    mixed = mixer(images)
    assert torch.equal(mixed[:, :8], images[:, :8])  # C - 2 groups of 4 are passed on
    assert torch.equal(mixed[:, 8:12], mixer.dwconv_hw(images[:, 8:12]))
    assert torch.equal(mixed[:, 12:], mixer.dwconv_h(mixer.dwconv_w(images[:, 12:])))


def test_a_branch_that_is_left_out_leaves_its_channels_alone() -> None:
    images = torch.randn(2, 16, 9, 9)
    mixed = Inception(branches=("vertical",), branch_ratio=0.25).build(16)(images)
    assert torch.equal(mixed[:, :12], images[:, :12])
    assert not torch.equal(mixed[:, 12:], images[:, 12:])
    assert torch.equal(Inception(branches=()).build(16)(images), images)


def test_bands_reach_along_their_own_axis_alone() -> None:
    mixer = Inception(branch_ratio=0.25, band_kernel_size=7).build(16)
    images = torch.zeros(1, 16, 15, 15, requires_grad=True)
    for channels, (up, across) in ((slice(8, 12), (0, 3)), (slice(12, 16), (3, 0)), (slice(4, 8), (1, 1))):
        (seen,) = torch.autograd.grad(mixer(images)[0, channels, 7, 7].sum(), images)
        rows, columns = (seen[0].abs().sum(0) > 0).nonzero().T
        assert (rows.min(), rows.max()) == (7 - up, 7 + up)
        assert (columns.min(), columns.max()) == (7 - across, 7 + across)


def test_the_depthwise_mixer_convolves_the_first_channels() -> None:
    mixer = Depthwise(kernel_size=5, conv_ratio=3 / 8).build(16)
    images = torch.randn(2, 16, 9, 9)
    mixed = mixer(images)
    assert torch.equal(mixed[:, :6], mixer.conv(images[:, :6]))
    assert torch.equal(mixed[:, 6:], images[:, 6:])


def test_identity_and_average_pooling() -> None:
    images = torch.randn(2, 6, 7, 7)
    assert torch.equal(Identity().build(6)(images), images)
    padded_out = avg_pool2d(images, 3, stride=1, padding=1) / avg_pool2d(
        torch.ones_like(images), 3, stride=1, padding=1
    )
    torch.testing.assert_close(AveragePool(pool_size=3).build(6)(images), padded_out)
