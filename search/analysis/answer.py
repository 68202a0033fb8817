"""The answer to a study's question, in plain words: what the intervals show, and nothing beyond them."""

import numpy as np
import pandas as pd

from search.analysis.dominance import dominations, noisy_front
from search.analysis.effects import effects
from search.analysis.factorial import is_factorial, steps
from search.analysis.findings import nearest_feasible, savings
from search.analysis.fronts import front, scored
from search.analysis.once import unchanged
from search.analysis.scores import accuracy_column
from search.analysis.tables import open_question

LIKELY = 0.9  # probability from which an arm is named as being on the front
MOST_PAIRS = 4


@unchanged()
def answer(frame: pd.DataFrame) -> str:
    """Say in a paragraph what is known of the study's question."""
    if frame.attrs["definition"].get("kind") == "search":
        return _of_search(frame)
    if not (frame["state"] == "COMPLETE").any():
        return "No trial is complete yet."
    if accuracy_column(frame) is None:
        return "Counts and measured throughput only: this study trains nothing."
    failed = int((frame["state"] == "FAIL").sum())
    left_out = f"{failed} failed trial{'s are' if failed > 1 else ' is'} left out." if failed else ""
    told = [_of_factors(frame)] if is_factorial(frame) else [_of_arms(frame), _of_front(frame)]
    return " ".join(part for part in (*told, left_out) if part)


def _of_search(frame: pd.DataFrame) -> str:
    done, best, noisy = scored(frame), front(frame), noisy_front(frame)
    if (near := nearest_feasible(frame)) is not None:
        return f"No candidate keeps the constraints. The nearest is {near['arm']}: {near['stopped_text']}."
    if done.empty:
        return "No trial is complete yet."
    text = (
        f"{len(best)} of {len(done)} architectures that were trained to the end are on the front: validation accuracy "
        f"from {best['accuracy'].min():.1f} to {best['accuracy'].max():.1f} % at "
        f"{best['train_ratio'].max():.2f} down to {best['train_ratio'].min():.2f} times the base's training speed. "
        f"{_choices(best)} "
    )
    several = done["seeds"].max() > 1
    if noisy is not None:
        sure = [name for name, share in noisy.on_front.items() if share >= LIKELY]
        of_what = "the noise between seeds, of" if several else "the noise of"
        text += (
            f"Given {of_what} the validation images and of throughput, {', '.join(sure) or 'none'} "
            f"{'is' if len(sure) < 2 else 'are'} on it with a probability of {100 * LIKELY:.0f} % or more. "
        )
    if not several:
        text += (
            "Each was trained once, and what another seed would do is not known: neighbours on the front may trade "
            "places. "
        )
    return text + _saved(frame)


def _choices(best: pd.DataFrame) -> str:
    """Say which architecture to use: where speed does not matter, at the base's speed, and half-way to the fastest."""
    fastest = float(best["train_ratio"].max())
    told: dict[str, str] = {}
    for speed in sorted({0.0, 1.0, round((1 + fastest) / 2, 2)}):
        fast = best[best["train_ratio"] >= speed]
        if len(fast):
            chosen = fast.iloc[int(np.argmax(fast["accuracy"].to_numpy(dtype=float)))]
            where = f"at {speed:g} times the base's speed or more" if speed else "where speed does not matter"
            told[f"{chosen['arm']} ({chosen['accuracy']:.1f} %)"] = where
    return f"To be used: {'; '.join(f'{where}, {chosen}' for chosen, where in told.items())}."


def _saved(frame: pd.DataFrame) -> str:
    found = savings(frame)
    if found is None:
        return ""
    given_up = ", ".join(f"{count} {why}" for why, count in found.given_up.items()) or "none"
    text = f"Not trained, or not to the end: {given_up}; that saved {found.share:.0%} of the training. "
    if not found.audited:
        return f"{text}None of those to be given up was trained on, so what was missed is not known."
    return (
        f"{text}Of {found.audited} to be given up that were trained on, {found.missed} "
        f"{'is' if found.missed == 1 else 'are'} on the front "
        f"(a share of {found.missed_low:.0%} to {found.missed_high:.0%} of all such, 95 % interval); without them the "
        f"front's hypervolume would be {found.regret:.2%} less."
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
        named = (f"{row['name']} ({_so_far(row)}{open_question(row)})" for _, row in undecided.iterrows())
        parts.append(f"undecided: {', '.join(named)}")
    return "; ".join(parts)


def _so_far(row: pd.Series) -> str:
    return f"{row['effect']:+.1f}; " if pd.notna(row["effect"]) else ""  # while its first trial is to come


def _named(row: pd.Series) -> str:
    return f"{row['name']} ({row['effect']:+.1f} [{row['effect_low']:+.1f} … {row['effect_high']:+.1f}])"
