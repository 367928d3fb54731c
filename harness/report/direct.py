"""Label lines and points directly, so that no label overlaps another or leaves the figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.optimize
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

LABEL_SIZE = 8.5
"""Font size of direct labels in points."""

_GAP = 1.12  # distance of neighbouring labels in heights of a label
_LEADER: dict[str, Any] = {"arrowstyle": "-", "linewidth": 0.8, "linestyle": ":", "shrinkA": 0.0, "shrinkB": 3.0}
_CLEAR = 7.0  # points between a label and a marker that it should not touch


@dataclass(frozen=True)
class Named:
    """A point of a figure and the label that it should have.

    Attributes:
        x, y: its position in the units of the axes.
        name: text of the label.
        colour: colour of the label.
    """

    x: float
    y: float
    name: str
    colour: str


def settle(figure: Figure, names: Sequence[str] = ()) -> None:
    """Arrange a figure, with room for labels on the right, and keep the arrangement.

    Call it after the title and the axes are complete, and before labels are placed.

    Args:
        figure: figure with constrained layout.
        names: labels that stand to the right of the axes.
    """
    engine: Any = figure.get_layout_engine()
    if names:
        figure.draw_without_rendering()
        probe = figure.text(0, 0, "", fontsize=LABEL_SIZE)
        widths = []
        for name in names:
            probe.set_text(name)
            widths.append(probe.get_window_extent().width)
        probe.remove()
        room = (max(widths) + 30) / figure.bbox.width
        engine.set(rect=(0, 0, 1 - room, 1))
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def label_ends(axes: Axes, ends: Sequence[Named]) -> None:
    """Write the names of lines in a column right of the axes, each as near to the end of its line as others allow."""
    if not ends:
        return
    ends = sorted(ends, key=lambda end: (end.y, end.name))
    at = axes.transAxes.inverted().transform(axes.transData.transform([(end.x, end.y) for end in ends]))
    texts = [
        axes.text(
            1.035, y, end.name, color=_readable(end.colour), fontsize=LABEL_SIZE, va="center", transform=axes.transAxes
        )
        for end, y in zip(ends, at[:, 1], strict=True)
    ]
    height = max(label.get_window_extent().height for label in texts) * _GAP / axes.bbox.height
    for label, end, (x, y), level in zip(texts, ends, at, _spread(at[:, 1], height), strict=True):
        label.set_y(level)
        axes.annotate(
            "",
            (min(x, 1.0), y),
            (1.03, level),
            xycoords="axes fraction",
            textcoords="axes fraction",
            arrowprops={**_LEADER, "color": end.colour, "alpha": 0.8},
            annotation_clip=False,
        )


def _spread(wanted: npt.NDArray[np.float64], gap: float) -> npt.NDArray[np.float64]:
    """Return ascending levels at least `gap` apart, as close to `wanted` as possible (least squares), within 0 to 1."""
    steps = gap * np.arange(len(wanted))
    free = scipy.optimize.isotonic_regression(wanted - steps).x
    spare = 1.0 - steps[-1]
    low, high = (-0.01, spare + 0.01) if spare > 0 else (spare / 2, spare / 2)
    levels: npt.NDArray[np.float64] = np.clip(free, low, high) + steps
    return levels


def label_points(axes: Axes, points: Sequence[Named], obstacles: npt.ArrayLike = ()) -> None:
    """Write names beside points, within the axes.

    The first points choose first. A label never overlaps another; it avoids points and lines as far as it can.

    Args:
        axes: axes that are arranged (see `settle`).
        points: points with their labels.
        obstacles: centres of markers to avoid, shape (n, 2), in the units of the axes.
    """
    pixels = _pixels_in_a_point(axes)
    if not points:
        return
    marks = np.asarray([(point.x, point.y) for point in points] + [tuple(one) for one in np.asarray(obstacles)])
    avoided = axes.transData.transform(marks.astype(float))
    drawn = np.concatenate([np.empty((0, 2)), *(_along(line) for line in axes.lines)])
    inside = axes.get_window_extent()
    taken: list[Bbox] = []
    for point, centre in zip(points, avoided, strict=False):
        label = axes.annotate(
            point.name,
            (point.x, point.y),
            (0, 0),
            textcoords="offset points",
            color=_readable(point.colour),
            fontsize=LABEL_SIZE,
            arrowprops={**_LEADER, "color": point.colour, "alpha": 0.8},
        )
        box = Text.get_window_extent(label)  # without its arrow
        best: tuple[float, float, float, Bbox] | None = None
        for offsets in (_offsets(box.width, box.height, pixels), _anywhere(box, inside, centre, pixels)):
            for far, dx, dy in offsets:
                trial = Bbox.from_bounds(centre[0] + dx, centre[1] + dy, box.width, box.height)
                if not _is_within(trial, inside) or any(trial.padded(2).overlaps(other) for other in taken):
                    continue
                cost = far + 25 * _inside(trial.padded(_CLEAR * pixels), avoided) + 2 * _inside(trial, drawn)
                if best is None or cost < best[0]:
                    best = (cost, dx, dy, trial)
            if best is not None:
                break
        if best is None:  # no room at all
            label.remove()
            continue
        _, dx, dy, place = best
        label.set_position((dx / pixels, dy / pixels))
        if max(abs(dx + box.width / 2) - box.width / 2, abs(dy + box.height / 2) - box.height / 2) < 12 * pixels:
            label.arrow_patch.set_visible(False)  # type: ignore[union-attr]
        taken.append(place)


def _along(line: Line2D) -> npt.NDArray[np.float64]:
    """Return positions in pixels, 4 pixels apart, along a line as it is drawn."""
    corners = np.asarray(line.get_path().vertices, dtype=float)
    if line.get_drawstyle() == "steps-post" and len(corners) > 1:
        corners = np.repeat(corners, 2, axis=0)[:-1]
        corners[1::2, 0] = corners[2::2, 0]
    pixels = line.get_transform().transform(corners)
    found = [pixels[:1]]
    for start, end in pairwise(pixels):
        n = max(1, int(np.hypot(*(end - start)) / 4))
        found.append(start + (end - start) * np.linspace(0, 1, n + 1)[1:, None])
    return np.concatenate(found)


def _inside(box: Bbox, positions: npt.NDArray[np.float64]) -> float:
    """Return the number of positions in a box."""
    x, y = positions[:, 0], positions[:, 1]
    return float(((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)).sum())


def _readable(colour: str) -> tuple[float, float, float]:
    """Return a darker shade of a colour, for small letters on white."""
    red, green, blue = to_rgb(colour)
    return 0.7 * red, 0.7 * green, 0.7 * blue


def _pixels_in_a_point(axes: Axes) -> float:
    """Return pixels in a point."""
    figure: Any = axes.figure
    return float(figure.dpi) / 72.0


def _offsets(width: float, height: float, pixels: float) -> Iterator[tuple[float, float, float]]:
    """Return the cost and the position in pixels of the lower left corner of a label, beside its point."""
    for far in (6, 10, 16, 24, 34, 46, 60, 80, 105):
        away = far * pixels
        for extra, (x, y) in enumerate(
            [(1, 0), (0.7, 0.7), (0.7, -0.7), (-1, 0), (-0.7, 0.7), (-0.7, -0.7), (0, 1), (0, -1)]
        ):
            left = x * away - (width if x < 0 else width / 2 if x == 0 else 0)
            low = y * away - (height if y < 0 else height / 2 if y == 0 else 0)
            yield far + 0.3 * extra, left, low


def _anywhere(
    box: Bbox, inside: Bbox, centre: npt.NDArray[np.float64], pixels: float
) -> Iterator[tuple[float, float, float]]:
    """Return the same for places all over the axes, for labels that find none near their point."""
    for y in np.arange(inside.y0, inside.y1 - box.height, 1.3 * box.height):
        for x in np.arange(inside.x0, inside.x1 - box.width, 0.5 * box.width):
            dx, dy = float(x - centre[0]), float(y - centre[1])
            yield float(np.hypot(dx + box.width / 2, dy + box.height / 2)) / pixels, dx, dy


def _is_within(box: Bbox, outer: Bbox) -> bool:
    return bool(box.x0 >= outer.x0 and box.x1 <= outer.x1 and box.y0 >= outer.y0 and box.y1 <= outer.y1)
