"""The probabilities of a classification, and how far such numbers were right on test data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bin:
    """Answers of about the same probability on test data.

    Parameters
    ----------
    n : int
        How many.
    promised : float
        Their mean probability.
    true : float
        Share of them in which the class was there.
    """

    n: int
    promised: float
    true: float


@dataclass(frozen=True)
class Bar:
    """One class: its probability, and the bin of test answers that it falls into."""

    name: str
    probability: float
    known: Bin | None = None


@dataclass(frozen=True)
class Scores:
    """A classification's bars, the likeliest first.

    Parameters
    ----------
    bars : tuple of Bar
    calibration_error : float or None
        Mean difference of promised and true on test data, weighted.
    task : str
        Of the bundle, for the title.
    """

    bars: tuple[Bar, ...] = ()
    calibration_error: float | None = None
    title: str = ""

    def words(self) -> str:
        """What the likeliest class's probability was worth on test data.

        Examples
        --------
        >>> scores_of({"a": 0.86, "b": 0.14}, {"test": {"curve": [{"n": 36, "promised": 0.86, "true": 0.75}]}}).words()
        'On test data, of 36 answers of about 86%, 75% were right.'
        """
        if not self.bars:
            return ""
        known = self.bars[0].known
        if known is None:
            return "How often such answers are right was not measured for this model."
        return f"On test data, of {known.n} answers of about {known.promised:.0%}, {known.true:.0%} were right."


def scores_of(scores: Mapping[str, float], metrics: Mapping[str, Any] | None = None, title: str = "") -> Scores:
    """Bars of a classification.

    Parameters
    ----------
    scores : mapping of str to float
        Probability of each class.
    metrics : mapping, optional
        The bundle's: `["test"]["curve"]` is its reliability curve, a list of `{"n", "promised", "true"}`.
    title : str
    """
    test = (metrics or {}).get("test", {})
    curve = bins_of(test.get("curve", ()) if isinstance(test, Mapping) else ())
    ranked = sorted(scores.items(), key=lambda item: -item[1])
    error = test.get("calibration_error") if isinstance(test, Mapping) else None
    return Scores(
        tuple(Bar(name, float(p), _nearest(curve, float(p))) for name, p in ranked),
        float(error) if isinstance(error, int | float) else None,
        title,
    )


def bins_of(curve: Any) -> tuple[Bin, ...]:
    """The bins of a reliability curve; what is no bin, or holds no answer, is left out."""
    bins = []
    for entry in curve if isinstance(curve, Sequence) else ():
        try:
            found = Bin(int(entry["n"]), float(entry["promised"]), float(entry["true"]))
        except (KeyError, TypeError, ValueError):
            continue
        if found.n > 0:
            bins.append(found)
    return tuple(bins)


def _nearest(bins: Sequence[Bin], probability: float) -> Bin | None:
    near = min(bins, key=lambda b: abs(b.promised - probability), default=None)
    return near if near is not None and abs(near.promised - probability) <= 0.1 else None
