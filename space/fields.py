"""Field types that several values share."""

from fractions import Fraction
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field


def _odd(size: int) -> int:
    if size < 1 or size % 2 == 0:
        raise ValueError("a kernel size must be odd and positive, so that the output keeps its resolution")
    return size


def _fraction(value: object) -> object:
    """Let people write 1/8, which YAML reads as text."""
    if isinstance(value, str):
        try:
            return float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError) as error:
            raise ValueError("a ratio is a number or a fraction such as 1/8") from error
    return value


# Written as numbers: no text, no true or false, no infinity. The ends, of what can be meant, keep typing errors out.
Whole = Annotated[int, Field(strict=True)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
KernelSize = Annotated[Whole, AfterValidator(_odd), Field(le=1023)]
Ratio = Annotated[Real, BeforeValidator(_fraction), Field(gt=0, le=1)]
PositiveInt = Annotated[Whole, Field(ge=1, le=1_000_000)]
