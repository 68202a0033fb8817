"""Why an architecture is slow: tables and figures of where a step's time goes.

After Lavin, "On the Efficiency of Convolutional Neural Networks" (arXiv 2404.03617): the time of a network is its
MACs over the machine's peak, over its computational efficiency. The gap between the ideal time and the measured one
is drawn; so is each operator's arithmetic intensity against the machine's balance, the waterline below which it is
moving bytes, not multiplying, that takes the time.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from search.analysis.figures import GREY, INK, STYLE, new_axes
from search.analysis.fronts import front
from search.analysis.tables import NONE, number
from search.throughput.operators import Breakdown, Operator
from search.throughput.roofline import Roofline
from space.operators import family

BETWEEN = "between operators"
COLOURS = [colour for index, colour in enumerate(sns.color_palette("colorblind", 10)) if index != 7]  # 7 is grey
LOWEST = 0.05  # MACs a byte; operators without any are drawn there


def of_arms(frame: pd.DataFrame, mode: str = "train") -> tuple[Roofline, dict[str, Breakdown]] | None:
    """Return the roofline and each arm's operators, the front's for a search; None where they were not recorded.

    A search measures each candidate by itself, beside the base, and the machine drifts between: there, times are scaled
    to the base's own by the ratios.
    """
    searched = frame.attrs["definition"].get("kind") == "search"
    chosen = _timed(front(frame) if searched else frame, mode)
    if chosen.empty:
        return None
    found = {row["arm"]: Breakdown.from_dict(row["operators"][mode]) for _, row in chosen.iterrows()}
    bases = _timed(frame[frame["baseline"]], mode)
    conditions = chosen.iloc[-1] if bases.empty else bases.iloc[0]
    if searched and not bases.empty:
        base = Breakdown.from_dict(conditions["operators"][mode])
        ratios = dict(zip(chosen["arm"], chosen[f"{mode}_ratio"].astype(float), strict=True))
        seconds = base.step_seconds / base.images
        found = {arm: one.lasting(seconds * one.images / ratios[arm]) for arm, one in found.items()}
    roofline = Roofline(**conditions["operators"]["roofline"])
    return roofline, {arm: _whatever_its_size(one) for arm, one in found.items()}


def _timed(frame: pd.DataFrame, mode: str) -> pd.DataFrame:
    return frame[[mode in operators for operators in frame["operators"]]]


def _whatever_its_size(one: Breakdown) -> Breakdown:
    """Name depthwise kernels by their shape alone, so that arms that differ in size are compared."""
    return replace(one, operators=tuple(replace(part, kind=family(part.kind)) for part in one.operators))


def kinds_table(found: Mapping[str, Breakdown], roofline: Roofline) -> pd.DataFrame:
    """Return, a row an arm, the time an image and the share of it that each kind of operator takes."""
    kinds = _kinds(found)
    rows = []
    for name, one in found.items():
        parts = one.by_kind()
        cells = {
            "arm": name,
            "ms/image": number(1000 * one.step_seconds / one.images, 3),
            "efficiency": f"{one.macs / roofline.macs_per_s / one.step_seconds:.0%}",
            "MACs/byte": number(one.macs / one.bytes, 1),
        }
        for kind in kinds:
            share = parts[kind]["seconds"] / one.step_seconds if kind in parts else None
            cells[kind] = NONE if share is None else f"{share:.0%}"
        rest = sum(part["seconds"] for kind, part in parts.items() if kind not in kinds)
        cells |= {"other kinds": f"{rest / one.step_seconds:.0%}", BETWEEN: f"{max(0.0, 1 - one.accounted):.0%}"}
        rows.append(cells)
    return pd.DataFrame(rows)


def kinds_figure(found: Mapping[str, Breakdown]) -> Figure:
    """Draw each arm's step as a bar of its operators' times."""
    kinds = _kinds(found)
    palette = dict(zip(kinds, COLOURS, strict=False))
    with mpl.rc_context(STYLE):
        figure, axes = new_axes(7.6, max(2.8, 1.1 + 0.32 * len(found)))
        for y, one in enumerate(found.values()):
            parts = {kind: part["seconds"] for kind, part in one.by_kind().items()}
            rest = sum(seconds for kind, seconds in parts.items() if kind not in palette)
            lacking = max(0.0, one.step_seconds - sum(parts.values()))
            left = 0.0
            pieces = [(parts.get(kind, 0.0), palette[kind]) for kind in kinds]
            for seconds, colour in (*pieces, (rest, GREY), (lacking, "#dddddd")):
                width = 1000 * seconds / one.images
                axes.barh(y, width, left=left, color=colour, height=0.7, lw=0)
                left += width
        axes.set_yticks(range(len(found)), list(found))
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("ms an image, training step")
        handles = [Patch(color=colour, label=kind) for kind, colour in palette.items()]
        handles += [Patch(color=GREY, label="other kinds"), Patch(color="#dddddd", label=BETWEEN)]
        axes.legend(handles=handles, frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _kinds(found: Mapping[str, Breakdown]) -> list[str]:
    """Return the kinds that take the most time in any of the networks."""
    most: dict[str, float] = {}
    for one in found.values():
        for kind, part in one.by_kind().items():
            most[kind] = max(most.get(kind, 0.0), part["seconds"] / one.step_seconds)
    return sorted(most, key=lambda kind: -most[kind])[: len(COLOURS)]


def efficiency_table(found: Mapping[str, Breakdown], roofline: Roofline) -> pd.DataFrame:
    """Return, a row a model: time, counts, arithmetic intensity, efficiency, and how well the operators add up."""
    rows = []
    for name, one in found.items():
        ideal = one.macs / roofline.macs_per_s
        rows.append(
            {
                "model": name,
                "ms/image": number(1000 * one.step_seconds / one.images, 3),
                "GMACs/image": number(one.macs / one.images / 1e9, 3),
                "MiB moved/image": number(one.bytes / one.images / 2**20, 1),
                "MACs/byte": number(one.macs / one.bytes, 1),
                "efficiency": f"{ideal / one.step_seconds:.0%}",
                "of the roofline": f"{roofline.bound(one.by_kind().values()) / one.step_seconds:.0%}",
                "operators add up to": f"{one.accounted:.1%}",
            }
        )
    return pd.DataFrame(rows)


def time_table(
    found: Mapping[str, Breakdown],
    reference: str,
    roofline: Roofline,
    group: Callable[[Operator], str] = lambda one: one.kind,
) -> pd.DataFrame:
    """Return ms an image and share of the step of each group of operators, and the differences to the reference.

    For each model the share of the roofline is given as well: the least time for the group's MACs and bytes over
    its measured time. More than 100 % means that its data stayed in a cache.
    """
    parts = {name: one.grouped(group) for name, one in found.items()}
    for name, one in found.items():
        lacking = one.step_seconds * (1 - one.accounted)
        parts[name][BETWEEN] = {"seconds": lacking, "macs": 0, "bytes": 0}
    order = sorted({key for part in parts.values() for key in part}, key=lambda key: -_longest(parts, key))
    rows = []
    for key in order:
        cells = {"": key or "loss and update"}
        base = parts[reference].get(key, {"seconds": 0.0})["seconds"] / found[reference].images
        for name, one in found.items():
            part = parts[name].get(key)
            own = part["seconds"] / one.images if part is not None else 0.0
            roof = roofline.seconds(part["macs"], part["bytes"]) / part["seconds"] if part and part["seconds"] else 0
            share = own * one.images / one.step_seconds
            cells[name] = NONE if part is None else f"{1000 * own:.3f} ({share:.0%})"
            cells[f"{name}: roofline"] = NONE if key == BETWEEN or not roof else f"{roof:.0%}"
            if name != reference:
                cells[f"{name} − {reference}"] = number(1000 * (own - base), 3, sign=True)
        rows.append(cells)
    return pd.DataFrame(rows)


def _longest(parts: Mapping[str, Mapping[str, Mapping[str, float]]], key: str) -> float:
    return max(part[key]["seconds"] for part in parts.values() if key in part)


def layer_group(path: str) -> str:
    """Shorten a module's path to the stage and the part of the block: ``stages.2.blocks.*.mlp``."""
    parts = path.split(".")
    for index, part in enumerate(parts):
        if part.isdecimal() and index > 0 and parts[index - 1] not in ("stages", "layers"):
            return ".".join([*parts[:index], "*", *parts[index + 1 : index + 2]])
    return ".".join(parts[:3])


