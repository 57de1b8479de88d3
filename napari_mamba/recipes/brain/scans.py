"""Real scans to train on beside synthetic images, with labels that a bundle found in all scans of a person.

Images from label maps leave one thing to chance: where each contrast puts the border between two tissues that share a
voxel. Scans of one person in several contrasts, aligned, with one set of labels for all of them, teach just that.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from napari_mamba.recipes.brain.data import crop
from napari_mamba.recipes.brain.structures import CSF, INDICES, left_right_swap
from napari_mamba.recipes.brain.synthetic import geometry

Shape = tuple[int, int, int]
KEPT = (0.5, 99.5)
"""Percentiles of an image that become 0 and 1, as in the bundle's preparation."""


@dataclass
class Scans:
    """Scans on a device.

    Parameters
    ----------
    images, classes : list of Tensor, each (Z, Y, X) uint8
        RAS at 1 mm: brightness, and indices into `structures.INDICES`.
    boxes : ndarray, shape (scans, 6)
        The brain's box in each: first z, y, x, then last + 1.
    """

    images: list[Tensor]
    classes: list[Tensor]
    boxes: np.ndarray
    swapped: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.swapped = torch.tensor(left_right_swap(), dtype=torch.uint8, device=self.images[0].device)

    def window(self, random: np.random.Generator, shift: Tensor) -> tuple[Tensor, Tensor]:
        """A deformed window of a random scan: image (Z, Y, X) float32 from 0 to 1, and classes uint8.

        Parameters
        ----------
        random : numpy.random.Generator
        shift : Tensor, shape (3, Z, Y, X)
            Displacements in mm.
        """
        which = int(random.integers(len(self.images)))
        centre, affine, mirrored = geometry.draw_place(random, self.boxes[which])
        image = geometry.sample_image(self.images[which], centre, affine, shift) / 255
        classes = geometry.sample_labels(self.classes[which], centre, affine, shift)
        return image, self.swapped[classes.long()] if mirrored else classes


def pack(scans: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """Images and classes, each (Z, Y, X), RAS at 1 mm, as small arrays by name, cropped to the head around the brain.

    Returns
    -------
    dict
        "scan_00", "scan_00_classes" and so on uint8, for `unpack`; "scan_shapes" and "scan_boxes" as in `data.pack`.
    """
    packed: dict[str, np.ndarray] = {}
    boxes, shapes = [], []
    brain = np.array([value not in (0, CSF) for value in INDICES])
    for number, (image, classes) in enumerate(scans):
        low, high = np.percentile(image, KEPT)
        bright = np.rint(np.clip((image - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)
        cut, box = crop(classes, brain)
        for name, one in ((f"scan_{number:02d}", bright[cut]), (f"scan_{number:02d}_classes", classes[cut])):
            packed[name] = np.frombuffer(lzma.compress(one.astype(np.uint8).tobytes()), np.uint8)
        boxes.append(box)
        shapes.append(classes[cut].shape)
    return packed | {"scan_boxes": np.array(boxes, np.int16), "scan_shapes": np.array(shapes, np.int16)}


def unpack(arrays: dict[str, np.ndarray], device: torch.device) -> Scans | None:
    """The scans that `pack` made, on a device; None where there are none."""
    if "scan_shapes" not in arrays:
        return None

    def stored(name: str, shape: np.ndarray) -> Tensor:
        return torch.from_numpy(np.frombuffer(lzma.decompress(arrays[name].tobytes()), np.uint8).reshape(shape).copy())

    shapes = list(enumerate(arrays["scan_shapes"].astype(int)))
    return Scans(
        [stored(f"scan_{number:02d}", shape).to(device) for number, shape in shapes],
        [stored(f"scan_{number:02d}_classes", shape).to(device) for number, shape in shapes],
        arrays["scan_boxes"],
    )
