"""Pictures and surfaces for a paper or a printer: meshes of classes, slices with scale bar, letters and legend."""

from napari_mamba.figures.mesh_files import write_surfaces
from napari_mamba.figures.slice_figure import SlicePicture, scale_bar_length, write_figure
from napari_mamba.figures.surfaces import Surface, class_surface

__all__ = [
    "SlicePicture",
    "Surface",
    "class_surface",
    "scale_bar_length",
    "write_figure",
    "write_surfaces",
]
