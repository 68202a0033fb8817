import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from space_strategies import architectures

from space import Architecture, build, complexity, preset
from space.errors import InputError

# Pinned: a study's records are found again by it.
TINY = "9fc1370756e614a0"


@settings(max_examples=60, deadline=None)
@given(architectures())
def test_an_architecture_is_its_content(architecture: Architecture) -> None:
    again = Architecture.parse(yaml.safe_load(architecture.to_yaml()))
    assert again == architecture
    assert hash(again) == hash(architecture)
    assert again.fingerprint == architecture.fingerprint
    assert Architecture.parse(json.loads(json.dumps(architecture.to_dict()))) == architecture
    other = architecture.replace({"num_classes": architecture.num_classes + 1})
    assert other != architecture
    assert other.fingerprint != architecture.fingerprint


@settings(max_examples=40, deadline=None)
@given(architectures())
def test_every_architecture_builds_as_counted(architecture: Architecture) -> None:
    resolution = architecture.stride * 2
    network = build(architecture).train()
    logits = network(torch.randn(3, architecture.in_channels, resolution, resolution))
    assert logits.shape == (3, architecture.num_classes)
    logits.sum().backward()
    counts = complexity(architecture, resolution)
    assert counts.params == sum(parameter.numel() for parameter in network.parameters())
    assert counts.macs > 0
    assert counts.bytes > 4 * counts.activations


def test_the_fingerprint_is_the_same_in_every_process() -> None:
    code = "from space import preset; print(preset('inceptionnext_tiny').fingerprint)"
    root = Path(__file__).parents[2]
    told = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=root, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout.strip()
        for seed in ("0", "1")
    ]
    assert told == [TINY, TINY]
    assert preset("inceptionnext_tiny").fingerprint == TINY


def test_an_architecture_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        preset("inceptionnext_tiny").norm = "layer_norm"  # type: ignore[misc]


def test_one_value_holds_for_all_stages() -> None:
    spread = Architecture.parse({"depths": [1, 1], "widths": [8, 16], "mlp_ratios": 2, "mixers": {"kind": "identity"}})
    assert spread.mlp_ratios == (2.0, 2.0)
    assert [mixer.kind for mixer in spread.mixers] == ["identity", "identity"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mixers.*.band_kernel_size": 4}, "must be odd and positive"),
        ({"mixers.*.square_kernel_size": 0}, "must be odd and positive"),
        ({"mixers.*.branch_ratio": 0.5}, "3 branches of 48 channels exceed 96 channels; allowed: at most 1/3"),
        ({"mixers.*.branch_ratio": 0.001}, "of 96 channels rounds down to 0 channels; allowed: at least 1/96"),
        ({"mixers.*.branch_ratio": 0}, "greater than 0"),
        ({"mixers.*.branch_ratio": "1/0"}, "a number or a fraction such as 1/8"),
        ({"mixers.0.branches": ["square", "square"]}, "at most once"),
        ({"mixers.0.branches": ["diagonal"]}, "'square', 'horizontal' or 'vertical'"),
        ({"mixers.0": {"kind": "inception", "branches": ["square"], "arrangement": "sequential"}}, "needs both bands"),
        ({"mixers.0": {"kind": "inceptoin"}}, "'inception', 'depthwise', 'identity', 'average_pool'"),
        ({"mixers.0": {"kind": "depthwise", "conv_ratio": 0.001}}, "rounds down to 0 channels"),
        ({"mixers.*.kernel_size": 3}, "no field 'kernel_size' of a 'inception' mixer"),
        ({"depths": [3, 3]}, "widths has 4 entries and depths has 2"),
        ({"depths": []}, "depths: at least one stage"),
        ({"depths.0": 0}, "greater than or equal to 1"),
        ({"depths.4": 1}, "'4' is no index; allowed: 0 to 3"),
        ({"widths.0": -8}, "greater than or equal to 1"),
        ({"mlp_ratios.0": 0.001}, "mlp_ratios.0"),
        ({"norm": "group_norm"}, "'batch_norm' or 'layer_norm'"),
        ({"nrom": "layer_norm"}, "no field 'nrom', did you mean 'norm'?"),
        ({"drop_path": 1.0}, "less than 1"),
        ({"norm.x": 1}, "leads inside a plain value"),
    ],
)
def test_what_cannot_be_built_is_told_in_one_line(changes: dict, told: str) -> None:
    with pytest.raises(InputError) as caught:
        preset("inceptionnext_tiny").replace(changes, "my study")
    assert str(caught.value).startswith("my study: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_resolution_that_the_strides_do_not_divide_is_told() -> None:
    with pytest.raises(InputError, match=r"resolution 100 .* stride 32 .* allowed: multiples of 32"):
        complexity(preset("inceptionnext_tiny"), 100)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "cannot be read"),
        ("a: [", "cannot be read as YAML"),
        ("- 1", "a mapping of fields, not list"),
        ("depths: many", "depths"),
    ],
)
def test_a_file_that_holds_no_architecture_is_told(tmp_path: Path, text: str | None, told: str) -> None:
    path = tmp_path / "net.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=told) as caught:
        Architecture.load(path)
    assert "net.yaml" in str(caught.value)


def test_a_file_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(preset("convnext_tiny").to_yaml())
    assert Architecture.load(path) == preset("convnext_tiny")
