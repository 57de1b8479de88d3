"""Planning CTs of the head and neck, and other scans in their place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.bundles.doubt.kinds.images import (
    CHANGES,
    CHOOSE,
    FIT,
    TEST,
    Example,
    at_one_mm,
    changed,
    read,
    whole_scans,
)
from napari_mamba.volume import Volume

OTHER = ("abdomen, CT", "abdomen, MR", "thigh, MR", "a whole head, T1", "a whole head, T2 or FLAIR", "spine, MR")


def examples(data: Path) -> Iterator[Example]:
    """CTs of OpenKBP: 66 patients fit, 34 choose the limits, 33 test; each changed too."""
    from napari_mamba.recipes.dose.data import patients

    for people in ("training", "validation"):
        for number, folder in enumerate(patients(data / "headneck_rt", people)):
            part = TEST if people == "validation" else CHOOSE if number % 3 == 0 else FIT

            def make(folder: Path = folder) -> Volume:
                return read(folder / "ct.nii.gz")

            name = f"{people} {folder.name}"
            yield Example(name, part, "a planning CT", True, make, False)
            for how in [*CHANGES, *CHANGES][number % len(CHANGES) :][: 2 if part == TEST else len(CHANGES)]:
                yield Example(f"{name} {how}", part, how, False, lambda m=make, h=how: changed(m(), h), False)
    for one in whole_scans(data, lambda source: not source.path.startswith("headneck")):
        yield one
        if not one.kind.startswith("a whole head"):
            yield Example(f"{one.name} 1 mm", one.part, one.kind, False, lambda m=one.make: at_one_mm(m()), False)