def gap_figure(
    found: Mapping[str, Breakdown], roofline: Roofline, accuracy: Mapping[str, float] | None = None
) -> Figure:
    """Draw for each model the ideal time an image, MACs over peak, and the measured one; the line is the gap."""
    with mpl.rc_context(STYLE):
        figure, axes = new_axes(6.6, 4.4 if accuracy else max(1.8, 1.1 + 0.42 * len(found)))
        for index, (name, one) in enumerate(found.items()):
            y = accuracy[name] if accuracy else index
            ideal, real = (1000 * part / one.images for part in (one.macs / roofline.macs_per_s, one.step_seconds))
            colour = COLOURS[index % len(COLOURS)]
            axes.plot([ideal, real], [y, y], color=colour, lw=2)
            axes.plot(ideal, y, "|", color=colour, ms=11, mew=2)
            axes.plot(real, y, "o", color=colour, ms=6, mec="white", mew=0.6)
            axes.annotate(
                f"{name}: {ideal / real:.0%}" if accuracy else f"{ideal / real:.0%}",
                (real, y),
                (7, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        axes.margins(x=0.15)
        axes.set_xlim(left=0)
        axes.set_xlabel("ms an image; tick: MACs over the peak, dot: measured; the percentage is the efficiency")
        if accuracy:
            axes.set_ylabel("accuracy, %")
        else:
            axes.set_yticks(range(len(found)), list(found))
            axes.set_ylim(len(found) - 0.5, -0.5)
            axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=GREY, alpha=0.25, lw=0.6)
    return figure


def waterline_figure(one: Breakdown, roofline: Roofline, name: str) -> Figure:
    """Draw the operators in the order in which they run: as wide as their time, as high as their MACs a byte."""
    kinds = list(one.by_kind())
    palette = dict(zip(kinds, COLOURS, strict=False))
    with mpl.rc_context(STYLE):
        figure, axes = new_axes(7.6, 3.8)
        widths = np.array([1000 * part.seconds / one.images for part in one.operators])
        lefts = np.concatenate([[0.0], np.cumsum(widths)[:-1]])
        heights = np.array([max(LOWEST, part.macs / max(1, part.bytes)) for part in one.operators])
        colours = [palette.get(part.kind, GREY) for part in one.operators]
        axes.bar(lefts, heights - LOWEST / 2, widths, bottom=LOWEST / 2, color=colours, align="edge", lw=0)
        axes.axhline(roofline.balance, color=INK, lw=1, ls=(0, (4, 3)))
        under = sum(part.seconds for part in one.operators if part.macs < roofline.balance * part.bytes)
        share = under / sum(part.seconds for part in one.operators)
        axes.set_title(
            f"waterline: {roofline.balance:.1f} MACs a byte; {share:.0%} of the operators' time lies below", loc="left"
        )
        axes.set_yscale("log")
        axes.set_ylim(LOWEST / 2, max(heights.max(), roofline.balance) * 3)
        axes.set_xlim(0, widths.sum())
        axes.set_xlabel(f"{name}: ms an image, operators in the order in which they run")
        axes.set_ylabel("MACs a byte")
        handles = [Patch(color=colour, label=kind) for kind, colour in palette.items()]
        handles += [Patch(color=GREY, label="other kinds")] * (len(kinds) > len(COLOURS))
        axes.legend(handles=handles, frameon=False, fontsize=7.5, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
