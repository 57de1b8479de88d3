"""Make the volumes of this folder from the ICBM 2009a T1 template that nilearn's wheel carries.

    pip install nilearn nibabel scipy
    python sample_data/derive.py

Nothing is downloaded: the template lies in the installed nilearn. The voxels come out the same every time.
"""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

HERE = Path(__file__).parent
TEMPLATE = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
NOTICE = "ICBM 2009a T1, (c) 1993-2004 L. Collins, MNI, McGill. See NOTICE.txt"

# Centre (RAS mm) and size (voxels along R, A, S) of a crop that shows what the crops of Decathlon Task04 show.
LEFT, RIGHT = (-27.0, -21.0, -13.0), (27.0, -21.0, -13.0)
CROP = (36, 50, 40)


def template() -> tuple[np.ndarray, np.ndarray]:
    """The brain (uint8, axes R, A, S) and its voxel-to-RAS affine."""
    package = find_spec("nilearn")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("nilearn is not installed: pip install nilearn")
    image = nib.load(Path(package.submodule_search_locations[0]) / TEMPLATE)
    return np.asarray(image.dataobj), image.affine


def crop(data: np.ndarray, affine: np.ndarray, centre: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The box of `CROP` voxels around a point, on the template's own grid."""
    middle = np.linalg.solve(affine, [*centre, 1.0])[:3]
    low = np.round(middle - np.array(CROP) / 2).astype(int)
    shifted = affine.copy()
    shifted[:3, 3] = affine[:3, :3] @ low + affine[:3, 3]
    return data[tuple(slice(a, a + n) for a, n in zip(low, CROP, strict=True))], shifted


def oblique(data: np.ndarray, affine: np.ndarray, centre: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The same region as a scanner might give it: tilted, left-handed, 0.9 x 0.9 mm in slices of 1.5 mm."""
    size, spacing = np.array([56, 44, 24]), [0.9, 0.9, 1.5]
    # Sagittal slices: rows run to the patient's posterior, columns to the inferior, slices to the left (left-handed).
    axes = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    grid = np.eye(4)
    grid[:3, :3] = Rotation.from_euler("zyx", [8, -6, 12], degrees=True).as_matrix() @ axes @ np.diag(spacing)
    grid[:3, 3] = np.array(centre) - grid[:3, :3] @ ((size - 1) / 2)
    to_template = np.linalg.solve(affine, grid)
    values = affine_transform(data.astype(np.float64), to_template[:3, :3], to_template[:3, 3], tuple(size), order=1)
    return np.round(values).astype(np.uint8), grid


def save(name: str, data: np.ndarray, affine: np.ndarray) -> None:
    """Write a NIfTI in millimetres, with the notice in its header, and no time of day in its gzip."""
    image = nib.Nifti1Image(np.ascontiguousarray(data), affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = NOTICE[:79].encode()
    image.set_sform(affine, code="mni")
    image.set_qform(affine, code="mni")
    path = HERE / name
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=9, mtime=0))
    print(f"{path.name}: {'x'.join(map(str, data.shape))} voxels, {path.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    """Write all files."""
    data, affine = template()
    save("icbm2009a_t1.nii.gz", data, affine)
    save("hippocampus_left.nii.gz", *crop(data, affine, LEFT))
    save("hippocampus_right.nii.gz", *crop(data, affine, RIGHT))
    save("hippocampus_left_oblique.nii.gz", *oblique(data, affine, LEFT))


if __name__ == "__main__":
    main()
