"""Two label maps whose files number the same classes differently, brought onto one numbering by the classes' names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from napari_mamba.volume import Volume

_SHOWN = 3


def numbered_alike(
    second: Volume, first_names: Mapping[int, str], second_names: Mapping[int, str]
) -> tuple[Volume, dict[int, str], str]:
    """The second label map with the first one's values for the classes that both name, and what was done.

    Nothing is changed unless a name stands at one value in the first map and at another in the second. A value that
    the first map has given to another class then moves to a free one.

    Parameters
    ----------
    second : Volume
        A label map.
    first_names, second_names : mapping of int to str
        What each map calls its values; empty where it has no names. Upper case and "_" for a space do not count.

    Returns
    -------
    volume : Volume
    names : dict of int to str
        Of all values now, the first map's before the second's.
    note : str
        A sentence for people where values moved, or where one value has two names; else empty.

    Examples
    --------
    >>> b = Volume(np.array([[[[0, 1, 2]]]], np.uint8))
    >>> moved, names, note = numbered_alike(b, {1: "stem", 2: "cord"}, {1: "cord", 2: "larynx"})
    >>> moved.data.ravel().tolist(), names
    ([0, 2, 3], {3: 'larynx', 2: 'cord', 1: 'stem'})
    """
    theirs = {name: value for value, name in _unique(first_names).items()}
    alike = {value: theirs[name] for value, name in _unique(second_names).items() if name in theirs}
    if all(value == new for value, new in alike.items()):
        return second, {**second_names, **first_names}, _two_names(first_names, second_names)
    data = np.asarray(second.data)
    present = {int(v) for v in np.unique(data)} | set(second_names)
    moves = alike | _freed(present - set(alike) - {0}, set(first_names) | set(alike.values()), present)
    largest = max(moves.values())
    out = data.astype(np.promote_types(data.dtype, np.min_scalar_type(largest)))
    for old, new in moves.items():
        out[data == old] = new
    names = {moves.get(value, value): name for value, name in second_names.items()} | dict(first_names)
    told = [f"{first_names[new]} is {new} in A and {old} in B" for old, new in sorted(alike.items()) if old != new]
    return (
        replace(second, data=out),
        names,
        (f"the two number their classes differently ({_some(told)}): they were matched by their names"),
    )


def _unique(names: Mapping[int, str]) -> dict[int, str]:
    """Names as they are compared, without those that several values have."""
    plain = {value: " ".join(name.replace("_", " ").casefold().split()) for value, name in names.items() if value != 0}
    counts = Counter(plain.values())
    return {value: name for value, name in plain.items() if name and counts[name] == 1}


def _freed(left: set[int], taken: set[int], present: set[int]) -> dict[int, int]:
    """New values for those of `left` that are taken, above all others."""
    above = max(taken | present) + 1
    return {old: above + number for number, old in enumerate(sorted(left & taken))}


def _two_names(first: Mapping[int, str], second: Mapping[int, str]) -> str:
    one, two = _unique(first), _unique(second)
    odd = [v for v in sorted(set(one) & set(two)) if one[v] != two[v]]
    if not odd:
        return ""
    told = [f"{v} is {first[v]} in A and {second[v]} in B" for v in odd]
    return f"values have two names ({_some(told)}): they were compared by their values"


def _some(told: list[str]) -> str:
    more = len(told) - _SHOWN
    return ", ".join(told[:_SHOWN]) + (f", and {more} more" if more > 0 else "")
