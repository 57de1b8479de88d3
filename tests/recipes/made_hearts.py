"""A small Sunnybrook folder of made-up hearts: a bright cavity in a dark wall, on slices that shrink to the apex."""

import nibabel
import numpy as np
import pytest

PEOPLE = ("SC-HF-I-01", "SC-N-03", "SC-HYP-06", "SC-N-06")  # two of training, one of validation, one of the test
SIZE = 64


def slice_of(radius: float, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:SIZE, :SIZE]
    away = np.hypot(y - 30, x - 33)
    label = np.where(away <= radius, 1, np.where(away <= radius + 6, 2, 0)).astype(np.uint8)
    image = np.select([label == 1, label == 2], [180, 60], 110) + random.normal(0, 6, label.shape)
    return image.clip(0, 255).astype(np.uint8), label


def write(path, array, spacing):
    nibabel.save(nibabel.Nifti1Image(array.T, np.diag([*spacing, 1.0])), path)


@pytest.fixture(scope="session")
def sunnybrook(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sunnybrook")
    (folder / "stacks").mkdir()
    (folder / "cine").mkdir()
    random = np.random.default_rng(0)
    for person in PEOPLE:
        for phase, largest in (("ED", 14.0), ("ES", 9.0)):
            made = [slice_of(largest - 0.8 * z, random) for z in range(6)]
            image, label = (np.stack(parts) for parts in zip(*made, strict=True))
            write(folder / "stacks" / f"{person}_{phase}_image.nii.gz", image, (1.3, 1.3, 8.0))
            write(folder / "stacks" / f"{person}_{phase}_label.nii.gz", (label == 1).astype(np.uint8), (1.3, 1.3, 8.0))
    phases = np.zeros((20, 5, 104, 104), np.uint8)
    drawn = np.full(phases.shape, 255, np.uint8)
    for t in range(20):
        for z in range(5):
            image, label = slice_of(11.5 + 2.5 * np.cos(2 * np.pi * (t - 1) / 20) - 0.5 * z, random)
            phases[t, z, 20:84, 20:84] = image
            if z > 0 and t in (1, 11):
                drawn[t, z] = 0
                drawn[t, z, 20:84, 20:84] = label if t == 1 else label == 1
    for name, array in (("cine", phases), ("label", drawn)):
        write(folder / "cine" / f"SC-HF-I-01_{name}.nii.gz", array, (1.4, 1.4, 10.0, 1.0)[:3])
    return folder
