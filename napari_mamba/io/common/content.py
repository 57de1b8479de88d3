"""What a file is that is no image: a reason and a way out, rather than "damaged"."""

from __future__ import annotations

from pathlib import Path

_START = 64
_PACKERS = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!": "RAR",
}
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".tar", ".tgz", ".rar")
_OTHERS = {
    ".hdr": "is one of a pair of files (.hdr and .img): convert the pair to .nii",
    ".img": "is one of a pair of files (.hdr and .img): convert the pair to .nii",
    ".mnc": "is a MINC image: convert it by mnc2nii",
    ".par": "is a Philips PAR/REC image: convert it by dcm2niix",
    ".rec": "is a Philips PAR/REC image: convert it by dcm2niix",
    ".head": "is an AFNI image: convert it by 3dAFNItoNIFTI",
    ".brik": "is an AFNI image: convert it by 3dAFNItoNIFTI",
    ".vtk": "is a VTK image: save it as .nrrd",
    ".vti": "is a VTK image: save it as .nrrd",
    ".mat": "is a file of MATLAB: write the image by niftiwrite",
    ".npy": "is an array without a place: make a Volume of it in Python, or write it as NIfTI",
    ".npz": "is an array without a place: make a Volume of it in Python, or write it as NIfTI",
}


def of_another_kind(path: Path) -> str:
    """What a file of no known format is by its name, and what to do, or an empty string.

    Examples
    --------
    >>> of_another_kind(Path("brain.img"))
    'is one of a pair of files (.hdr and .img): convert the pair to .nii'
    """
    if path.name.lower().endswith(_PACKED):
        return "is packed: unpack it first"
    return _OTHERS.get(path.suffix.lower(), "")


def not_an_image(path: Path) -> str:
    """Why a file's content cannot be an image of any format here, and what to do, or an empty string."""
    name = path.name.lower()
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        start = file.read(_START)
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, the image is elsewhere: fetch it by git lfs pull"
    if start.lstrip()[:1] == b"<" and start.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "is a web page, whatever its name says: download the file itself, perhaps after signing in"
    for mark, packer in _PACKERS.items():
        if start.startswith(mark):
            return f"is packed by {packer}: unpack it first"
    if start.startswith(b"PK\x03\x04") and not name.endswith((".zarr.zip", ".ozx")):
        return "is a zip: unpack it first"
    return ""
