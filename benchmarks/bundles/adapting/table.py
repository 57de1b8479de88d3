"""The rows as Markdown, each beside plain training on the same labels, with a test paired by person."""

from __future__ import annotations

from typing import Any

HEAD = ("row", "people", "Dice", "SD", "anterior", "posterior", "steps", "against", "difference", "better in", "p")
OTHER_STEPS = "other steps"
"""Stands where a p-value would: a row that took more steps may be better for that alone."""


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown; where SciPy is there, with Wilcoxon's signed-rank test over the test people."""
    lines = [f"| {' | '.join(HEAD)} |", "| --- " * len(HEAD) + "|"]
    known = {row["name"]: row for row in rows}
    for row in rows:
        numbers = [f"{row[key]:.3f}" for key in ("dice", "sd", "anterior", "posterior")]
        people = f"{row['people']}" + (f" + {row['unlabelled']}" if row["unlabelled"] else "")
        plain = known.get(reference(row, known))
        against = ["", "", "", ""] if plain is None else [plain["name"], *paired(row, plain)]
        lines.append(f"| {' | '.join([row['name'], people, *numbers, str(row['steps']), *against])} |")
    return lines


def reference(row: dict[str, Any], known: dict[str, dict[str, Any]]) -> str:
    """The row to compare with: plain training on the same labels from the same weights, else the adapted bundle.

    >>> def row(name, **options):
    ...     return {"name": name, "people": 5, "labels": "full", "unlabelled": 60 * bool(options), "options": options}
    >>> known = {name: row(name) for name in ("adapted-5", "random-5")}
    >>> reference(row("semi", scheme="cross"), known)
    'adapted-5'
    >>> reference(row("random-semi", scheme="cross", random_weights=True), known)
    'random-5'
    >>> reference(row("random-5"), known), reference(row("adapted-5"), known)
    ('adapted-5', '')
    """
    name, people = row["name"], row["people"]
    random = bool((row.get("options") or {}).get("random_weights"))
    plain = f"random-{people}" if random else f"adapted-{people}"
    if row.get("labels", "full") == "3%":
        plain = "scribbles-supervised"
    if name == plain or plain not in known:
        plain = f"adapted-{people}"
    return "" if name == plain else plain


def paired(row: dict[str, Any], plain: dict[str, Any]) -> list[str]:
    """Mean difference over the people, in how many it is positive, and its Wilcoxon p."""
    other = plain["people_tested"]
    differences = [sum(dice) / len(dice) - sum(other[p]) / len(dice) for p, dice in row["people_tested"].items()]
    better = sum(difference > 0 for difference in differences)
    shown = [f"{sum(differences) / len(differences):+.4f}", f"{better} of {len(differences)}"]
    if row["steps"] != plain["steps"]:
        return [*shown, OTHER_STEPS]
    try:
        from scipy.stats import wilcoxon
    except ImportError:
        return [*shown, ""]
    return [*shown, f"{wilcoxon(differences).pvalue:.1g}"]
