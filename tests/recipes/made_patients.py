"""Patients in the OpenKBP data set's format, of a formula."""

import numpy as np
import pytest

from napari_mamba import io
from napari_mamba.volume import Volume

SHAPE = (18, 20, 26)


def patient(seed: int) -> dict[str, np.ndarray]:
    """Structures (x, y, z) in the data set's bits, HU, and a dose that depends on where one is."""
    random = np.random.RandomState(seed)
    x, y, z = np.meshgrid(*map(np.arange, SHAPE[::-1]), indexing="ij")
    body = ((x - 12.5) / 11) ** 2 + ((y - 9.5) / 8) ** 2 < 1
    bits = body.astype(np.uint16)
    for bit, (cx, cy) in {1: (12, 5), 2: (12, 14), 3: (6, 9), 4: (19, 9), 9: (13, 10), 10: (10, 10)}.items():
        if bit != 4 or seed != 1:  # the second patient's left parotid was not drawn
            bits |= ((abs(x - cx) < 2) & (abs(y - cy) < 2) & (abs(z - 9) < 5 + seed)).astype(np.uint16) << bit
    ct = np.where(body, 40 + 200 * (bits > 1), -1024) + random.randint(-20, 20, body.shape)
    dose = np.where(body, 6000 - 200 * abs(x - 11) - 150 * abs(y - 10) - 30 * z, 0).clip(0)
    return {"ct": ct.astype(np.int16), "dose_cgy": dose.astype(np.int16), "structures": bits}


@pytest.fixture(scope="session")
def openkbp(tmp_path_factory):
    """Three patients to train on, two to validate; voxels of 4×4×3 mm, LPI as the data set's."""
    root = tmp_path_factory.mktemp("openkbp")
    affine = np.zeros((4, 4))
    affine[0, 2], affine[1, 1], affine[2, 0], affine[3, 3] = -4, -4, -3, 1  # (z, y, x) to RAS
    for number in range(5):
        place = root / ("train" if number < 3 else "validation") / f"pt_{number + 1}"
        place.mkdir(parents=True)
        for name, values in patient(number).items():
            io.write(Volume(values.transpose(2, 1, 0)[None], affine), place / f"{name}.nii.gz")
    return root


@pytest.fixture(scope="session")
def first_patient():
    """The first patient's arrays (x, y, z) as its files hold them."""
    return patient(0)
