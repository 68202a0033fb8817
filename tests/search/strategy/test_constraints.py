"""Constraints are read, checked and told in the units that they were written in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.strategy.constraints import parse
from space.errors import InputError


@pytest.mark.parametrize(
    ("metric", "text", "known", "violation"),
    [
        ("params", "<= 30M", {"params": 30e6}, 0.0),
        ("params", "<= 30 M", {"params": 33e6}, 0.1),
        ("macs", ">= 1.5G", {"macs": 1.2e9}, 0.2),
        ("activations", "<= 1000", {"activations": 500.0}, -0.5),
        ("memory", "<= 8 GB", {"memory": 4e9}, -0.5),
        ("train_throughput", ">= 0.8x reference", {"train_throughput x reference": 0.6}, 0.25),
        ("train_throughput", ">= 0.8 x reference", {"train_throughput x reference": 0.8}, 0.0),
        ("infer_throughput", ">= 300 images/s", {"infer_throughput": 330.0}, -0.1),
        ("latency", "<= 5 ms", {"latency": 0.006}, 0.2),
    ],
)
def test_limits_are_read_in_their_units(metric: str, text: str, known: dict[str, float], violation: float) -> None:
    assert parse(metric, text).violation(known) == pytest.approx(violation)


@pytest.mark.parametrize(
    ("metric", "text", "told"),
    [
        ("parms", "<= 30M", "unknown metric 'parms', did you mean 'params'?; allowed: params, macs"),
        ("params", "<= 30 MB", "got '<= 30 MB'; allowed: <= or >=, a number above 0 and none or one of the units 'K'"),
        ("params", "< 30M", "got '< 30M'"),
        ("params", "<= 0.8x reference", "got '<= 0.8x reference'"),
        ("params", 30, "got 30"),
        ("params", "<= 0", "a number above 0"),
        ("params", "<= -3M", "got '<= -3M'"),
        ("train_throughput", ">= 300", "one of the units 'images/s', 'x reference'"),
        ("latency", "<= 5 parsecs", "one of the units 'ms', 's', 'x reference'"),
        ("memory", "<= 0.5x reference", "one of the units 'B', 'KB', 'MB', 'GB'"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(metric: str, text: str, told: str) -> None:
    with pytest.raises(InputError) as error:
        parse(metric, text)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_what_breaks_a_limit_is_told_beside_it() -> None:
    assert parse("params", "<= 14K").told({"params": 17_300.0}) == "params 17.3 K (<= 14K)"
    assert parse("latency", "<= 5 ms").told({"latency": 0.0062}) == "latency 6.2 ms (<= 5 ms)"
    ratio = {"train_throughput x reference": 0.714}
    assert parse("train_throughput", ">= 0.8x reference").told(ratio) == (
        "train_throughput 0.714x reference (>= 0.8x reference)"
    )


@given(st.floats(1, 1e9), st.floats(1, 1e9))
def test_kept_or_broken_is_what_the_comparison_says(limit: float, value: float) -> None:
    least, most = (parse("params", f"{sign} {limit:.17f}") for sign in (">=", "<="))
    assert (least.violation({"params": value}) <= 0) == (value / least.limit >= 1)
    assert (most.violation({"params": value}) <= 0) == (value / most.limit <= 1)
