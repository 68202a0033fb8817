"""Which test images a network got right, small enough to be kept with every trial."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Correct = NDArray[np.bool_]


def pack(correct: Correct) -> dict[str, Any]:
    """Return plain data of a bit an image that `unpack` reads back."""
    return {"images": len(correct), "bits": base64.b64encode(np.packbits(correct).tobytes()).decode()}


def unpack(packed: Mapping[str, Any]) -> Correct:
    """Return, image by image in the order of the test split, whether the prediction was right."""
    bits = np.frombuffer(base64.b64decode(packed["bits"]), dtype=np.uint8)
    return np.unpackbits(bits, count=packed["images"]).astype(bool)
