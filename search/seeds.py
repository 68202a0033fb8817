"""Which further seeds an adaptive study runs: those that decide the most for their time."""

import pandas as pd

from search.analysis.effects import effects, planned_looks
from search.study import AdaptiveSeeds


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
