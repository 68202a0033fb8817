"""Figures of a study. Each function returns a matplotlib Figure, or None where there is nothing to show."""

from itertools import combinations
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from search.analysis.dominance import noisy_front
from search.analysis.effects import effects
from search.analysis.factorial import is_factorial, levels, steps
from search.analysis.fronts import front, hypervolume_over_trials, importances, scored
from search.analysis.scores import accuracy_column
from search.strategy.ranking import non_dominated

INK, GREY = "#222222", "#888888"
NAMED = 16  # arms that a figure can name; of more, those on the front of the means stand out from the rest
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "svg.fonttype": "none",
    "svg.hashsalt": "workbench",
    "figure.facecolor": "white",
}


def all_figures(frame: pd.DataFrame) -> dict[str, Figure]:
    """Return every figure that the study's data allow, by name."""
    search = frame.attrs["definition"].get("kind") == "search"
    makers = {
        "accuracy_throughput": search_front if search else accuracy_throughput,
        "effects": None if search else forest,
        "interactions": interactions,
        "throughput": None if search else throughput,
        "learning_curves": learning_curves,
        "hypervolume": hypervolume_figure if search else None,
        "levels": levels_figure if search else None,
        "importances": importances_figure if search else None,
    }
    with mpl.rc_context(STYLE):
        made = {name: maker(frame) for name, maker in makers.items() if maker is not None}
    return {name: figure for name, figure in made.items() if figure is not None}


def forest(frame: pd.DataFrame) -> Figure | None:
    """Effects on accuracy, a row an arm or a step of a factor, each with its interval and the seeds behind it."""
    if accuracy_column(frame) is None:
        return None
    if is_factorial(frame):
        table = steps(frame).rename(columns={"term": "name", "kind": "colour"})
        of = "change of accuracy, percentage points"
    else:
        table = effects(frame).rename(columns={"arm": "name", "factor": "colour"})
        table = table[~table["baseline"]]
        baseline = next(iter(frame.loc[frame["baseline"], "arm"]), "the baseline")
        of = f"accuracy minus that of “{baseline}”, percentage points"
    table = table[table["effect"].notna()].reset_index(drop=True)
    if table.empty:
        return None
    colours = _colours(table["colour"])
    figure, axes = new_axes(6.6, 0.9 + 0.36 * len(table))
    for y, (_, row) in enumerate(table.iterrows()):
        colour, seeds = colours[row["colour"]], row["by_seed"]
        if np.isfinite(row["effect_low"]):
            axes.plot([row["effect_low"], row["effect_high"]], [y, y], color=colour, lw=2.4, solid_capstyle="butt")
        axes.scatter(seeds, np.full(len(seeds), y + 0.24), s=11, color=colour, alpha=0.8, lw=0, zorder=3)
        axes.scatter([row["effect"]], [y], s=42, color=colour, edgecolor="white", lw=0.8, zorder=4)
    axes.axvline(0, color=INK, lw=0.9, ls=(0, (4, 3)))
    if (margin := frame.attrs["definition"].get("margin")) is not None:
        axes.axvspan(-margin, margin, color=GREY, alpha=0.18, lw=0, zorder=0)
    for y, verdict in enumerate(table["verdict"]):
        axes.text(1.01, y, verdict, transform=axes.get_yaxis_transform(), va="center", fontsize=8, color=INK)
    axes.set_yticks(range(len(table)), table["name"])
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_xlabel(f"{of}\nbar: 95 % interval, small dots: seeds")
    axes.grid(axis="x", color=GREY, alpha=0.25, lw=0.6)
    axes.tick_params(axis="y", length=0)
    return figure


def interactions(frame: pd.DataFrame) -> Figure | None:
    """Mean accuracy over the levels of one factor, a line for each level of another; a panel a pair of factors."""
    if not is_factorial(frame) or accuracy_column(frame) is None:
        return None
    cells = levels(frame)
    table = effects(frame).set_index("arm").join(cells.add_prefix("level "))
    table = table[table["accuracy"].notna()]
    pairs = list(combinations(cells.columns, 2))
    if table.empty:
        return None
    figure = Figure(figsize=(6.6, 3.4 * len(pairs)), layout="constrained")
    for (one, other), axes in zip(pairs, figure.subplots(len(pairs), squeeze=False)[:, 0], strict=True):
        x, lines = ([str(level) for level in _listed(frame, name)] for name in (one, other))
        palette = sns.color_palette("colorblind", len(lines))
        for index, (line, colour) in enumerate(zip(lines, palette, strict=True)):
            rows = table[table[f"level {other}"] == line]
            # Over the levels of further factors the mean stands, and no interval: these differ beyond their noise.
            grouped = rows.groupby(f"level {one}").mean(numeric_only=True)
            at = [x.index(level) + 0.06 * (index - (len(lines) - 1) / 2) for level in grouped.index]
            order = np.argsort(at)
            ends = [grouped["accuracy"] - grouped["accuracy_low"], grouped["accuracy_high"] - grouped["accuracy"]]
            own = len(cells.columns) == 2
            axes.errorbar(
                np.array(at)[order],
                grouped["accuracy"].iloc[order],
                yerr=np.nan_to_num(np.array(ends)[:, order]) if own else None,
                marker="os^Dv"[index % 5],
                ls=("-", "--", "-.", ":")[index % 4],
                color=colour,
                label=f"{other} {line}",
                lw=1.5,
                ms=5,
                elinewidth=1,
            )
        axes.set_xticks(range(len(x)), x)
        axes.set_xlabel(one)
        axes.set_ylabel("accuracy, %")
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
        axes.grid(axis="y", color=GREY, alpha=0.25, lw=0.6)
    return figure


