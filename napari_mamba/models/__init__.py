"""The published networks, one file each, behind one registry."""

from napari_mamba.models.identify import identify
from napari_mamba.models.registry import (
    Identification,
    ModelInfo,
    create,
    info,
    list_models,
    one_at_a_time,
    register,
    scans,
)

__all__ = [
    "Identification",
    "ModelInfo",
    "create",
    "identify",
    "info",
    "list_models",
    "one_at_a_time",
    "register",
    "scans",
]
