"""The 32 structures, the raw labels of the maps they come from, and what bright and dark they are in known contrasts.

Raw labels are FreeSurfer's below 500 and SynthSeg's extra-cerebral classes from 500 on. A group is a set of raw labels
that share one intensity distribution: left and right always do.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

STRUCTURES: Mapping[int, str] = {
    2: "left cerebral white matter",
    3: "left cerebral cortex",
    4: "left lateral ventricle",
    5: "left inferior lateral ventricle",
    7: "left cerebellum white matter",
    8: "left cerebellum cortex",
    10: "left thalamus",
    11: "left caudate",
    12: "left putamen",
    13: "left pallidum",
    14: "3rd ventricle",
    15: "4th ventricle",
    16: "brain-stem",
    17: "left hippocampus",
    18: "left amygdala",
    26: "left accumbens area",
    24: "CSF around the brain",
    28: "left ventral DC",
    41: "right cerebral white matter",
    42: "right cerebral cortex",
    43: "right lateral ventricle",
    44: "right inferior lateral ventricle",
    46: "right cerebellum white matter",
    47: "right cerebellum cortex",
    49: "right thalamus",
    50: "right caudate",
    51: "right putamen",
    52: "right pallidum",
    53: "right hippocampus",
    54: "right amygdala",
    58: "right accumbens area",
    60: "right ventral DC",
}
"""FreeSurfer value to name; the network's channel i + 1 is the i-th of them, channel 0 the background."""

INDICES = (0, *STRUCTURES)
CSF = INDICES.index(24)

# Raw labels that are no target of their own: lesions are white matter, choroid plexus is ventricle, a vessel or the
# "fifth ventricle" is what surrounds it. Everything else (optic chiasm, cord, head) is background.
MERGED: Mapping[int, int] = {25: 2, 57: 41, 30: 2, 62: 41, 72: 4, 136: 4, 137: 5, 163: 43, 164: 44}

LEFT_RIGHT: Mapping[int, int] = {
    **dict(zip((2, 3, 4, 5, 7, 8), (41, 42, 43, 44, 46, 47), strict=True)),
    **dict(zip((10, 11, 12, 13), (49, 50, 51, 52), strict=True)),
    **{17: 53, 18: 54, 26: 58, 28: 60, 25: 57, 30: 62, 136: 163, 137: 164},
}

_LEFT_RIGHT = {**LEFT_RIGHT, **{right: left for left, right in LEFT_RIGHT.items()}}

GROUPS: Mapping[str, tuple[int, ...]] = {
    "air": (0,),
    "white": (2, 41),
    "cortex": (3, 42),
    "ventricle": (4, 43),
    "horn": (5, 44),
    "cerebellum_white": (7, 46),
    "cerebellum_cortex": (8, 47),
    "thalamus": (10, 49),
    "caudate": (11, 50),
    "putamen": (12, 51),
    "pallidum": (13, 52),
    "third": (14, 72),
    "fourth": (15,),
    "stem": (16,),
    "hippocampus": (17, 53),
    "amygdala": (18, 54),
    "accumbens": (26, 58),
    "csf": (24,),
    "ventral": (28, 60),
    "lesion": (25, 57),
    "vessel": (30, 62),
    "chiasm": (85,),
    "plexus": (136, 137, 163, 164),
    "cord": (512,),
    "skin": (511,),
    "soft": (507,),
    "skull": (515,),
    "marrow": (516,),
    "dura": (514,),
    "eye": (506,),
    "nerve": (530,),
    "other_502": (502,),
    "other_508": (508,),
    "other_509": (509,),
}
NAMES = tuple(GROUPS)
HEAD = frozenset(NAMES[NAMES.index("skin") :])
"""Groups outside the brain and the cord: what skull-stripping takes away, and what is most varied."""

FLUIDS = ("ventricle", "horn", "third", "fourth", "csf")
GREYS = ("cortex", "cerebellum_cortex", "caudate", "putamen", "hippocampus", "amygdala", "accumbens", "thalamus")
WHITES = ("white", "cerebellum_white", "stem", "ventral", "cord")