def _listed(frame: pd.DataFrame, factor: str) -> list[str]:
    """Return a factor's levels in the order in which the study lists them."""
    return [str(level) for level in frame.attrs["definition"]["factors"][factor]["levels"]]


def accuracy_throughput(frame: pd.DataFrame) -> Figure | None:
    """Mean accuracy with its interval against training throughput with its interval; the front as a line."""
    if accuracy_column(frame) is None:
        return None
    table = _means(frame)
    if table.empty:
        return None
    best = table[table["on_front"]].sort_values("train_ratio", ascending=False)
    many = len(table) > NAMED
    colours = _colours(table["factor"])
    figure, axes = new_axes(6.6, 4.4 + (0.08 * len(best) if many else 0))
    shown = table["on_front"] | table["baseline"] | (not many)
    axes.scatter(table["train_ratio"][~shown], table["accuracy"][~shown], s=14, color=GREY, alpha=0.5, lw=0)
    for _, row in table[shown].iterrows():
        colour, disturbed = colours[row["factor"]], "train: " in row["flags"]
        axes.errorbar(
            row["train_ratio"],
            row["accuracy"],
            xerr=_arms(row, "train_ratio"),
            yerr=None if np.isnan(row["accuracy_low"]) else _arms(row, "accuracy"),
            fmt="D" if row["baseline"] else "o",
            ms=7 if row["baseline"] else 5.5,
            color=colour,
            lw=1.1,
            mec=colour if disturbed else "white",
            mew=1.1 if disturbed else 0.6,
            mfc="white" if disturbed else colour,
            zorder=3,
        )
    _step(axes, best, color=GREY, lw=1, ls=":", zorder=0)
    _front_band(axes, frame)
    if many:
        numbers = pd.Series([str(number) for number in range(1, len(best) + 1)], index=best.index)
        _label_points(figure, axes, best["train_ratio"], best["accuracy"], numbers)
        names = [
            Line2D([], [], ls="", label=f"{number}  {arm}") for number, arm in zip(numbers, best["arm"], strict=True)
        ]
        figure.legend(handles=names, loc="outside lower left", ncols=2, frameon=False, fontsize=7.5, handlelength=0)
    else:
        _label_points(figure, axes, table["train_ratio"], table["accuracy"], table["arm"])
    axes.set_xlabel(
        "training throughput over the baseline's\nbars: 95 % intervals; hollow: disturbed; "
        "dotted: front of the means; shaded: its 95 % band"
    )
    axes.set_ylabel("accuracy, %")
    axes.grid(color=GREY, alpha=0.2, lw=0.6)
    axes.margins(x=0.18, y=0.1)
    return figure


def throughput(frame: pd.DataFrame) -> Figure | None:
    """Throughput over the baseline's in training and inference, with 95 % intervals; hollow where disturbed."""
    table = effects(frame).dropna(subset=["train_ratio"]).reset_index(drop=True)
    if table.empty:
        return None
    modes = [mode for mode in ("train", "infer") if table[f"{mode}_ratio"].notna().any()]
    palette = dict(zip(("train", "infer"), sns.color_palette("colorblind", 2), strict=True))
    figure, axes = new_axes(6.6, 1.0 + 0.36 * len(table))
    for index, mode in enumerate(modes):
        y = np.arange(len(table)) + (index - (len(modes) - 1) / 2) * 0.24
        axes.errorbar(
            table[f"{mode}_ratio"],
            y,
            xerr=np.column_stack([_arms(row, f"{mode}_ratio") for _, row in table.iterrows()]),
            fmt="o" if mode == "train" else "s",
            ms=5,
            color=palette[mode],
            label={"train": "training step", "infer": "inference"}[mode],
        )
        disturbed = table["flags"].str.contains(f"{mode}: ")
        axes.plot(table[f"{mode}_ratio"][disturbed], y[disturbed], "o", ms=2.5, color="white", ls="", zorder=5)
    axes.axvline(1, color=INK, lw=0.9, ls=(0, (4, 3)))
    axes.set_yticks(range(len(table)), table["arm"])
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_xlabel("throughput over the baseline's, from ratios within rounds\nbar: 95 % interval")
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    axes.grid(axis="x", color=GREY, alpha=0.25, lw=0.6)
    axes.tick_params(axis="y", length=0)
    return figure


