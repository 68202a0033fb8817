"""What several parts of a report ask of the same records."""

import pandas as pd

from search.analysis.once import once, unchanged


def test_records_are_looked_at_once_while_they_are_unchanged() -> None:
    asked: list[int] = []

    @once
    def count(frame: pd.DataFrame) -> int:
        asked.append(len(frame))
        return len(frame)

    first, second = pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [1, 2, 3]})
    assert [count(first), count(first)] == [2, 2] == asked
    asked.clear()
    with unchanged():
        assert [count(first), count(second), count(first)] == [2, 3, 2]
        with unchanged():  # a part of it
            assert count(second) == 3
        assert asked == [2, 3]
    first.loc[2] = 9
    assert count(first) == 3
