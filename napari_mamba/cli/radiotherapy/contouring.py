"""What `rtstruct` does."""

from __future__ import annotations

from pathlib import Path

from napari_mamba.cli.failures import quiet_libraries
from napari_mamba.errors import InputError, OutputError


def write(structures: Path, output: Path, image: Path | None, names: str, *, overwrite: bool) -> None:
    """Write the RTSTRUCT; prints its path."""
    if output.suffix.lower() != ".dcm":
        raise OutputError(f"{output} has no suffix of a DICOM file: call it .dcm")
    if output.exists() and not overwrite:
        raise OutputError(f"{output} is already there: add --overwrite to replace it, or choose another name")
    with quiet_libraries():
        from napari_mamba import io
        from napari_mamba.radiotherapy import sources
        from napari_mamba.radiotherapy.dicom.reference import read_reference
        from napari_mamba.radiotherapy.dicom.rtstruct import write_structures

        if structures.is_dir() and image is None:
            raise InputError(f"{structures} is a folder of masks: name the CT that they lie on with --image")
        grid = io.read(image or structures)
        found = sources.structures(structures, grid, names=sources.names_of(names))
        reference = read_reference(image) if image is not None and image.is_dir() else None
        print(write_structures(found, output, reference))
