"""The answer to a study's question, in plain words: what the intervals show, and nothing beyond them."""

import pandas as pd

from search.analysis.dominance import dominations, noisy_front
from search.analysis.effects import effects
from search.analysis.factorial import is_factorial, steps
from search.analysis.fronts import front, scored
from search.analysis.scores import accuracy_column
from search.analysis.tables import open_question

LIKELY = 0.9  # probability from which an arm is named as being on the front
MOST_PAIRS = 4


def answer(frame: pd.DataFrame) -> str:
    """Say in a paragraph what is known of the study's question."""
    if not (frame["state"] == "COMPLETE").any():
        return "No trial is complete yet."
    if frame.attrs["definition"].get("kind") == "search":
        return _of_search(frame)
    if accuracy_column(frame) is None:
        return "Counts and measured throughput only: this study trains nothing."
    failed = int((frame["state"] == "FAIL").sum())
    left_out = f"{failed} failed trial{'s are' if failed > 1 else ' is'} left out." if failed else ""
    told = [_of_factors(frame)] if is_factorial(frame) else [_of_arms(frame), _of_front(frame)]
    return " ".join(part for part in (*told, left_out) if part)


def _of_search(frame: pd.DataFrame) -> str:
    done, best, noisy = scored(frame), front(frame), noisy_front(frame)
    if done.empty:
        return "No trial is complete yet."
    text = (
        f"{len(best)} of {len(done)} trained architectures are on the front: validation accuracy from "
        f"{best['accuracy'].min():.1f} to {best['accuracy'].max():.1f} % at "
        f"{best['train_ratio'].max():.2f} down to {best['train_ratio'].min():.2f} times the base's training speed. "
    )
    if noisy is not None:
        sure = [name for name, share in noisy.on_front.items() if share >= LIKELY]
        text += (
            f"Given the noise of the validation images and of throughput, {', '.join(sure) or 'none'} "
            f"{'is' if len(sure) < 2 else 'are'} on it with a probability of {100 * LIKELY:.0f} % or more. "
        )
    return text + (
        "Each was trained once, and what another seed would do is not known: neighbours on the front may trade places."
    )


def _of_arms(frame: pd.DataFrame) -> str:
    table, definition = effects(frame), frame.attrs["definition"]
    seeds = table["seeds"]
    few = f"{seeds.min()} to {seeds.max()}" if seeds.min() < seeds.max() else f"{seeds.max()}"
    told = _verdicts(
        table[~table["baseline"]].rename(columns={"arm": "name"}),
        {
            "hurts": "hurts",
            "helps": "helps",
            "equivalent": f"equivalent to the baseline within {definition.get('margin')} points",
        },
    )
    return (
        f"Against “{definition['baseline']}”, in percentage points of accuracy, over {few} "
        f"seed{'s' if seeds.max() != 1 else ''} an arm, at most one study in twenty with any false verdict: "
        f"{told or 'nothing to compare yet'}."
    )


def _of_factors(frame: pd.DataFrame) -> str:
    table, margin = steps(frame).rename(columns={"term": "name"}), frame.attrs["definition"].get("margin")
    main, pairs = (table[table["kind"] == kind] for kind in ("main", "interaction"))
    each = _verdicts(
        main, {"hurts": "hurts", "helps": "helps", "equivalent": f"makes no difference of {margin} points"}
    )
    text = f"On the mean over the other factors' levels, in percentage points of accuracy: {each}."
    if pairs.empty:
        return f"{text} This fraction cannot tell whether one factor's effect depends on another."
    between = _verdicts(pairs, {"depends": "depends", "does not depend": f"does not depend, within {margin} points"})
    return f"{text} Whether an effect depends on another factor's level: {between}."


def _of_front(frame: pd.DataFrame) -> str:
    noisy = noisy_front(frame)
    if noisy is None:
        return ""
    likely = [name for name, share in noisy.on_front.items() if share >= LIKELY]
    told = dominations(frame)
    pairs = [f"“{row.better}” dominates “{row.worse}”" for row in told.head(MOST_PAIRS).itertuples()]
    more = f", and {len(told) - MOST_PAIRS} pairs more" if len(told) > MOST_PAIRS else ""
    return (
        f"On the front of accuracy and training throughput with a probability of {100 * LIKELY:.0f} % or more: "
        f"{', '.join(likely) or 'none'}. "
        + (
            f"Both faster and more accurate: {', '.join(pairs)}{more}."
            if pairs
            else "No arm is shown to dominate another."
        )
    )


def _verdicts(rows: pd.DataFrame, words: dict[str, str]) -> str:
    """List what was decided and what is open, the largest effects first, the closest to nought for equivalence."""
    parts = []
    for verdict, text in words.items():
        chosen = rows[rows["verdict"] == verdict].sort_values("effect", key=abs, ascending=verdict == "equivalent")
        if len(chosen):
            parts.append(f"{text}: {', '.join(_named(row) for _, row in chosen.iterrows())}")
    undecided = rows[rows["verdict"] == "undecided"]
    if len(undecided):
        named = (f"{row['name']} ({row['effect']:+.1f}; {open_question(row)})" for _, row in undecided.iterrows())
        parts.append(f"undecided: {', '.join(named)}")
    return "; ".join(parts)


def _named(row: pd.Series) -> str:
    return f"{row['name']} ({row['effect']:+.1f} [{row['effect_low']:+.1f} … {row['effect_high']:+.1f}])"
