"""What a NIfTI header says, and the header of a file to be written."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.common.geometry import from_xyz_ras, is_orthogonal, largest_displacement, to_xyz_ras
from napari_mamba.io.formats.nifti.fields import NIFTI_1

TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
COLOURS = {128: 3, 2304: 4}
"""Data types of red, green and blue, and of these with an opacity: bytes of a voxel."""
_REFUSED = {
    1: "bits",
    32: "complex numbers",
    1536: "numbers of 128 bits",
    1792: "complex numbers",
    2048: "complex numbers",
}
_VECTOR_INTENT, LABEL_INTENT = 1007, 1002
_SURFACES = range(3000, 3100)  # intents of CIFTI-2, whose numbers are points of surfaces
_CODES = range(6)  # of the standard's kinds of place
_LONGEST_QUATERNION = 1.01  # its length squared, rounding allowed
_SAME_PLACE = 0.05  # of a voxel: a quaternion in float32 places far corners a little apart from the matrix
_VERBATIM = (
    "pixdim",
    "qform_code",
    "sform_code",
    "quatern",
    "qoffset",
    "srow",
    "dim_info",
    "slice_start",
    "slice_end",
    "slice_code",
    "slice_duration",
)
_UNIT_MM = {1: 1e3, 2: 1.0, 3: 1e-3}  # metre, millimetre, micrometre; others are taken as millimetres


@dataclass(frozen=True)
class Header:
    """What of a header matters here."""

    dtype: np.dtype
    shape: tuple[int, int, int]  # (z, y, x)
    frames: int  # along the fourth axis and from the sixth on
    vector: int  # along the fifth, which the standard keeps for several values a voxel
    affine: np.ndarray  # (z, y, x) index to RAS millimetres
    offset: int  # of the voxels, in bytes
    slope: float
    intercept: float
    says_labels: bool
    kept: SourceHeader
    colours: int = 0  # bytes of a voxel that is a colour, each for itself; `dtype` is then that of all of them

    @property
    def is_colour(self) -> bool:
        return self.colours > 0


@dataclass(frozen=True)
class SourceHeader:
    """What of a header a result on the same image carries on, as nibabel's `header.copy()` does."""

    fields: np.void
    affine: np.ndarray  # (z, y, x) index to RAS millimetres, as `_affine` reads it
    shape: tuple[int, int, int]  # (z, y, x)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What programs may take differently."""
        if odd := [name for name in ("qform_code", "sform_code") if int(self.fields[name]) not in _CODES]:
            return (
                f"The image's header has the {odd[0]} {int(self.fields[odd[0]])}, which the standard does not know: "
                "other programs may place the image elsewhere.",
            )
        qform, sform = self._matrix("qform_code", _qform), self._matrix("sform_code", _sform)
        if qform is None and sform is None:
            return (
                "The image's header does not say how the patient lies (qform and sform codes are 0): left, right, "
                "front and back are assumed, and other programs may assume others.",
            )
        if qform is None or sform is None or not np.isfinite([qform, sform]).all():
            return ()
        apart = largest_displacement(from_xyz_ras(qform), from_xyz_ras(sform), self.shape)
        if apart <= _SAME_PLACE * float(np.linalg.norm(sform[:3, :3], axis=0).max()):
            return ()
        return (
            f"The image's header places it twice, up to {apart:.3g} mm apart (qform and sform); the sform counts here. "
            "A result written as NIfTI keeps both, in other formats it lies where the sform says.",
        )

    def _matrix(self, code: str, reader: Callable[[np.void], np.ndarray]) -> np.ndarray | None:
        return reader(self.fields) if self.fields[code] > 0 else None


