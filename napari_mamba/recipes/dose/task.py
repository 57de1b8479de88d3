"""What `dose-headneck-ct` is about: its structures, its input channels and its networks."""

from __future__ import annotations

from typing import Any

from napari_mamba.radiotherapy.inputs import Inputs, Organ

BRAINSTEM = ("brain stem", "hirnstamm", "tronc cérébral", "tronco encefálico", "tronco", "hersenstam", "truncus")
SPINAL_CORD = (
    *("cord", "myelon", "spinal canal", "spinalkanal", "rückenmark", "canal médullaire", "canal rachidien", "moelle"),
    *(
        "moelle épinière",
        "médula",
        "médula espinal",
        "midollo",
        "midollo spinale",
        "canal medular",
        "ruggenmerg",
        "myelum",
    ),
)
OESOPHAGUS = (
    *("esophagus", "ösophagus", "oesophage", "esófago", "esofago", "slokdarm", "speiseröhre"),
    *("esophagus_cerv", "esophagus_s", "cervical esophagus", "cervical oesophagus", "upper esophagus"),
)
LARYNX = ("kehlkopf", "glottis", "laringe", "strottenhoofd", "larynx whole")
MANDIBLE = (
    *("bone_mandible", "mandible bone", "mandibula", "mandibule", "mandíbula", "mandibola", "unterkiefer", "jaw"),
    *("jaw bone", "lower jaw", "onderkaak"),
)


def _parotid(side: str, *sides: str) -> tuple[str, ...]:
    """The names of one parotid, with its side before or after, from the words for it."""
    glands = ("parotid", "parotid gland", "parotid glnd", "glnd parotid", "parotis", "parotide", "parótida")
    names = [name for word in (side, *sides) for gland in glands for name in (f"{gland} {word}", f"{word} {gland}")]
    return tuple(dict.fromkeys(name for name in names if name != f"{side} parotid"))


HEAD_NECK = Inputs(
    "head and neck",
    (
        Organ("brainstem", BRAINSTEM, "119238007"),
        Organ("spinal cord", SPINAL_CORD, "2748008"),
        Organ(
            "right parotid",
            _parotid("right", "rt", "r", "rechts", "re", "droite", "d", "derecha", "destra", "dx"),
            "45289007",
        ),
        Organ(
            "left parotid",
            _parotid("left", "lt", "l", "links", "li", "gauche", "g", "izquierda", "i", "sinistra", "sx"),
            "45289007",
        ),
        Organ("oesophagus", OESOPHAGUS, "32849002"),
        Organ("larynx", LARYNX, "4596009"),
        Organ("mandible", MANDIBLE, "91609006"),
    ),
    unit=70.0,
)
"""What the bundle takes; names after AAPM's task group 263 among the aliases."""

ORGANS = tuple(organ.name for organ in HEAD_NECK.organs)
"""In the order of the data set's bits, from bit 1 on, and of the input's channels."""

TARGETS = {"PTV56": 56.0, "PTV63": 63.0, "PTV70": 70.0}
"""Prescriptions in Gy, from bit 8 on. No voxel is in two of them."""

POSSIBLE_BIT, ORGAN_BIT, TARGET_BIT = 0, 1, 8

UNIT = HEAD_NECK.unit
"""Gy that are 1 to the network: the highest prescription."""

CHANNELS = len(ORGANS) + 5
"""Density, organs, prescription, where there can be dose, the distance of slices, the voxel side in them."""

PAIRS = ((1 + ORGANS.index("right parotid"), 1 + ORGANS.index("left parotid")),)
"""Channels that change places in a mirror."""

WINDOW = (96, 80, 128)
"""Voxels (z, y, x) of a training sample: where there can be dose is never deeper from front to back than 80."""

TURNED = (96, 128, 128)
"""The same for a patient turned about the long axis."""

BEAMS = 9
"""Of the data's plans, at equal angles: a patient turned by one of them is still seen by all."""

INPUTS = CHANNELS + 2
"""With the first guess of `napari_mamba.models.dose`."""

UMAMBA: dict[str, Any] = {
    "spatial_dims": 3,
    "input_channels": INPUTS,
    "num_classes": 1,
    "features_per_stage": [32, 64, 96, 128, 192],
    "kernel_sizes": 3,
    "strides": [1, 2, 2, 2, 2],
    "n_conv_per_stage": [1, 2, 2, 1, 1],
    "n_conv_per_stage_decoder": 1,
    "input_size": list(WINDOW),
    "first_scan": 2,
}
CASCADE: dict[str, Any] = {
    "in_channels": INPUTS,
    "out_channels": 1,
    "features": [32, 64, 112, 128, 160],
    "first_features": [16, 32, 56, 64, 80],
}
SMALL: dict[str, Any] = {**UMAMBA, "features_per_stage": [8, 16, 16, 16, 16], "n_conv_per_stage": 1}

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "umamba": ("umamba_enc", UMAMBA),
    "cascade": ("cascade_unet", CASCADE),
    "small": ("umamba_enc", SMALL),
}
"""Variants of the recipe: the network that corrects the first guess, and its arguments."""


def arguments(variant: str) -> dict[str, Any]:
    """The arguments of `fluence_dose` for a variant."""
    network, own = NETWORKS[variant]
    return {
        "network": network,
        "arguments": own,
        "channels": CHANNELS,
        "pairs": [list(pair) for pair in PAIRS],
        "least": list(WINDOW),
        "beams": BEAMS,
    }
