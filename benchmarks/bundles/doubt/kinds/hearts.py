"""Short-axis stacks of hearts, each as it is and in other fields of view, with what the network finds in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks.bundles.doubt.kinds.heads import shading
from benchmarks.bundles.doubt.kinds.images import CHANGES, CHOOSE, FIT, TEST, Example, foreign_crops, whole_scans
from napari_mamba import bundles, io
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.volume import Volume

FRAME = ((-0.6, 0.65, 0.3), (0.15, -0.45, -0.9), (-0.75, -0.65, 0.1))
"""RAS directions of the slices, from the base to the apex, and of a short-axis image's columns and rows, rounded from
the four scans here that have their true geometry; the others' nominal one comes to the same."""
STORED_TURNED = ("SC-HF-I-01", "SC-HYP-37")
"""People whose stacks are stored turned by 90 degrees under the nominal header, as their pictures show: of the wrong
kind, then. The cine scan of the first has its true geometry, and is right."""
IMAGES = 4
TURNS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    **{name: CHANGES[name] for name in ("upside down", "back to front", "turned by 90 degrees", "axes exchanged")},
    "turned by 180 degrees": lambda data: np.rot90(data, 2, (2, 3)),
    "turned by 270 degrees": lambda data: np.rot90(data, 3, (2, 3)),
    "left to right": lambda data: data[..., ::-1],
    "inverted": CHANGES["inverted"],
    "half of it": CHANGES["half of it"],
}


def examples(data: Path) -> Iterator[Example]:
    """Stacks and cine scans of the Sunnybrook data; other organs' scans, whole and in boxes of a stack's size."""
    from napari_mamba.recipes.heart import task

    people = sorted({path.name.rsplit("_", 2)[0] for path in (data / "heart_mr/stacks").glob("*_image.nii.gz")})
    parts = {who: _part(task.part(who), people.index(who)) for who in people}
    for path in sorted((data / "heart_mr/stacks").glob("*_image.nii.gz")):
        who = path.name.rsplit("_", 2)[0]
        for number in range(IMAGES):
            yield from _of(path, parts[who], number, who not in STORED_TURNED, None)
    for path in sorted((data / "heart_mr/cine").glob("*_cine.nii.gz")):
        for phase in (0, 8):
            yield from _of(path, parts[path.name.rsplit("_", 1)[0]], 0, True, phase)
    for mm in ((80, 300, 300), (80, 200, 200)):
        yield from foreign_crops(data, mm, 2, lambda *_: False)
    yield from whole_scans(data, lambda source: True)


def _part(people: str, number: int) -> str:
    if people == "test":
        return TEST
    return CHOOSE if people == "validation" or number % 4 == 0 else FIT


def _of(path: Path, part: str, number: int, right: bool, phase: int | None) -> Iterator[Example]:
    name = f"{path.name} {number if phase is None else f'phase {phase}'}"

    def both() -> np.ndarray:
        return _both(path, part != FIT, number, phase)

    kind = ("a cine, true geometry" if phase is not None else "a stack") if right else "a stack, stored turned"
    yield Example(name, part, kind, right, lambda: _volume(both()[:1], path, phase), False, lambda: both()[1])
    if right:
        for how, change in TURNS.items():

            def turned(change: Callable = change) -> np.ndarray:
                return np.ascontiguousarray(change(both()))

            make = lambda turned=turned: _volume(turned()[:1], path, phase)  # noqa: E731
            yield Example(f"{name} {how}", part, how, False, make, False, lambda turned=turned: turned()[1])


def _volume(data: np.ndarray, path: Path, phase: int | None) -> Volume:
    return Volume(data, _read(path, phase).affine, name=path.name)


@lru_cache(maxsize=2)
def _read(path: Path, phase: int | None) -> Volume:
    return io.read(path, frame=phase)


@lru_cache(maxsize=2)
def _both(path: Path, run: bool, number: int, phase: int | None) -> np.ndarray:
    """Image and cavity (2, Z, Y, X) float32: as the network finds it, or as it was drawn for the people who fit."""
    volume = _read(path, phase)
    both = np.stack([np.asarray(volume.data[0], np.float32), _cavity(path, run, phase)])
    if number == 0:
        return both
    random = np.random.default_rng([number, *path.name.encode()])
    size = np.array(volume.shape)
    share = random.uniform(0.5, 1.0)
    count = np.round(size * [random.uniform(0.75, 1.0), share, share * random.uniform(0.85, 1.0)]).astype(int)
    start = np.round((size - count) * [random.random(), *random.uniform(0.3, 0.7, 2)]).astype(int)
    both = both[(slice(None), *(slice(a, a + n) for a, n in zip(start, count, strict=True)))].copy()
    values = both[0] * shading(both.shape[1:], random)
    values = np.clip(values / np.percentile(values, 99.5), 0, None) ** np.exp(random.normal(0, 0.2))
    level = random.uniform(0, 0.06)
    noise = level * random.standard_normal((2, *values.shape))
    both[0] = np.hypot(values + noise[0], noise[1])
    return both


@lru_cache(maxsize=128)
def _cavity(path: Path, run: bool, phase: int | None) -> np.ndarray:
    if not run and phase is None:
        return np.asarray(io.read(path.with_name(path.name.replace("_image", "_label"))).data[0]) == 1
    result = run_to_end(_read(path, phase), bundles.kept(bundles.load("heart-mr")), RunOptions(device="cpu"))
    assert result.labels is not None
    return np.asarray(result.labels.data[0]) == 1