def parse(raw: bytes, structure: np.dtype, path: object) -> Header:
    """Read a header, or raise `InputError` with the reason why it cannot be used."""
    fields = np.frombuffer(raw, structure, count=1)[0]
    if not fields["magic"].startswith((b"n+1", b"n+2")):
        hint = "its voxels lie in another file, convert it to .nii" if fields["magic"][:2] in (b"ni",) else "no magic"
        raise InputError(f"{path} is no single-file NIfTI image ({hint})")
    code = int(fields["datatype"])
    if code not in TYPES | COLOURS:
        raise InputError(f"{path} holds {_REFUSED.get(code, f'the unknown data type {code}')}: convert it to numbers")
    if int(fields["intent_code"]) in _SURFACES:
        raise InputError(f"{path} is a CIFTI file of points on surfaces: take its volume by wb_command -cifti-separate")
    count = int(fields["dim"][0])
    sizes = [int(n) for n in fields["dim"][1 : count + 1]] if 1 <= count <= 7 else []
    if not sizes or min(sizes) < 1:
        raise InputError(f"{path} has the size {sizes or 'unknown'} in its header: the image is empty or damaged")
    sizes += [1] * (7 - len(sizes))
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    colours = COLOURS.get(code, 0)
    if colours or slope == 0 or not np.isfinite(slope):  # the standard: a slope of 0 means no scaling
        slope, intercept = 1.0, 0.0
    if colours:
        intercept = 0.0
    if not np.isfinite(intercept):
        raise InputError(f"{path} has the intercept {intercept} in its header: repair scl_inter")
    shape = (sizes[2], sizes[1], sizes[0])
    affine = _affine(fields, shape, path)
    return Header(
        dtype=np.dtype(TYPES.get(code, f"V{colours}")).newbyteorder(structure["sizeof_hdr"].byteorder),
        shape=shape,
        frames=sizes[3] * sizes[5] * sizes[6],
        vector=sizes[4],
        affine=affine,
        offset=max(_offset(fields, path), structure.itemsize),
        slope=slope,
        intercept=intercept,
        says_labels=int(fields["intent_code"]) == LABEL_INTENT,
        kept=SourceHeader(fields, affine, shape),
        colours=colours,
    )


def _offset(fields: np.void, path: object) -> int:
    if not np.isfinite(fields["vox_offset"]):
        raise InputError(f"{path} does not say where its voxels begin (vox_offset): copy it anew")
    return int(fields["vox_offset"])


def _affine(fields: np.void, shape: tuple[int, int, int], path: object) -> np.ndarray:
    """The sform if its code is set, else the qform, else voxel sizes about the centre: nibabel's order and answer."""
    if fields["sform_code"] > 0:
        matrix, what = _sform(fields), "sform"
    elif fields["qform_code"] > 0:
        if not float(np.sum(fields["quatern"].astype(np.float64) ** 2)) <= _LONGEST_QUATERNION:
            raise InputError(f"{path} has a qform that is no rotation: repair its header, or state an sform")
        matrix, what = _qform(fields), "qform"
    else:
        matrix, what = _centred(_sizes(fields), shape), "pixdim"
    if not np.isfinite(matrix).all() or np.linalg.matrix_rank(matrix[:3, :3]) < 3:
        raise InputError(f"{path} places its voxels by its {what}, which is no grid (0 or NaN): repair its header")
    matrix[:3] *= _millimetres(fields)
    return from_xyz_ras(matrix)


def _millimetres(fields: np.void) -> float:
    return _UNIT_MM.get(int(fields["xyzt_units"]) & 7, 1.0)


def _sizes(fields: np.void) -> np.ndarray:
    size = np.abs(fields["pixdim"].astype(np.float64))[1:4]
    size[size == 0] = 1.0
    return size


def _sform(fields: np.void) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3] = fields["srow"]
    return matrix


def _qform(fields: np.void) -> np.ndarray:
    matrix = np.eye(4)
    handed = np.array([1.0, 1.0, -1.0 if fields["pixdim"][0] < 0 else 1.0])
    matrix[:3, :3] = _rotation(fields["quatern"].astype(np.float64)) * _sizes(fields) * handed
    matrix[:3, 3] = fields["qoffset"]
    return matrix


