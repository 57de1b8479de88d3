"""A head and neck that nobody has: a CT of ellipsoids, structures and doses, to try things with.

Lengths are about a grown person's; densities are those of soft tissue, bone and air. The doses fall off from the
targets and spare the spinal cord, as a planner would want it: no beam was computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_mamba.radiotherapy.structures import Structure, StructureSet
from napari_mamba.volume import Volume

SHAPE, SIDES = (84, 72, 84), (2.5, 3.0, 3.0)
AIR, TISSUE, BONE = -1000, 30, 900
PRESCRIBED = {"PTV56": 56.0, "PTV70": 70.0}

_COLORS = {
    "Body": "#9e9e9e",
    "brainstem": "#4fc3f7",
    "spinal cord": "#ffd54f",
    "right parotid": "#ba68c8",
    "left parotid": "#f06292",
    "larynx": "#4db6ac",
    "mandible": "#a1887f",
    "PTV56": "#ff9800",
    "PTV70": "#f44336",
}


@dataclass(frozen=True, eq=False)
class Phantom:
    """A planning CT in HU, structures that overlap, and two doses in Gy: "A" and a looser one, "B"."""

    ct: Volume
    structures: StructureSet
    doses: dict[str, Volume]


def phantom(seed: int = 0) -> Phantom:
    """Make it; `seed` is that of the noise in the CT.

    Examples
    --------
    >>> made = phantom()
    >>> made.ct.shape, made.structures["PTV70"].prescription
    ((84, 72, 84), 70.0)
    """
    z, y, x = (
        side * (np.arange(n) - (n - 1) / 2).reshape([-1 if axis == own else 1 for own in range(3)])
        for axis, (n, side) in enumerate(zip(SHAPE, SIDES, strict=True))
    )

    def ball(middle: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
        parts = [((a - m) / r) ** 2 for a, m, r in zip((z, y, x), middle, radii, strict=True)]
        return np.asarray(parts[0] + parts[1] + parts[2] <= 1)

    def tube(middle: tuple[float, float], radii: tuple[float, float], low: float, high: float) -> np.ndarray:
        ring = ((y - middle[0]) / radii[0]) ** 2 + ((x - middle[1]) / radii[1]) ** 2 <= 1
        return ring & (z >= low) & (z <= high)

    head = ball((55, 0, 0), (75, 88, 74))
    body = head | tube((0, 0), (58, 60), -200, 40)
    spine = tube((28, 0), (17, 17), -200, 45)
    jaw = ball((12, -25, 0), (14, 52, 50)) & ~ball((12, -20, 0), (20, 46, 42)) & (y < 0)
    windpipe = tube((-8, 0), (8, 8), -200, 5)
    target = ball((-15, -5, 32), (28, 20, 16))
    masks = {
        "Body": body,
        "brainstem": ball((62, 22, 0), (22, 12, 13)),
        "spinal cord": tube((28, 0), (6, 6), -200, 42),
        "right parotid": ball((24, 8, -56), (18, 16, 10)),
        "left parotid": ball((24, 8, 56), (18, 16, 10)),
        "larynx": tube((-10, 0), (16, 18), -52, -18),
        "mandible": jaw,
        "PTV56": target | (ball((-22, 6, -34), (38, 17, 13)) | ball((-25, 4, 34), (45, 24, 18))),
        "PTV70": target,
    }
    masks = {name: mask & body for name, mask in masks.items()}
    values = np.where(body, TISSUE, AIR).astype(np.float32)
    skull = head & ~ball((55, 0, 0), (68, 80, 66)) & (z > 35)
    for place in (spine, jaw, skull):
        values[place & body] = BONE
    values[masks["spinal cord"]] = TISSUE + 10
    values[windpipe] = AIR
    values = ndimage.gaussian_filter(values, 0.6)
    values += np.random.default_rng(seed).normal(0, 12, SHAPE).astype(np.float32)
    affine = _affine()
    ct = Volume(np.rint(values).clip(-1024, 3000).astype(np.int16)[np.newaxis], affine, ("CT",), name="phantom CT")
    structures = StructureSet(
        tuple(Structure(name, mask, _COLORS[name], _kind(name), PRESCRIBED.get(name)) for name, mask in masks.items()),
        affine,
    )
    doses = {
        name: Volume(_dose(masks, reach, spared)[np.newaxis], affine, ("dose in Gy",), name=f"phantom dose {name}")
        for name, reach, spared in (("A", 14.0, 0.45), ("B", 19.0, 0.15))
    }
    return Phantom(ct, structures, doses)


def _kind(name: str) -> str:
    return "PTV" if name in PRESCRIBED else "EXTERNAL" if name == "Body" else "ORGAN"


def _affine() -> np.ndarray:
    """(z, y, x) to RAS: z to the head, y to the back, x to the left, as a CT lies."""
    matrix = np.zeros((4, 4))
    matrix[[2, 1, 0], [0, 1, 2]] = np.array([1, -1, -1]) * SIDES
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    matrix[3, 3] = 1
    return matrix


def _dose(masks: dict[str, np.ndarray], reach: float, spared: float) -> np.ndarray:
    """Gy: the prescription in each target, half of it `reach` mm beyond; less about the spinal cord."""
    dose = np.zeros(SHAPE, np.float32)
    for name, prescribed in PRESCRIBED.items():
        apart = ndimage.distance_transform_edt(~masks[name], SIDES)
        dose = np.maximum(dose, prescribed / (1 + (apart / reach) ** 2))
    near = np.exp(-((ndimage.distance_transform_edt(~masks["spinal cord"], SIDES) / 12) ** 2))
    target = ndimage.gaussian_filter(masks["PTV56"].astype(np.float32), 1.5)
    dose *= 1 - spared * near * (1 - target)
    dose = ndimage.gaussian_filter(dose, 1.0) * 1.02
    dose[~masks["Body"]] = 0
    return dose.astype(np.float32)
