import torch

from space import build, preset
from space.build import build_paired

BASE = preset("inceptionnext_laptop")


def test_paired_networks_start_alike_wherever_shapes_agree() -> None:
    arm = BASE.replace({"mixers.*.band_kernel_size": 5, "mlp_ratios.0": 3})
    torch.manual_seed(0)
    alone = build(BASE).state_dict()
    torch.manual_seed(0)
    network, share = build_paired(arm, BASE)
    found = network.state_dict()
    agree = {name for name in found if found[name].shape == alone[name].shape}
    assert all(torch.equal(found[name], alone[name]) for name in agree)
    assert not any("dwconv_w.weight" in name or "mlp.fc1" in name for name in agree)
    assert share == sum(found[name].numel() for name in agree) / sum(value.numel() for value in found.values())
    # What does not agree is drawn, not left at one value.
    assert found["stages.0.blocks.0.mlp.fc1.weight"].std() > 0.01


def test_the_baseline_starts_as_it_would_alone() -> None:
    for other in (None, BASE):
        torch.manual_seed(1)
        alone = build(BASE).state_dict()
        torch.manual_seed(1)
        network, share = build_paired(BASE, other)
        assert share == 1
        assert all(torch.equal(value, alone[name]) for name, value in network.state_dict().items())
