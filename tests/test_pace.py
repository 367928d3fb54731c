"""The time left is forecast, and corrected by the cells that have run."""

from __future__ import annotations

import pytest

from harness.schedule.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_slow_machine_is_noticed_within_its_first_long_cell() -> None:
    """Forecasts by arithmetic are four times too low: 12 cells of 40 s that are thought to take 10 s."""
    clock = Clock()
    pace = Pace(now=clock)
    assert pace.seconds_left(0.0, 120.0) is None  # nothing has run, so nobody knows
    pace.begins("0", 10.0, is_measured=False)
    clock.seconds = 8.0
    pace.goes_on("0", 0.2)
    left = pace.seconds_left(0.0, 110.0)
    true = 472.0
    assert left == pytest.approx(32.0 + 110 * (40 + 10) / (10 + 10))  # the running cell's rest is exact
    assert left == pytest.approx(true, rel=0.4)
    clock.seconds = 40.0
    pace.ends("0")
    for cell in range(1, 5):
        pace.begins(str(cell), 10.0, is_measured=False)
        clock.seconds += 40.0
        pace.ends(str(cell))
    assert pace.seconds_left(0.0, 70.0) == pytest.approx(7 * 40.0, rel=0.15)


def test_measured_forecasts_are_believed_at_once_and_have_a_ratio_of_their_own() -> None:
    clock = Clock()
    pace = Pace(now=clock)
    assert pace.seconds_left(300.0, 20.0) == 320.0
    pace.begins("0", 10.0, is_measured=False)
    clock.seconds = 90.0
    pace.ends("0")
    assert pace.seconds_left(300.0, 0.0) == 300.0  # the arithmetic was wrong, not the measurements
    pace.begins("1", 30.0, is_measured=True)
    clock.seconds += 60.0
    pace.ends("1")
    assert pace.seconds_left(300.0, 0.0) == pytest.approx(300 * 70 / 40)


def test_cells_side_by_side_share_the_time_but_the_longest_counts() -> None:
    clock = Clock()
    pace = Pace(n_at_a_time=4, now=clock)
    assert pace.seconds_left(400.0, 0.0) == 100.0
    pace.begins("long", 300.0, is_measured=True)
    assert pace.seconds_left(40.0, 0.0) == 300.0
    clock.seconds = 400.0
    assert pace.seconds_left(0.0, 0.0) == 0.0  # it is late, which is not less than nothing
