"""Surfaces as files: STL, OBJ and PLY."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_mamba.errors import InputError, OutputError
from napari_mamba.figures.surfaces import Surface

FORMATS = (".stl", ".obj", ".ply")
SPACE = "SPACE=LPS"
"""3D Slicer's own mark in the file's header; it is how Slicer and ITK write meshes, too."""


def write_surfaces(surfaces: Sequence[Surface], path: str | Path) -> list[Path]:
    """Write surfaces; several go into one file each, with the class's name in it.

    Coordinates are millimetres in LPS, as 3D Slicer and most other programs expect of meshes, and the header says so.
    PLY and OBJ carry the colour, STL has no place for one.

    Parameters
    ----------
    surfaces : sequence of Surface
    path : str or Path
        Ends in .stl, .obj or .ply. With several surfaces "liver.stl" becomes "liver_NAME.stl".

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    InputError
        If there is no surface, or the ending is another.
    OutputError
        If a file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError(f"a surface is saved as STL, OBJ or PLY: end the name in one of {', '.join(FORMATS)}")
    if not surfaces:
        raise InputError("no class is chosen: choose one that has voxels")
    written = []
    used: set[str] = set()
    for surface in surfaces:
        name = re.sub(r"[^\w.-]+", "_", surface.name).strip("._") or "class"
        while name.lower() in used:  # "a/b" and "a b" become one name
            name += "_"
        used.add(name.lower())
        target = path if len(surfaces) == 1 else path.with_name(f"{path.stem}_{name}{path.suffix}")
        try:
            target.write_bytes(encode(surface, suffix))
        except OSError as error:
            raise OutputError(f"cannot be written ({error.strerror}): {target}") from error
        written.append(target)
    return written


def encode(surface: Surface, suffix: str) -> bytes:
    """A surface as the bytes of a file of that ending."""
    import trimesh
    from trimesh.exchange import obj, ply, stl

    color = [int(surface.color[i : i + 2], 16) for i in (1, 3, 5)] + [255]
    vertices = surface.vertices * np.array([-1.0, -1.0, 1.0])  # RAS to LPS: a rotation, so the triangles stay right
    mesh = trimesh.Trimesh(vertices, surface.faces, process=False, vertex_colors=color)
    if suffix == ".stl":
        data = stl.export_stl(mesh)
        return f"{SPACE} {surface.name}".encode("ascii", "replace")[:80].ljust(80) + data[80:]
    if suffix == ".obj":
        return obj.export_obj(mesh, header=SPACE).encode()
    data = ply.export_ply(mesh)
    first, rest = data.split(b"\n", 2)[:2], data.split(b"\n", 2)[2]
    return b"\n".join([*first, f"comment {SPACE}".encode(), rest])
