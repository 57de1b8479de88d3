"""A row of the table: what is measured, and what it should reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

LOWER, HIGHER = "lower", "higher"


@dataclass
class Found:
    """What a row's measurement gave.

    Parameters
    ----------
    value : float, optional
        In the row's unit; None where what it is measured against is not there.
    details : dict
        What else was seen, as JSON can hold it.
    note : str
        What a reader of the number has to know.
    """

    value: float | None
    details: dict[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Parameters
    ----------
    key : str
        Its name in the results and for `--only`.
    part : str
        "runs", "scan", "autograd" or "networks".
    what : str
    unit : str
        "s", "ms", "times" (the peer's time over ours) or "%".
    goal : float, optional
        None: a number beside others, without a goal of its own.
    better : {"lower", "higher"}
    measure : callable
        Gives a `Found`; called with the device's name.
    """

    key: str
    part: str
    what: str
    unit: str
    goal: float | None
    better: str
    measure: Callable[[str], Found]

    def reached(self, value: float | None) -> bool | None:
        """Whether a value reaches the goal; None where there is nothing to compare.

        Examples
        --------
        >>> row = Row("a", "runs", "a run", "s", 0.5, LOWER, lambda device: Found(None))
        >>> row.reached(0.4), row.reached(0.6), row.reached(None)
        (True, False, None)
        """
        if value is None or self.goal is None:
            return None
        return value <= self.goal if self.better == LOWER else value >= self.goal

    @property
    def aim(self) -> str:
        """The goal as it is written in the table."""
        if self.goal is None:
            return ""
        return f"{'≤' if self.better == LOWER else '≥'} {self.goal:g}"