# Mean of each tissue as a share of white matter (T1) or of fluid (T2), and of grey matter in FLAIR; from the published
# order of relaxation times, and rough on purpose: every draw jitters them.
_T1 = {
    **dict.fromkeys(FLUIDS, 0.2),
    **{"csf": 0.22, "white": 1.0, "cortex": 0.67, "cerebellum_white": 0.92, "cerebellum_cortex": 0.64},
    **{"thalamus": 0.82, "caudate": 0.70, "putamen": 0.76, "pallidum": 0.93, "stem": 0.87, "ventral": 0.88},
    **{"hippocampus": 0.68, "amygdala": 0.67, "accumbens": 0.69, "lesion": 0.75, "vessel": 0.5, "chiasm": 0.8},
    **{"plexus": 0.45, "cord": 0.85, "skin": 1.1, "soft": 0.75, "skull": 0.15, "marrow": 0.7, "dura": 0.45},
    **{"eye": 0.22, "nerve": 0.75, "air": 0.0, "other_502": 0.6, "other_508": 0.5, "other_509": 0.5},
}
_T2 = {
    **dict.fromkeys(FLUIDS, 1.0),
    **{"csf": 0.95, "white": 0.35, "cortex": 0.5, "cerebellum_white": 0.37, "cerebellum_cortex": 0.5},
    **{"thalamus": 0.42, "caudate": 0.46, "putamen": 0.42, "pallidum": 0.3, "stem": 0.38, "ventral": 0.36},
    **{"hippocampus": 0.53, "amygdala": 0.52, "accumbens": 0.48, "lesion": 0.62, "vessel": 0.6, "chiasm": 0.45},
    **{"plexus": 0.8, "cord": 0.4, "skin": 0.5, "soft": 0.35, "skull": 0.1, "marrow": 0.35, "dura": 0.3},
    **{"eye": 0.95, "nerve": 0.45, "air": 0.0, "other_502": 0.4, "other_508": 0.4, "other_509": 0.5},
}
_FLAIR = {
    **dict.fromkeys(FLUIDS, 0.15),
    **{"csf": 0.2, "white": 0.62, "cortex": 0.8, "cerebellum_white": 0.64, "cerebellum_cortex": 0.76},
    **{"thalamus": 0.7, "caudate": 0.76, "putamen": 0.7, "pallidum": 0.58, "stem": 0.66, "ventral": 0.64},
    **{"hippocampus": 0.84, "amygdala": 0.84, "accumbens": 0.77, "lesion": 1.0, "vessel": 0.4, "chiasm": 0.65},
    **{"plexus": 0.5, "cord": 0.6, "skin": 0.8, "soft": 0.55, "skull": 0.12, "marrow": 0.5, "dura": 0.4},
    **{"eye": 0.2, "nerve": 0.6, "air": 0.0, "other_502": 0.5, "other_508": 0.5, "other_509": 0.6},
}


def _vector(means: Mapping[str, float]) -> np.ndarray:
    return np.array([means[name] for name in NAMES], np.float32)


CONTRASTS: Mapping[str, np.ndarray] = {"t1": _vector(_T1), "t2": _vector(_T2), "flair": _vector(_FLAIR)}
"""Mean intensity of each group of `NAMES`, (G,) float32."""


def left_right_swap() -> list[int]:
    """For each class the one of the same structure on the other side.

    >>> [INDICES[left_right_swap()[INDICES.index(label)]] for label in (17, 53, 16)]
    [53, 17, 16]
    """
    return [INDICES.index(_LEFT_RIGHT.get(label, label)) for label in INDICES]


def tables(raw: np.ndarray) -> dict[str, np.ndarray]:
    """Look-up tables over the raw labels `raw` (R,) int: entry i is about the raw label `raw[i]`.

    Returns
    -------
    dict
        "target" (R,) the network's class, "swapped" (R,) the index in `raw` of the other side's label, "group" (R,) the
        index in `NAMES`; int64. A label of no group counts as soft tissue.
    """
    where = {int(value): i for i, value in enumerate(raw)}
    group = {label: NAMES.index(name) for name, labels in GROUPS.items() for label in labels}
    merged = [MERGED.get(int(value), int(value)) for value in raw]
    return {
        "target": np.array([INDICES.index(value) if value in INDICES else 0 for value in merged], np.int64),
        "swapped": np.array([where.get(_LEFT_RIGHT.get(int(one), int(one)), i) for i, one in enumerate(raw)], np.int64),
        "group": np.array([group.get(int(value), NAMES.index("soft")) for value in raw], np.int64),
    }
