"""What every shipped bundle says, before a run, of scans that no fitting saw: a person, a macaque, a head CT, atlases.

    apt-get download mricron-data invesalius-examples   # and unpack both into DIR: dpkg-deb -x FILE DIR
    python -m benchmarks.bundles.doubt.outside --packages DIR --data DATA [--each] [--run hippocampus-mr]

`mricron-data` has the Colin 27 head (T1, whole, and with the skull stripped), the INIA19 macaque and label maps of
both; `invesalius-examples` a CT of a head. DATA is the folder of training data, whose label maps and masks are given as
if they were scans. Each image is looked at as it is and changed (`CHANGES`), and by `engine.suitability.examine`, as a
window does it: refused and doubted count alike, advice ("there is little to restore") does not. `--run` runs a bundle
and counts what the run says, too. What matters to no voxel's neighbours does not count against the restoring bundles.
"""

from __future__ import annotations

import argparse
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.bundles.doubt.bundles import HARMLESS, KINDS
from benchmarks.bundles.doubt.kinds.heads import cut, shading, thickened
from benchmarks.bundles.doubt.kinds.hippocampi import MNI
from benchmarks.bundles.doubt.kinds.images import (
    CHANGES,
    LARGE,
    ON_ITS_SIDE,
    SMALL,
    WINDOWS,
    changed,
    crop,
    windowed,
)
from napari_mamba import bundles, io
from napari_mamba.bundles import Bundle
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.checks import value_warnings
from napari_mamba.engine.familiarity.judge import judge_image, unfamiliar
from napari_mamba.engine.locating import is_located
from napari_mamba.engine.suitability import examine
from napari_mamba.errors import NapariMambaError
from napari_mamba.volume import Volume

TEMPLATES = "usr/share/mricron/templates"
CRANIUM = "usr/share/doc/invesalius-examples/examples/Cranium.inv3"
CRANIUM_SHAPE, CRANIUM_MM = (108, 256, 256), (1.5, 0.957, 0.957)
HEADS = ("brain-structures-mr", "brain-register-mr", "mr-quality")
RESTORING = ("mr-denoise", "mr-superres")
VARIED = 8


@dataclass(frozen=True)
class Given:
    """An image, of which bundles it is right (`right`), and for which it is not asked (`left_out`)."""

    kind: str
    make: Callable[[], Volume]
    right: tuple[str, ...] = ()
    left_out: tuple[str, ...] = field(default=())


def given(packages: Path, data: Path) -> Iterator[Given]:
    """All images."""
    templates = packages / TEMPLATES
    for name in ("ch2", "ch2bet", "ch2better"):
        yield from _of_a_head(templates / f"{name}.nii.gz", "stripped" if name != "ch2" else "whole")
    macaque, ct = (lambda: io.read(templates / "inia19-t1-brain.nii.gz")), (lambda: cranium(packages / CRANIUM))
    yield Given("a macaque's brain", macaque)
    for how in ("upside down", "inverted", "half of it"):
        yield Given("a macaque's brain, changed", lambda how=how: changed(macaque(), how))
    yield Given("a head, CT", ct)
    for window in WINDOWS:
        yield Given("a head, CT in a window", lambda window=window: windowed(ct(), window))
        yield Given("a head, CT in a window", lambda window=window: _brain_of(windowed(ct(), window)))
    for name in ("aal", "JHU-WhiteMatter-labels-1mm", "inia19-NeuroMaps"):
        yield Given("labels as an image", lambda name=name: io.read(templates / f"{name}.nii.gz"))
    for path in ("brain_label_maps/training_seg_18.nii.gz", "spine_mr/t2_seg-manual.nii.gz"):
        yield Given("labels as an image", lambda path=path: io.read(data / path), (), ("adrenal-shape",))


def _of_a_head(path: Path, what: str) -> Iterator[Given]:
    """A head as it is, varied, and changed; its hippocampi in boxes, and boxes elsewhere in it."""
    right = (*HEADS, *RESTORING)
    yield Given(f"right: a head, {what}", lambda: scan(path), right)
    for number in range(VARIED):
        yield Given(f"right: a head, {what}, varied", lambda number=number: vary(scan(path), number), right)
    for how in (*CHANGES, ON_ITS_SIDE, SMALL, LARGE):
        harmless = RESTORING if how in HARMLESS else ()
        yield Given(f"a head, {how}", lambda how=how: changed(scan(path), how), (), harmless)
    for side, middle in enumerate(MNI):
        for number in range(4):
            box = lambda middle=middle, seed=10 * side + number: around(scan(path), middle, seed)  # noqa: E731
            yield Given("right: a box at a hippocampus", box, ("hippocampus-mr",), (*HEADS, *RESTORING))
            how = tuple(CHANGES)[(number + 3 * side) % len(CHANGES)]
            yield Given(
                f"a box at a hippocampus, {how}", lambda box=box, how=how: changed(box(), how), (), (*HEADS, *RESTORING)
            )
    for number in range(12):
        elsewhere = lambda number=number: _elsewhere(scan(path), number)  # noqa: E731
        yield Given("a box elsewhere in a head", elsewhere, (), (*HEADS, *RESTORING))


@cache
def scan(path: Path) -> Volume:
    """A scan, kept."""
    return io.read(path)


