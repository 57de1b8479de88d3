"""What a run returns, and the table of its classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np

from napari_mamba.volume import Volume


@dataclass(frozen=True)
class ClassRow:
    """One class in a segmentation, measured on the input's own grid.

    Parameters
    ----------
    index : int
        Its value in the label map.
    name : str
        Its name.
    color : str
        "#rrggbb".
    voxels : int
        How many voxels carry it. Classes that overlap (a bundle with the activation "sigmoid") count each their own.
    ml : float
        Volume in millilitres; in thousands of voxels where the input has no spacing (`Volume.units` "pixel").
    mean_intensity : float or None
        Mean of the input's first channel over these voxels, None where there are none.
    mean_intensities : tuple of float
        The same for each channel of the input.
    code : str
        Terminology code of the class, "SCT:5366008" (SNOMED CT), or empty.
    laterality : str
        "left", "right", "both" or empty.
    """

    index: int
    name: str
    color: str
    voxels: int
    ml: float
    mean_intensity: float | None = None
    mean_intensities: tuple[float, ...] = ()
    code: str = ""
    laterality: str = ""


class Extra(dict[str, Volume]):
    """What was asked for besides, by name; names of before are those of today."""

    _BEFORE: ClassVar[dict[str, str]] = {"where": "activation_map"}

    def __init__(self, found: Mapping[str, Volume] | None = None):
        super().__init__()
        for name, volume in (found or {}).items():
            self[name] = volume

    def __setitem__(self, name: str, volume: Volume) -> None:
        super().__setitem__(self._BEFORE.get(name, name), volume)

    def __getitem__(self, name: str) -> Volume:
        return super().__getitem__(self._BEFORE.get(name, name))

    def get(self, name: str, default: Any = None) -> Any:  # type: ignore[override]
        return super().get(self._BEFORE.get(name, name), default)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(self._BEFORE.get(str(name), name))


SCANS = {
    "cuda": "CUDA kernels",
    "cpu": "compiled CPU code",
    "mamba_ssm": "mamba-ssm",
    "triton": "Triton kernels",
    "torch": "PyTorch's operators, the slow way",
}
"""Backends of the scan as people are told of them."""


@dataclass
class Result:
    """What came out of a run. Volumes lie on the input's own grid.

    Parameters
    ----------
    labels : Volume, optional
        Segmentation: one channel, uint8 or uint16, values are the classes' indices.
    image : Volume, optional
        Restoration: float32, in the input's intensity scale.
    scores : dict of str to float, optional
        Classification: probability of each class, by name, in the bundle's order.
    table : list of ClassRow
        Segmentation: one row a class except the background.
    provenance : dict
        Versions, device, options, bundle and its hash, input, times, memory, warnings. JSON can hold it.
    warnings : list of str
        Sentences about what may be wrong with this result.
    cancelled : bool
        The run was stopped before its end: there is no output.
    extra : dict of str to Volume
        What was asked for besides: "uncertainty", "probabilities", "residual", "regions",
        "activation_map". The last was once called "where", and is found under that name, too.
    """

    labels: Volume | None = None
    image: Volume | None = None
    scores: dict[str, float] | None = None
    table: list[ClassRow] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    cancelled: bool = False
    extra: dict[str, Volume] = field(default_factory=Extra)

    def __post_init__(self) -> None:
        if not isinstance(self.extra, Extra):
            self.extra = Extra(self.extra)

    @property
    def ran_on(self) -> str:
        """Hardware, precision and who scanned, for people; empty where the provenance does not say.

        Examples
        --------
        >>> Result(provenance={"device": {"name": "NVIDIA H200", "precision": "float16", "scan": "cuda"}}).ran_on
        'NVIDIA H200, float16, scan by CUDA kernels'
        """
        device = self.provenance.get("device") or {}
        scan, ssd = device.get("scan", ""), device.get("ssd", "")
        said = [device.get("name", ""), device.get("precision", ""), f"scan by {SCANS.get(scan, scan)}" if scan else ""]
        said.append(f"Mamba-2's by {'PyTorch' if ssd == 'torch' else SCANS.get(ssd, ssd)}" if ssd else "")
        return ", ".join(filter(None, said))

    def report(self) -> dict[str, Any]:
        """Table, scores, warnings and provenance as JSON can hold them, for a report file."""
        return {
            "cancelled": self.cancelled,
            "warnings": list(self.warnings),
            "scores": self.scores,
            "table": [asdict(row) for row in self.table],
            "provenance": self.provenance,
        }


def voxel_ml(volume: Volume) -> float:
    """Volume of one voxel in millilitres, from the determinant of the affine (oblique grids too)."""
    return float(abs(np.linalg.det(volume.affine[:3, :3]))) / 1000.0


def class_table(labels: np.ndarray, image: np.ndarray, classes: Iterable[Any], ml_per_voxel: float) -> list[ClassRow]:
    """Voxels, volume and mean intensity of each class but the background (index 0).

    Parameters
    ----------
    labels : ndarray, shape (Z, Y, X), unsigned integer
    image : ndarray, shape (C, Z, Y, X)
        The input the intensities are taken from.
    classes : iterable of LabelClass
        With `index`, `name` and `color`.
    ml_per_voxel : float
    """
    classes = [c for c in classes if c.index != 0]
    bins = max([int(labels.max(initial=0)), *(c.index for c in classes)], default=0) + 1
    voxels = np.zeros(bins, np.int64)
    sums = np.zeros((image.shape[0], bins))
    # Slice by slice: bincount makes a float64 copy of what it weighs. The background, most of an image, is left away.
    for z, one in enumerate(labels):
        flat = one.ravel()
        there = np.flatnonzero(flat != 0)
        if not len(there):
            continue
        own = flat[there].astype(np.intp)
        voxels += np.bincount(own, minlength=bins)
        for channel in range(image.shape[0]):
            sums[channel] += np.bincount(own, weights=image[channel, z].ravel()[there], minlength=bins)
    return [_row(c, int(voxels[c.index]), sums[:, c.index], ml_per_voxel) for c in classes]


def region_table(regions: np.ndarray, image: np.ndarray, classes: Sequence[Any], ml_per_voxel: float) -> list[ClassRow]:
    """The same for classes that may overlap: `regions` is (K, Z, Y, X) bool, one channel a class."""
    rows = []
    for mask, label_class in zip(regions, classes, strict=True):
        sums = np.array([channel[mask].sum(dtype=np.float64) for channel in image])
        rows.append(_row(label_class, int(mask.sum()), sums, ml_per_voxel))
    return rows


def _row(label_class: Any, voxels: int, sums: np.ndarray, ml_per_voxel: float) -> ClassRow:
    means = tuple(float(s) / voxels for s in sums) if voxels else ()
    return ClassRow(
        index=int(label_class.index),
        name=label_class.name,
        color=label_class.color,
        voxels=voxels,
        ml=voxels * ml_per_voxel,
        mean_intensity=means[0] if means else None,
        mean_intensities=means,
        code=getattr(label_class, "code", ""),
        laterality=getattr(label_class, "laterality", ""),
    )
