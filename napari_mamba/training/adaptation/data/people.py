"""Whose image it is, who is held out, and who may be the same person."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_mamba.errors import InputError
from napari_mamba.io.common.guard import quoted

_PARTS = re.compile(r"[_.\s-]")


@dataclass(frozen=True)
class Case:
    """One image: `image` has a path a channel, `person` is whose it is, `label` is None where there are no labels."""

    name: str
    person: str
    image: tuple[Path, ...]
    label: Path | None

    @property
    def labels(self) -> Path:
        """The labels of a case that has some."""
        assert self.label is not None, f"{self.name} has no labels"
        return self.label


def person_of(name: str) -> str:
    """Whose scan a name is of: what stands before the first separator after its first digits.

    >>> [person_of(n) for n in ("sub-01_ses-2", "patient007_frame01", "hippocampus_003", "p3-left", "anna")]
    ['sub-01', 'patient007', 'hippocampus_003', 'p3', 'anna']
    """
    found = re.match(r"[^0-9]*[0-9]+[^_.\s-]*", name)
    return found.group() if found else name


def split_people(
    cases: Sequence[Case], named: Sequence[str] = (), learnt: Collection[str] = (), share: float = 0.2
) -> tuple[list[Case], list[Case]]:
    """Cases to learn from, and those of people held out; no person is in both.

    Parameters
    ----------
    cases : sequence of Case
    named : sequence of str
        People to hold out. If empty, about `share` of them, at least one, by a checksum of their names: the same
        people every time, also where others are added.
    learnt : collection of str
        Hashes (`hashed`) of people that the bundle learnt from before: they cannot be held out.

    Raises
    ------
    InputError
        If there is only one person, a named person has no case, or nobody is left to learn from.
    """
    people = sorted({case.person for case in cases})
    if unknown := [person for person in named if person not in people]:
        shown = ", ".join(people[:5]) + (", ..." if len(people) > 5 else "")
        raise InputError(f"there is no person {quoted(unknown[0])} to validate on: the people here are {shown}")
    if len(people) < 2:
        raise InputError(
            f"all labels are of one person ({quoted(people[0])}), and a score on training data says nothing: add a "
            "second person (a CSV's column 'person' says who is who), or pass --no-validation"
        )
    if bad := [person for person in named if hashed(person) in learnt]:
        raise InputError(f"the bundle has learnt from {quoted(bad[0])}, and a score on training data says nothing: "
                         "hold out somebody else")  # fmt: skip
    if not named:
        fresh = [person for person in people if hashed(person) not in learnt]
        if not fresh:
            raise InputError(
                "the bundle has learnt from all of these people, and a score on training data says nothing: add a new "
                "person, or pass --no-validation"
            )
        count = max(1, round(share * len(people)))
        named = sorted(fresh, key=lambda person: (zlib.crc32(person.encode()), person))[:count]
    if set(named) == set(people):
        raise InputError("every person is held out for validation: leave some to learn from")
    return [c for c in cases if c.person not in named], [c for c in cases if c.person in named]


def doubtful_people(training: Sequence[Case], validation: Sequence[Case]) -> tuple[str, str] | None:
    """A held-out and another person who may be one: names without a number that begin alike, as not all of them do.

    Names that differ by a side alone are in doubt in any case.

    >>> cases = [Case(name, name, (), None) for name in ("anna_left", "anna_right", "ben_left", "ben_right")]
    >>> doubtful_people(cases[1:], cases[:1])
    ('anna_left', 'anna_right')
    """
    begin = {case.person: _PARTS.split(case.person)[0] for case in (*training, *validation)}
    one_set = len(set(begin.values())) < 2  # the beginning is the data set's name
    for one in validation:
        for other in training:
            named = one.person != person_of(one.name) or other.person != person_of(other.name)
            if named or re.search(r"\d", one.person + other.person):
                continue
            alike = begin[one.person] == begin[other.person] and not one_set
            if alike or _without_side(one.person) == _without_side(other.person):
                return one.person, other.person
    return None


def _without_side(name: str) -> list[str]:
    return [part for part in _PARTS.split(name.lower()) if part not in ("left", "right", "l", "r", "lh", "rh")]


def hashed(person: str) -> str:
    """What a bundle says of a person it learnt from, so that nobody takes them for new; their name stays at home."""
    return hashlib.sha256(b"napari-mamba " + person.encode()).hexdigest()[:16]
