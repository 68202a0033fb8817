from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from space import build, from_timm, preset, to_timm
from space.errors import InputError

PAIRS = {
    "inceptionnext_atto": "inception_next_atto",
    "inceptionnext_tiny": "inception_next_tiny",
    "convnext_atto": "convnext_atto",
    "convnext_tiny": "convnext_tiny",
}


def randomised(network: nn.Module) -> nn.Module:
    """Fill what starts constant, so that a mix-up cannot hide."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            parameter.data.normal_(0.5, 0.3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


@pytest.mark.parametrize(("ours", "theirs"), PAIRS.items())
def test_weights_go_both_ways(ours: str, theirs: str, tmp_path: Path) -> None:
    images = torch.randn(2, 3, 64, 64)
    architecture = preset(ours)
    published = randomised(timm.create_model(theirs))
    torch.save(published.state_dict(), tmp_path / "weights.pth")
    loaded = torch.load(tmp_path / "weights.pth", weights_only=True)

    network = build(architecture).eval()
    network.load_state_dict(from_timm(architecture, loaded))
    with torch.no_grad():
        torch.testing.assert_close(network(images), published(images), atol=1e-5, rtol=1e-5)

    own = randomised(build(architecture))
    published.load_state_dict(to_timm(architecture, own.state_dict()))
    with torch.no_grad():
        torch.testing.assert_close(published(images), own(images), atol=1e-5, rtol=1e-5)


def test_weights_that_do_not_fit_are_told() -> None:
    atto = timm.create_model("inception_next_atto").state_dict()
    with pytest.raises(InputError, match="the weights do not fit: 'stages"):
        from_timm(preset("inceptionnext_tiny"), atto)
    with pytest.raises(InputError, match=r"'stem.0.weight' is .*, the architecture needs \(40, 1, 4, 4\)"):
        from_timm(preset("inceptionnext_atto").replace({"in_channels": 1}), atto)
    with pytest.raises(InputError, match="the architecture has no 'extra'"):
        from_timm(preset("inceptionnext_atto"), atto | {"extra": torch.zeros(1)})
