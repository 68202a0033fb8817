import pytest

from space.errors import InputError
from space.reading import parse_yaml


def test_numbers_are_read_as_python_writes_them() -> None:
    assert parse_yaml("[1e-3, 2.5E+4, -1e3, 1.0e-3, 3]") == [1e-3, 25000.0, -1000.0, 1e-3, 3]
    assert parse_yaml("[1/8, 1e, e3]") == ["1/8", "1e", "e3"]


def test_what_a_merge_brings_may_be_said_again() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: *b, x: 4}"
    assert parse_yaml(text)["c"] == {"x": 4, "y": 3}


@pytest.mark.parametrize(
    "text", ["{a: 1, a: 2}", "[{b: {a: 1, 'a': 2}}]", "{? [1] : 2}", "!!timestamp x", "!!bool maybe", "[" * 9999]
)
def test_what_cannot_be_read_is_a_users_mistake(text: str) -> None:
    with pytest.raises(InputError):
        parse_yaml(text)