@cache
def cranium(path: Path) -> Volume:
    """The CT that InVesalius' example project holds: its voxels are the archive's matrix.dat."""
    with tarfile.open(path) as archive:
        member = next(one for one in archive.getmembers() if one.name.endswith("matrix.dat"))
        stored = archive.extractfile(member)
        assert stored is not None
        values = np.frombuffer(stored.read(), np.int16).reshape(CRANIUM_SHAPE)
    affine = np.zeros((4, 4))
    affine[[2, 1, 0, 3], [0, 1, 2, 3]] = (CRANIUM_MM[0], -CRANIUM_MM[1], -CRANIUM_MM[2], 1)
    return Volume(values[None], affine, name="Cranium")


def _brain_of(volume: Volume) -> Volume:
    """What lies above the base of the skull, with little air about it."""
    size = np.array(volume.shape)
    return crop(volume, size * [0.6, 0.5, 0.5], size * volume.spacing * [0.7, 0.85, 0.75])


def vary(volume: Volume, number: int) -> Volume:
    """A scan as scanners and fields of view differ: cut, shaded, of another contrast, noisy, in thick slices."""
    random = np.random.default_rng([number, *volume.name.encode()])
    made = cut(volume, random)
    values = np.asarray(made.data[0], np.float32)
    values = values * shading(values.shape, random) / np.percentile(values, 99.5)
    values = np.clip(values, 0, None) ** np.exp(random.normal(0, 0.2))
    noise = random.uniform(0, 0.06) * random.standard_normal((2, *values.shape))
    made = made.with_data(np.hypot(values + noise[0], noise[1])[None].astype(np.float32))
    return thickened(made, random) if number % 2 else made


def around(head: Volume, middle: np.ndarray, seed: int) -> Volume:
    """A box about a hippocampus of a head in MNI space."""
    random = np.random.default_rng(seed)
    place = np.linalg.solve(head.affine[:3, :3], middle + random.uniform(-3, 3, 3) - head.affine[:3, 3])
    return crop(head, place, np.array([random.uniform(30, 50), random.uniform(46, 66), random.uniform(32, 50)]))


def _elsewhere(head: Volume, number: int) -> Volume:
    random = np.random.default_rng(number)
    while True:
        place = np.array(head.shape) * random.uniform(0.25, 0.75, 3)
        world = head.affine[:3, :3] @ place + head.affine[:3, 3]
        made = crop(head, place, np.array([36.0, 50.0, 36.0]) * random.uniform(0.85, 1.2, 3))
        if np.linalg.norm(MNI - world, axis=1).min() > 30 and np.asarray(made.data).std() > 0:
            return made


ADVICE = ("little to restore", "voxels, much less than")
"""What sentences have that doubt nothing about the image's kind."""


def said(volume: Volume, bundle: Bundle, run: bool = False) -> list[str]:
    """What is refused or doubted; of a bundle of several images the first is looked at, as a run does it."""
    first = bundle.channels[0]
    try:
        if len(bundle.channels) > 1:
            words = value_warnings(np.asarray(volume.data[0]), first.name, first.modality, bundle)
            words = words + unfamiliar(judge_image(volume, bundle), bundle.name)
        elif run:
            words = run_to_end(volume, bundle, RunOptions(device="cpu")).warnings
        else:
            found = examine(volume, bundle)
            if found.refusals:
                return list(found.refusals)
            words = list(found.warnings)
    except NapariMambaError as error:
        return [str(error)]
    return [one for one in words if not any(advice in one for advice in ADVICE)]


def main() -> None:
    """A line each kind: of how many images each bundle says something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", choices=tuple(KINDS), help="this bundle alone, and by its runs")
    parser.add_argument("--each", action="store_true", help="print each image that is answered wrongly")
    asked = parser.parse_args()
    names = (asked.run,) if asked.run else (*KINDS, "brain-register-mr")
    known = {name: bundles.kept(bundles.load(name)) for name in names}
    counts: dict[str, dict[str, list[bool]]] = {}
    for number, one in enumerate(given(asked.packages, asked.data)):
        volume = one.make()
        for name, bundle in known.items():
            if (
                name in one.left_out
                or (is_located(volume, bundle) and not asked.run)
                or (one.kind.startswith("right") and name not in one.right)
            ):
                continue  # a whole head has its hippocampi found first: only a run tells
            words = said(volume, bundle, bool(asked.run))
            counts.setdefault(one.kind, {}).setdefault(name, []).append(bool(words))
            if asked.each and bool(words) == (name in one.right):
                print(f"{number} {one.kind}: {name} {words}", flush=True)
    print(table(counts, list(known)))


def table(counts: Mapping[str, Mapping[str, list[bool]]], names: list[str]) -> str:
    """Images doubted of those looked at; Markdown."""
    lines = [f"| images | {' | '.join(names)} |", f"|{' --- |' * (len(names) + 1)}"]
    for kind in sorted(counts, key=lambda kind: (not kind.startswith("right"), kind)):
        cells = [_of(counts[kind].get(name, [])) for name in names]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    for title, right in (("all right images", True), ("all other images", False)):
        sums = {name: [d for kind, row in counts.items() if kind.startswith("right") == right
                       for d in row.get(name, [])] for name in names}  # fmt: skip
        lines.append(f"| {title} | {' | '.join(_of(sums[name]) for name in names)} |")
    return "\n".join(lines)


def _of(doubted: list[bool]) -> str:
    return f"{sum(doubted)} of {len(doubted)}" if doubted else ""


if __name__ == "__main__":
    main()
