"""The NIfTI-1 and NIfTI-2 headers, from the standard's own tables (nifti1.h, nifti2.h; nifti.nimh.nih.gov)."""

from __future__ import annotations

import numpy as np

_FIELDS_1 = {
    "sizeof_hdr": ("i4", 0),
    "dim_info": ("u1", 39),
    "dim": ("8i2", 40),
    "intent_code": ("i2", 68),
    "datatype": ("i2", 70),
    "bitpix": ("i2", 72),
    "slice_start": ("i2", 74),
    "pixdim": ("8f4", 76),
    "vox_offset": ("f4", 108),
    "scl_slope": ("f4", 112),
    "scl_inter": ("f4", 116),
    "slice_end": ("i2", 120),
    "slice_code": ("u1", 122),
    "xyzt_units": ("u1", 123),
    "slice_duration": ("f4", 132),
    "toffset": ("f4", 136),
    "descrip": ("S80", 148),
    "aux_file": ("S24", 228),
    "qform_code": ("i2", 252),
    "sform_code": ("i2", 254),
    "quatern": ("3f4", 256),
    "qoffset": ("3f4", 268),
    "srow": ("(3,4)f4", 280),
    "magic": ("S4", 344),
}
_FIELDS_2 = {
    "sizeof_hdr": ("i4", 0),
    "magic": ("S8", 4),
    "datatype": ("i2", 12),
    "bitpix": ("i2", 14),
    "dim": ("8i8", 16),
    "pixdim": ("8f8", 104),
    "vox_offset": ("i8", 168),
    "scl_slope": ("f8", 176),
    "scl_inter": ("f8", 184),
    "slice_duration": ("f8", 192),
    "toffset": ("f8", 200),
    "slice_start": ("i8", 208),
    "slice_end": ("i8", 216),
    "descrip": ("S80", 240),
    "aux_file": ("S24", 320),
    "qform_code": ("i4", 344),
    "sform_code": ("i4", 348),
    "quatern": ("3f8", 352),
    "qoffset": ("3f8", 376),
    "srow": ("(3,4)f8", 400),
    "slice_code": ("i4", 496),
    "xyzt_units": ("i4", 500),
    "intent_code": ("i4", 504),
    "dim_info": ("u1", 524),
}


def _structure(fields: dict[str, tuple[str, int]], size: int) -> np.dtype:
    formats, offsets = zip(*fields.values(), strict=True)
    return np.dtype({"names": list(fields), "formats": list(formats), "offsets": list(offsets), "itemsize": size})


NIFTI_1 = _structure(_FIELDS_1, 348)
NIFTI_2 = _structure(_FIELDS_2, 540)


def structure_of(start: bytes) -> np.dtype | None:
    """The structured type, with its byte order, of a header that begins with `start`; None if it is no NIfTI."""
    for structure in (NIFTI_1, NIFTI_2):
        for ordered in (structure.newbyteorder("<"), structure.newbyteorder(">")):
            size = np.frombuffer(start[:4].ljust(4, b"\0"), ordered["sizeof_hdr"])[0]
            if size == structure.itemsize:
                return ordered
    return None
