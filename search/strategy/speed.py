"""What a step takes, from the work that is counted of a network and the operators that were timed in others."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from space.operators import Work, family

Timed = tuple[Work, float]  # what the operators of one kind computed and moved, and the seconds that they took


class OperatorTimes:
    """What the operators of each family take: so much a multiply-accumulate, a byte and a call.

    These three are learnt from networks whose operators were timed, by least squares of the relative errors, none of
    them below nought. `known` has the work of a network by kind of operator (space.complexity.operators), and the
    seconds of each kind; with the work of an inference and the seconds of a training step one learns what a training
    step takes, of which the backward pass has its share. A family that was never timed takes what all do together.
    """

    def __init__(self, known: Sequence[tuple[Mapping[str, Work], Mapping[str, float]]]) -> None:
        entries: dict[str, list[Timed]] = {}
        for works, seconds in known:
            for kind in works.keys() & seconds.keys():
                entries.setdefault(family(kind), []).append((works[kind], seconds[kind]))
        self._costs = {name: _fitted(own) for name, own in entries.items()}
        self._any = _fitted([one for own in entries.values() for one in own])

    def seconds(self, works: Mapping[str, Work]) -> float:
        """Return what a network takes whose operators do this work."""
        return float(sum(np.dot(work, self._costs.get(family(kind), self._any)) for kind, work in works.items()))


def _fitted(entries: Sequence[Timed]) -> NDArray[np.float64]:
    """Return the seconds a multiply-accumulate, a byte and a call."""
    work, seconds = np.array([one for one, _ in entries], dtype=float), np.array([taken for _, taken in entries])
    size = np.where(work.max(0) > 0, work.max(0), 1.0)
    found: NDArray[np.float64] = nnls(work / size / seconds[:, None], np.ones(len(seconds)))[0] / size
    return found
