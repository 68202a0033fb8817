"""Which further seeds are run: those that decide the most for their time, and those of a search's front."""

import pandas as pd

from search.analysis.dominance import noisy_front
from search.analysis.effects import effects, planned_looks
from search.study import AdaptiveSeeds

NEAR = 0.05  # probability of being on the front from which an architecture counts as near it


def at_front(seeds: int, frame: pd.DataFrame) -> list[tuple[str, int]]:
    """Return the next trials of a search whose candidates are all done, as fingerprints and seeds.

    Who is near the front gets another seed, up to so many, lest the front be that of the luckiest draws.
    """
    noisy = noisy_front(frame)
    if noisy is None:
        return []
    near = frame[frame["arm"].map(lambda arm: noisy.on_front.get(arm, 0.0)) >= NEAR]
    last = near.groupby("fingerprint", sort=False)["seed"].max()
    return [(str(fingerprint), int(seed) + 1) for fingerprint, seed in last.items() if seed + 1 < seeds]


def more(seeds: AdaptiveSeeds, frame: pd.DataFrame) -> list[tuple[str, int]]:
    """Return the next trials of an adaptive study, as arms and seeds; none when it is over.

    `frame` has the study's trials, all of them finished. The open arm that is expected to be decided soonest comes
    first, and goes to its next look; the baseline is taken along to the same seeds.
    """
    table = effects(frame)
    if "verdict" not in table.columns:
        return []
    beyond = frame[frame["seed"] >= seeds.min]
    if pd.to_numeric(beyond["seconds_total"]).sum() >= seeds.budget:
        return []
    planned = frame.groupby("arm")["seed"].nunique()
    baseline = frame.loc[frame["baseline"], "arm"].iloc[0]
    best: tuple[float, str, int] | None = None
    for _, row in table[~table["baseline"] & (table["verdict"] == "undecided")].iterrows():
        arm, have = row["arm"], int(planned[row["arm"]])
        ahead = [count for count in planned_looks(seeds.model_dump()) if count > have]
        if not ahead:
            continue
        # What cannot be foreseen, or not within the maximum, comes last.
        needed = row["seeds_needed"] if pd.notna(row["seeds_needed"]) else 100 * seeds.max
        cost = float(max(1, needed - have) * (row["seconds"] if pd.notna(row["seconds"]) else 1.0))
        if best is None or cost < best[0]:
            best = (cost, arm, ahead[0])
    if best is None:
        return []
    _, arm, until = best
    return [
        (name, seed) for seed in range(int(planned.min()), until) for name in (baseline, arm) if seed >= planned[name]
    ]
