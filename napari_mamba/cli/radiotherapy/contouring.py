"""What `rtstruct` does."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_mamba.cli.reporting.failures import quiet_libraries
from napari_mamba.errors import InputError, OutputError

if TYPE_CHECKING:
    from napari_mamba.radiotherapy.structures import StructureSet
    from napari_mamba.volume import Volume


def write(structures: Sequence[Path], output: Path, image: Path | None, names: str, *, overwrite: bool) -> None:
    """Write the RTSTRUCT, the label map or the masks; prints the path."""
    with quiet_libraries():
        from napari_mamba import io
        from napari_mamba.radiotherapy import sources
        from napari_mamba.radiotherapy.dicom.reference import series_of
        from napari_mamba.radiotherapy.dicom.rtstruct import write_structures

        contours = output.suffix.lower() == ".dcm"
        folder = not contours and not output.name.lower().endswith((*io.WRITE_SUFFIXES, *io.LABEL_SUFFIXES))
        if folder and output.suffix:
            raise OutputError(f"{output} has an unknown suffix: .dcm, an image's as .seg.nrrd, or none for a folder")
        if output.exists() and not overwrite:
            raise OutputError(f"{output} is already there: add --overwrite to replace it, or choose another name")
        grid, told = (sources.planning_image(image, structures), "") if image is not None else _grid_of(structures[0])
        reference = series_of(io.series_files(grid.header))
        found = sources.structures_of(structures, grid, names=sources.names_of(names), reference=reference)
        for note in filter(None, (told, *found.notes)):
            print(f"note: {note}", file=sys.stderr)
        if contours:
            print(write_structures(found, output, reference))
        elif folder:
            print(_masks(found, grid, output))
        else:
            print(_labels(found, grid, output))


def _grid_of(structures: Path) -> tuple[Volume, str]:
    """The grid of the first source, its own or that of the CT beside an RTSTRUCT; and what is to be told of it."""
    from napari_mamba import io
    from napari_mamba.radiotherapy import sources
    from napari_mamba.radiotherapy.dicom.grids import own_grid, planning_image

    if structures.is_dir():
        raise InputError(f"{structures} is a folder of masks: name the CT that they lie on with --image")
    if sources.modality(structures) == "RTSTRUCT":
        if (beside := planning_image(structures)) is not None:
            return beside, ""
        return own_grid(structures), "the whole CT does not lie beside the file: masks are on a grid of their own"
    return io.read(structures), ""


def _labels(structures: StructureSet, grid: Volume, output: Path) -> Path:
    """One label map with names and colours; raises `OutputError` where structures overlap."""
    from napari_mamba import io
    from napari_mamba.bundles.spec import default_color
    from napari_mamba.radiotherapy.labels import packed

    maps = packed(structures)
    if len(maps) > 1:
        held = ", ".join(one.name for one in maps[-1].structures.values())
        raise OutputError(
            f"the structures overlap ({held} and others), which one label map cannot hold: give a name without a "
            "suffix, for a folder of masks"
        )
    known = maps[0].structures
    classes = [io.LabelEntry(number, one.name, one.color or default_color(number)) for number, one in known.items()]
    return io.write(grid.with_data(maps[0].values[np.newaxis], ("structures",)), output, classes=classes)


def _masks(structures: StructureSet, grid: Volume, output: Path) -> Path:
    """A mask of each structure in a folder, called after it."""
    from napari_mamba import io

    output.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    for structure in structures:
        plain = stem = re.sub(r"[^\w.+-]+", "_", structure.name).strip("._") or "structure"
        while stem.lower() in taken:
            stem = f"{plain}_{len(taken)}"
        taken.add(stem.lower())
        io.write(grid.with_data(structure.mask[np.newaxis].astype(np.uint8), ("mask",)), output / f"{stem}.nii.gz")
    return output
