"""Numbers about label maps and images: how far two agree, what lies in a class, what an image holds along a line.

Arrays and millimetres in, plain dataclasses out; nothing here knows a window. The command `napari-mamba measure` and
the napari widgets call the same functions.
"""

from napari_mamba.measure.agreement import Agreement, label_agreement
from napari_mamba.measure.classes import ClassStatistics, class_statistics
from napari_mamba.measure.grids import onto_grid, same_grid
from napari_mamba.measure.images import ImageAgreement, image_agreement
from napari_mamba.measure.names import numbered_alike
from napari_mamba.measure.places import Place, uncertain_places
from napari_mamba.measure.profile import Profile, line_profile

__all__ = [
    "Agreement",
    "ClassStatistics",
    "ImageAgreement",
    "Place",
    "Profile",
    "class_statistics",
    "image_agreement",
    "label_agreement",
    "line_profile",
    "numbered_alike",
    "onto_grid",
    "same_grid",
    "uncertain_places",
]
