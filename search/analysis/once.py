"""What several parts of a report ask of the same records is computed once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar

import pandas as pd

Result = TypeVar("Result")

_found: ContextVar[dict[tuple[Any, int], tuple[pd.DataFrame, Any]] | None] = ContextVar("found", default=None)


@contextmanager
def unchanged() -> Iterator[None]:
    """Take records for unchanged meanwhile, and what is made `once` of them as well."""
    known = _found.get()
    token = _found.set({} if known is None else known)
    try:
        yield
    finally:
        _found.reset(token)


def once(function: Callable[[pd.DataFrame], Result]) -> Callable[[pd.DataFrame], Result]:
    """Let a function of records be computed once for the same ones while they are `unchanged`, else at each call."""

    @wraps(function)
    def computed(frame: pd.DataFrame) -> Result:
        known = _found.get()
        if known is None:
            return function(frame)
        key = function, id(frame)
        if key not in known:
            known[key] = frame, function(frame)  # the frame is kept, lest another one get its id
        result: Result = known[key][1]
        return result

    return computed
