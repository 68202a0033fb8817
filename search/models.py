"""Models as people name them on a command line: a preset, an architecture file, or one of timm's."""

from pathlib import Path

import timm
from timm.models import get_pretrained_cfg

from search.throughput import Candidate, TimmModel
from space import Architecture, preset
from space.errors import InputError, nearest
from space.presets import PRESETS, native_resolution

TIMM = "timm:"
FILES = (".yaml", ".yml", ".json")


def candidate(text: str, resolution: int | None = None) -> Candidate:
    """Return the network that `text` names, at `resolution` or at the one it was published at (224 for a file).

    Raises InputError for a name or file that does not exist, the nearest name suggested, and for a resolution that
    the network's strides do not divide.
    """
    if text.startswith(TIMM):
        return _timm(text.removeprefix(TIMM), resolution)
    if text.endswith(FILES):
        architecture, native = Architecture.load(Path(text)), 224
    elif text in PRESETS:
        architecture, native = preset(text), native_resolution(text)
    else:
        timms = f"; {TIMM}{text} is one of timm's" if timm.is_model(text) else ""
        raise InputError(
            f"unknown model {text!r}{nearest(text, PRESETS)}{timms}; allowed: a preset ({', '.join(PRESETS)}), "
            f"an architecture file ({', '.join(FILES)}), or {TIMM}NAME"
        )
    architecture.check_resolution(resolution or native)
    return Candidate(architecture, resolution or native)


def _timm(name: str, resolution: int | None) -> Candidate:
    if not timm.is_model(name):
        raise InputError(f"timm has no model {name!r}{nearest(name, timm.list_models())}")
    published = get_pretrained_cfg(name)
    channels, height, _ = published.input_size if published is not None else (3, 224, 224)
    return Candidate(TimmModel(name, in_channels=channels), resolution or height)


def candidates(texts: list[str], resolution: int | None = None) -> dict[str, Candidate]:
    """Return the named networks by name; one that is named again is measured again, as ``NAME (2)``."""
    found: dict[str, Candidate] = {}
    for text in texts:
        same = sum(name == text or name.startswith(f"{text} (") for name in found)
        found[f"{text} ({same + 1})" if same else text] = candidate(text, resolution)
    return found