def learning_curves(frame: pd.DataFrame) -> Figure | None:
    """Validation accuracy over epochs: mean and range over seeds an arm, or a line a trial of a search."""
    rows = [
        {"arm": row["arm"], "seed": row["seed"], **point}
        for _, row in frame[frame["state"].isin(["COMPLETE", "PRUNED"])].iterrows()
        for point in row["curves"]
    ]
    if not rows:
        return None
    curves = pd.DataFrame(rows)
    arms = list(dict.fromkeys(curves["arm"]))
    figure, axes = new_axes(6.6, 3.8)
    if frame.attrs["definition"].get("kind") == "search":
        _standing_out(axes, curves, set(front(frame)["arm"]))
        axes.set_title("every trial, as far as it was trained; those on the front in colour", loc="left")
    elif len(arms) > NAMED:
        mean = curves.groupby(["arm", "epoch"], sort=False, as_index=False)["val_accuracy"].mean()
        table = _means(frame)
        _standing_out(axes, mean.assign(seed=0), set(table.loc[table["on_front"], "arm"]))
        axes.set_title("means over seeds; those on the front of the means in colour", loc="left")
    else:
        palette = sns.color_palette("colorblind", min(10, len(arms)))
        for index, arm in enumerate(arms):
            grouped = curves[curves["arm"] == arm].groupby("epoch")["val_accuracy"]
            mean = grouped.mean()
            line = {"color": palette[index % len(palette)], "ls": ("-", "--")[index // len(palette) % 2]}
            axes.plot(mean.index, mean, lw=1.7, label=arm, **line)
            axes.fill_between(mean.index, grouped.min(), grouped.max(), color=line["color"], alpha=0.13, lw=0)
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
        axes.set_title("mean over seeds, band: lowest to highest seed", loc="left")
    axes.set_xlabel("epoch")
    axes.set_ylabel("validation accuracy, %")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=GREY, alpha=0.2, lw=0.6)
    return figure


def _standing_out(axes: Axes, curves: pd.DataFrame, chosen: set[str]) -> None:
    """Draw a line an arm and seed, those of the chosen arms in colour."""
    for (arm, _), curve in curves.groupby(["arm", "seed"], sort=False):
        colour, alpha, width = (sns.color_palette("colorblind")[3], 0.9, 1.4) if arm in chosen else (GREY, 0.35, 0.8)
        axes.plot(curve["epoch"], curve["val_accuracy"], color=colour, alpha=alpha, lw=width)


def search_front(frame: pd.DataFrame) -> Figure | None:
    """Every trial of a search, the front joined, the base marked."""
    done = scored(frame)
    if done.empty:
        return None
    best = front(frame)
    colour = sns.color_palette("colorblind")[3]
    figure, axes = new_axes(6.6, 4.4)
    _front_band(axes, frame)
    axes.scatter(done["train_ratio"], done["accuracy"], s=26, color=GREY, alpha=0.6, lw=0, label="trials")
    _step(axes, best, color=colour, lw=1.4)
    axes.scatter(best["train_ratio"], best["accuracy"], s=44, color=colour, ec="white", label="front", zorder=3)
    base = done[done["baseline"]]
    axes.scatter(
        base["train_ratio"],
        base["accuracy"],
        marker="D",
        s=60,
        fc="none",
        ec=INK,
        label="base",
        zorder=4,
    )
    _label_points(figure, axes, best["train_ratio"], best["accuracy"], best["arm"])
    axes.set_xlabel("training throughput over the base's; shaded: 95 % band of the front")
    axes.set_ylabel("validation accuracy, %")
    axes.legend(frameon=False, loc="lower left")
    axes.grid(color=GREY, alpha=0.2, lw=0.6)
    axes.margins(x=0.12, y=0.12)
    return figure


def hypervolume_figure(frame: pd.DataFrame) -> Figure | None:
    """Hypervolume of the front found so far, over trials."""
    volume = hypervolume_over_trials(frame)
    if len(volume) < 2:
        return None
    figure, axes = new_axes(6.6, 2.8)
    axes.step(range(1, len(volume) + 1), volume, where="post", color=sns.color_palette("colorblind")[0], lw=1.7)
    axes.set_xlabel("complete trials")
    axes.set_ylabel("hypervolume\n(points × throughput ratio)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=GREY, alpha=0.2, lw=0.6)
    return figure


def levels_figure(frame: pd.DataFrame) -> Figure | None:
    """How the front moves along each dimension: the front of each value by itself, over the whole one."""
    done = scored(frame)
    names = [str(name) for name in frame.columns if str(name).startswith("param.")]
    names = [name for name in names if done[name].nunique() > 1]
    if not names:
        return None
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(6.6, 0.4 + 2.5 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        _step(axes, front(frame), color=GREY, lw=4, alpha=0.35)
        values = sorted(done[name].dropna().unique())
        for colour, value in zip(sns.color_palette("viridis", len(values)), values, strict=True):
            own = done[done[name] == value]
            best = own[non_dominated(own[["accuracy", "train_ratio"]].to_numpy(dtype=float))]
            label = f"{value:g}" if isinstance(value, int | float) else str(value)
            _step(axes, best.sort_values("train_ratio"), color=colour, lw=1.4, marker="o", ms=3, label=label)
        axes.set_title(name.removeprefix("param."), loc="left")
        axes.legend(frameon=False, fontsize=7)
        axes.grid(color=GREY, alpha=0.2, lw=0.6)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    figure.supxlabel("training throughput over the base's", fontsize=9)
    figure.supylabel("validation accuracy, %", fontsize=9)
    return figure


def _step(axes: Axes, best: pd.DataFrame, **line: Any) -> None:
    """Draw a front as what it reaches: at each speed the best accuracy of those that are as fast or faster."""
    ordered = best.sort_values("train_ratio")
    axes.plot(ordered["train_ratio"], ordered["accuracy"], drawstyle="steps-pre", **line)


def importances_figure(frame: pd.DataFrame) -> Figure | None:
    """Share of each dimension in the variance of either score."""
    table = importances(frame)
    if table.empty:
        return None
    long = table.rename_axis("dimension").reset_index().melt("dimension", var_name="score", value_name="share")
    long["score"] = long["score"].map({"accuracy": "accuracy", "train_ratio": "training throughput"})
    figure, axes = new_axes(6.6, 1.0 + 0.5 * len(table))
    sns.barplot(long, y="dimension", x="share", hue="score", palette="colorblind", ax=axes)
    axes.set_xlabel("share of the variance (fANOVA)")
    axes.set_ylabel("")
    axes.legend(frameon=False, title=None)
    return figure


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of so many inches and its axes."""
    # A Figure of its own: pyplot would keep every figure alive and wants a display on some machines.
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _front_band(axes: Axes, frame: pd.DataFrame) -> None:
    """Shade where the front lies, as far as the data tell: the best accuracy at each speed or more."""
    noisy = noisy_front(frame)
    if noisy is None:
        return
    speeds = np.linspace(noisy.speed.min(), noisy.speed.max(), 400)
    low, high = noisy.band(speeds)
    axes.fill_between(speeds, low, np.fmin(high, 100), color=sns.color_palette("colorblind")[0], alpha=0.16, lw=0)


def _means(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the arms that have an accuracy and a throughput, and whether each is ``on_front`` by these."""
    table = effects(frame).dropna(subset=["accuracy", "train_ratio"]).reset_index(drop=True)
    return table.assign(on_front=non_dominated(table[["accuracy", "train_ratio"]].to_numpy(dtype=float)))


def _colours(factors: pd.Series) -> dict[str, tuple[float, float, float]]:
    names = list(dict.fromkeys(factors))
    return dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))


def _arms(row: pd.Series, name: str) -> list[list[float]]:
    """Return the lengths of an error bar to either side; none where there is no interval."""
    sides = (row[name] - row[f"{name}_low"], row[f"{name}_high"] - row[name])
    return [[float(np.fmax(0.0, side))] for side in sides]


def _label_points(figure: Figure, axes: Axes, x: pd.Series, y: pd.Series, names: pd.Series) -> None:
    """Write each name beside its point, on the side where fewer neighbours are, pushed apart where they meet."""
    figure.draw_without_rendering()
    points = axes.transData.transform(np.column_stack([x.astype(float), y.astype(float)]))
    taken: list[tuple[float, float, float, float]] = [(px - 5, py - 5, px + 5, py + 5) for px, py in points]
    scale = 72 / figure.dpi
    for (px, py), name, xy in zip(points, names, zip(x, y, strict=True), strict=True):
        width, height = 4.7 * len(name) / scale, 10 / scale
        for dx, dy in (
            (6, 8),
            (6, -8),
            (-6 - width, 8),
            (-6 - width, -8),
            (8, 0),
            (-8 - width, 0),
            (6, 18),
            (6, -18),
        ):
            box = (px + dx, py + dy - height / 2, px + dx + width, py + dy + height / 2)
            if not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken):
                break
        taken.append(box)
        axes.annotate(
            name,
            xy,
            xytext=(dx * scale, dy * scale),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            color=INK,
        )
