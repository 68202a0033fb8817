"""Points with several objectives, all maximised: their fronts, what these dominate, and an order that spreads."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (points, objectives)
Point = tuple[float, ...]


def non_dominated(points: Points) -> NDArray[np.bool_]:
    """Return which points no other equals or exceeds in all coordinates and exceeds in one."""
    found: NDArray[np.bool_] = fronts(points) == 0
    return found


def hypervolume(points: Points, reference: tuple[float, float] = (0.0, 0.0)) -> float:
    """Return the area between `reference` and the front of `points` (n, 2).

    Points that do not exceed the reference in both coordinates add nothing.
    """
    inside = points[(points > np.asarray(reference)).all(1)]
    area, height = 0.0, reference[1]
    for x, y in inside[np.lexsort((-inside[:, 1], -inside[:, 0]))]:
        if y > height:
            area += (x - reference[0]) * (y - height)
            height = y
    return area


def hypervolume_gains(points: Points, others: Points, reference: Points) -> NDArray[np.float64]:
    """Return by how much each of the others (m, 2), by itself, would enlarge the hypervolume of the points (n, 2)."""
    front = points[non_dominated(points) & (points > reference).all(1)]
    front = np.unique(front, axis=0)[::-1]  # the first coordinate falls, the second grows
    ends = np.concatenate([[reference[1]], front[:, 1], [np.inf]])
    heights = np.concatenate([front[:, 0], [reference[0]]])  # of the area that the points dominate, between the ends
    widths = np.clip(np.minimum(others[:, 1:], ends[1:]) - ends[:-1], 0, None)
    found: NDArray[np.float64] = (widths * np.clip(others[:, :1] - heights, 0, None)).sum(1)
    return found


def fronts(points: Points) -> NDArray[np.int_]:
    """Return the front that each point is on: 0 where none dominates it, 1 where only those of front 0 do, and so on.

    Non-dominated sorting (Deb et al. 2002, NSGA-II); equal points are on the same front.
    """
    different, back = np.unique(points, axis=0, return_inverse=True)
    sort = _fronts_of_two if different.shape[1] == 2 else _peeled
    return sort(different)[back.reshape(-1)]


def _fronts_of_two(points: Points) -> NDArray[np.int_]:
    """Sort points that differ and come in ascending order, in O(n log n)."""
    found = np.empty(len(points), dtype=int)
    highest: list[float] = []  # on each front so far, the second coordinate's greatest value, negated to ascend
    for index in reversed(range(len(points))):
        # All before have a first coordinate at least as great, so who has the second one, too, dominates.
        second = -float(points[index, 1])
        front = bisect_right(highest, second)
        found[index] = front
        highest[front : front + 1] = [second]
    return found


def _peeled(points: Points) -> NDArray[np.int_]:
    found = np.full(len(points), -1)
    front = 0
    while (left := np.flatnonzero(found < 0)).size:
        rest = points[left]
        beaten = [bool(((rest >= one).all(1) & (rest > one).any(1)).any()) for one in rest]
        found[left[~np.array(beaten)]] = front
        front += 1
    return found


def spread_order(points: Points) -> NDArray[np.int_]:
    """Return the indices of points in the order of an epsilon-net: each next one is the farthest from those before.

    The first is the one that is best in the first objective. Objectives are scaled to their range (Schmucker et al.
    2021, arXiv 2106.12639, section 3).
    """
    span = np.ptp(points, axis=0)
    scaled = (points - points.min(0)) / np.where(span > 0, span, 1.0)
    order = [int(np.argmax(points[:, 0]))]
    distance = np.full(len(points), np.inf)
    while len(order) < len(points):
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[order[-1]], axis=1))
        distance[order[-1]] = -np.inf
        order.append(int(np.argmax(distance)))
    return np.array(order)


class Pile:
    """Points that come one by one, of any number of objectives, sorted anew whenever one asks for their order."""

    def __init__(self, points: Iterable[Point] = ()) -> None:
        self._points = list(points)

    def __len__(self) -> int:
        return len(self._points)

    def add(self, point: Point) -> None:
        """Add a point."""
        self._points.append(point)

    def around(self, point: Point) -> tuple[int, Points]:
        """Return how many are on earlier fronts than a point that was added, and those that differ on its own."""
        points = np.array(self._points)
        front = fronts(points)
        own = front[(points == point).all(1)][0]
        return int((front < own).sum()), np.unique(points[front == own], axis=0)


class Layers:
    """Points of two objectives that come one by one; their fronts are kept, so that order costs little at any time.

    Each front is sorted. A point that comes pushes a run of the points of its front to the next, these push a run
    there, and so on (Yakupov and Buzdalov, CEC 2015, incremental non-dominated sorting in two dimensions).
    """

    def __init__(self, points: Iterable[Point] = ()) -> None:
        self._fronts: list[list[Point]] = []
        self._size = 0
        for point in points:
            self.add(point)

    def __len__(self) -> int:
        return self._size

    def add(self, point: Point) -> None:
        """Add a point."""
        self._size += 1
        index, coming = self._front_of(point), [point]
        while coming:
            if index == len(self._fronts):
                self._fronts.append(coming)
                return
            front = self._fronts[index]
            # Whoever is not above the first of them and not beyond the last is dominated by one of them, or its equal.
            begin = bisect_left(front, -coming[0][1], key=lambda one: -one[1])
            end = bisect_right(front, coming[-1][0], key=lambda one: one[0])
            pushed = front[begin:end]
            if pushed[:1] == [point]:
                coming, pushed = [point, *pushed], []
            front[begin : max(begin, end)] = coming
            index, coming = index + 1, pushed

    def around(self, point: Point) -> tuple[int, Points]:
        """Return how many are on earlier fronts than a point that was added, and those that differ on its own."""
        index = self._front_of(point)
        return sum(map(len, self._fronts[:index])), np.unique(np.array(self._fronts[index]), axis=0)

    def _front_of(self, point: Point) -> int:
        """Return the first front of which nothing dominates a point; all earlier ones have something that does."""

        def is_clear(front: list[Point]) -> bool:
            place = bisect_left(front, point[0], key=lambda one: one[0])
            return place == len(front) or front[place][1] < point[1] or front[place] == point

        return bisect_left(self._fronts, True, key=is_clear)
