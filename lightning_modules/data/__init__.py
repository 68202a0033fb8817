"""Data sets, one a file. To add one: write its file, then name its configuration in `DataConfig`.

A configuration is a frozen value with a `name`, `in_channels`, `num_classes`, `resolution`, `sizes` and
`load()`.
"""

from typing import Annotated

from pydantic import Field

from lightning_modules.data.alignment import Alignment
from lightning_modules.data.base import Data
from lightning_modules.data.digit_pairs import DigitPairs
from lightning_modules.data.digits import Digits
from lightning_modules.data.pathfinder import Pathfinder
from lightning_modules.data.timm_data import TimmData

DataConfig = Annotated[Digits | Alignment | DigitPairs | Pathfinder | TimmData, Field(discriminator="name")]

__all__ = ["Alignment", "Data", "DataConfig", "DigitPairs", "Digits", "Pathfinder", "TimmData"]