def _centred(size: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    size = size * [-1, 1, 1]
    matrix = np.diag([*size, 1.0])
    matrix[:3, 3] = -(np.array(shape[::-1]) - 1) / 2 * size
    return matrix


def _rotation(quaternion: np.ndarray) -> np.ndarray:
    """The matrix (3, 3) of a quaternion's (b, c, d), float64; a is what is left of its length of 1.

    SciPy's `Rotation` gives the same bits, but imports a quarter of a second of SciPy for it.
    """
    b, c, d = quaternion.tolist()
    a = math.sqrt(max(0.0, 1.0 - float(quaternion @ quaternion)))
    length = math.sqrt(b * b + c * c + d * d + a * a)
    b, c, d, a = b / length, c / length, d / length, a / length
    return np.array(
        [
            [b * b - c * c - d * d + a * a, 2 * (b * c - d * a), 2 * (b * d + c * a)],
            [2 * (b * c + d * a), -b * b + c * c - d * d + a * a, 2 * (c * d - b * a)],
            [2 * (b * d - c * a), 2 * (c * d + b * a), -b * b - c * c + d * d + a * a],
        ]
    )


def build(
    array: np.ndarray, affine: np.ndarray, offset: int, kept: SourceHeader | None = None, *, label_map: bool = False
) -> bytes:
    """A NIfTI-1 header for values (C, Z, Y, X); channels go to the fifth axis, which the standard keeps for them.

    `kept` is the header of the image that the values are about: its transforms, codes, units and description go along.
    """
    channels, depth, height, width = array.shape
    fields = np.zeros((), NIFTI_1.newbyteorder("<"))
    fields["sizeof_hdr"] = NIFTI_1.itemsize
    sizes = [width, height, depth] + ([1, channels] if channels > 1 else [])
    fields["dim"] = [len(sizes), *sizes, *[1] * (7 - len(sizes))]
    fields["datatype"] = next(code for code, kind in TYPES.items() if np.dtype(kind) == array.dtype)
    fields["bitpix"] = 8 * array.dtype.itemsize
    fields["vox_offset"], fields["scl_slope"] = offset, 1.0
    fields["xyzt_units"] = 2
    fields["descrip"] = b"napari-mamba"
    fields["magic"] = b"n+1"
    if kept is None:
        _place(fields, to_xyz_ras(affine))
    else:
        _carry(fields, kept, affine, (depth, height, width))
    fields["intent_code"] = _VECTOR_INTENT if channels > 1 else LABEL_INTENT if label_map else 0
    return fields.tobytes()


def _carry(fields: np.ndarray, kept: SourceHeader, affine: np.ndarray, shape: tuple[int, int, int]) -> None:
    """Put what another header says into `fields`, its transforms moved along where the grid is another."""
    source = kept.fields
    for name in ("descrip", "aux_file", "xyzt_units", "toffset"):
        fields[name] = source[name]
    with np.errstate(over="ignore"):
        if shape == kept.shape and np.allclose(affine, kept.affine, rtol=1e-6, atol=1e-6):
            for name in _VERBATIM:
                fields[name] = source[name]
            return
    unit = _millimetres(source)
    step = np.linalg.inv(to_xyz_ras(kept.affine)) @ to_xyz_ras(affine)  # (x, y, z) of the new grid to that of the old
    matrix = to_xyz_ras(affine)
    matrix[:3] /= unit
    _place(fields, matrix)
    qform, sform = source["qform_code"] > 0, source["sform_code"] > 0
    if qform:  # moved as the sform is, by the same step
        _place_qform(fields, _qform(source) @ step)
    fields["qform_code"] = source["qform_code"] if fields["qform_code"] else 0
    fields["sform_code"] = source["sform_code"]
    if not sform and not qform:
        centred = np.allclose(_centred(np.linalg.norm(matrix[:3, :3], axis=0), shape), matrix, atol=1e-4)
        fields["qform_code"] = fields["sform_code"] = 0 if centred else 1
    elif not sform and not fields["qform_code"]:
        fields["sform_code"] = source["qform_code"]


def _place(fields: np.ndarray, matrix: np.ndarray) -> None:
    """Both sform and qform, so that readers of either agree; no qform where the axes are sheared."""
    size = np.linalg.norm(matrix[:3, :3], axis=0)
    fields["pixdim"] = [1.0, *size, 1, 1, 1, 1]
    fields["sform_code"], fields["srow"] = 1, matrix[:3]
    fields["qform_code"] = 0
    _place_qform(fields, matrix)


def _place_qform(fields: np.ndarray, matrix: np.ndarray) -> None:
    from scipy.spatial.transform import Rotation

    left_handed = np.linalg.det(matrix[:3, :3]) < 0
    fields["pixdim"][0] = -1.0 if left_handed else 1.0
    if not is_orthogonal(matrix):
        return
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    if left_handed:
        axes = axes * [1, 1, -1]
    x, y, z, w = Rotation.from_matrix(axes).as_quat()
    fields["qform_code"] = 1
    fields["quatern"] = np.array([x, y, z]) * (-1 if w < 0 else 1)
    fields["qoffset"] = matrix[:3, 3]
