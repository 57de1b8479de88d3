"""How the published networks' images are prepared, by their authors' own test code: what weights do not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from napari_mamba.errors import InputError

RGB = ("red", "green", "blue")
NETWORK_SIZE = "img_size"
"""In a step of a preset: the size of images that the weights are made for."""


@dataclass(frozen=True)
class Preset:
    """What `import_weights` takes from a preset; a choice of the user's goes before it.

    Attributes
    ----------
    networks : tuple of str
        For which it was read.
    source : str
        Where it was read.
    tile, preparation, channels, classes, activation, overlap, mirror_axes
        As in `import_weights`; `channels` by the number of the network's input channels.
    note : str
        What differs from the authors' code, if anything.
    whole : bool
        The authors' code takes images whole, of any size that the network can take: a smaller one is not filled up to
        a tile.
    arguments : mapping
        Of the network, where its weights do not tell them and its authors have them so.
    """

    networks: tuple[str, ...]
    source: str
    tile: tuple[int, ...]
    preparation: tuple[Mapping[str, Any], ...]
    channels: Mapping[int, tuple[str, ...]]
    classes: tuple[str, ...] = ()
    activation: str | None = None
    overlap: float = 0.5
    mirror_axes: tuple[int, ...] = ()
    note: str = ""
    whole: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)


def resize(side: int, antialias: bool = True) -> dict[str, Any]:
    """Slices to side × side."""
    return {"step": "resize", "shape": [None, side, side], "antialias": antialias}


def normalise(*schemes: Any) -> dict[str, Any]:
    """A scheme for all channels, or one each."""
    return {"step": "normalise", "schemes": list(schemes)}


def standardised(mean: float, std: float, low: float = 0.0, high: float = 255.0) -> dict[str, Any]:
    """Values from `low` to `high` to 0 to 1, then minus `mean`, over `std`."""
    span = high - low
    return {"scheme": "ct", "lower": low, "upper": high, "mean": low + span * mean, "std": span * std}


IMAGENET = [standardised(*pair) for pair in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
LESION = (
    normalise({"scheme": "rescale_0_1", "joint": True}),
    normalise({"scheme": "ct", "lower": 0.0, "upper": 1.0, "mean": 0.0, "std": 1 / 255}),
)
"""Their standardisation by the data set's mean and deviation drops out of the min-max that follows it."""

ADNI = (
    normalise({"scheme": "percentile", "lower": 0.1, "upper": 99.9}),
    normalise(standardised(0.5, 0.5, 0.0, 1.0)),
)
ADNI_NOTE = (
    "The authors take percentiles over voxels that are not negative and average areas to resize; here they are of all "
    "voxels, and voxels are interpolated linearly."
)

PATIENT_AXES = ({"step": "orient", "axcodes": "LPS"}, {"step": "transpose", "axes": [2, 1, 0]})
"""The order of axes in which NiBabel reads the NIfTI files of SynthRAD 2023: x first."""
PAIR = ("moving MR of the brain", "fixed CT of the brain")
SR_REG_NOTE = (
    "The authors' volumes (SR-Reg) come stripped of the skull and affinely aligned; their axes are taken to be those "
    "of SynthRAD 2023's files, of which they were made."
)

PRESETS: Mapping[str, Preset] = {
    "restoration": Preset(
        networks=("mambair", "mambair_v2", "mambair_v2_light", "mambair_unet", "vmambair"),
        source="github.com/csguoh/MambaIR, options/test and realDenoising; github.com/AlphacatPlus/VmambaIR",
        tile=(128, 128),
        preparation=(normalise("rgb_0_1"),),
        channels={1: ("grey",), 3: RGB},
        note="The authors' code takes an image whole; here a larger one than a tile goes through in overlapping ones.",
        whole=True,
    ),
    "fusion": Preset(
        networks=("mambadfuse", "fusionmamba"),
        source="github.com/Lizhe1228/MambaDFuse, test_MambaDFuse.py and data/dataloder.py; "
        "github.com/millieXie/FusionMamba, test.py",
        tile=(256, 256),
        preparation=(normalise("rescale_0_1"),),
        channels={1: ("first modality", "second modality")},
        note="The authors' code takes pictures of 8 bits over 255 and whole; here each volume's range becomes 0 to 1. "
        "FusionMamba's also stretches each answer to the whole range.",
        whole=True,
    ),
    "lesion": Preset(
        networks=("vm_unet", "vm_unet_v2", "h_vmunet", "ultralight_vm_unet", "hmt_unet"),
        source="github.com/JCruan519/VM-UNet, utils.py and configs/config_setting.py, which its kin share",
        tile=(256, 256),
        preparation=(*LESION, resize(256, antialias=False)),
        channels={3: RGB},
        classes=("lesion",),
        activation="sigmoid",
    ),
    "synapse": Preset(
        networks=("vm_unet",),
        source="github.com/JCruan519/VM-UNet, datasets/dataset.py; arXiv:2102.04306, section 4.1",
        tile=(224, 224),
        preparation=(normalise(standardised(0.0, 1.0, -125.0, 275.0)), resize(224)),
        channels={3: RGB},
        classes=(
            "background",
            "aorta",
            "gallbladder",
            "left kidney",
            "right kidney",
            "liver",
            "pancreas",
            "spleen",
            "stomach",
        ),
        note="The authors' code enlarges slices with cubic splines, here linearly.",
    ),
    "acdc": Preset(
        networks=("mamba_unet",),
        source="github.com/ziyangwang007/Mamba-UNet, code/test_2D_fully.py and dataloaders",
        tile=(224, 224),
        preparation=(normalise("rescale_0_1"), resize(224)),
        channels={1: ("cine MR",)},
        classes=("background", "right ventricle", "myocardium", "left ventricle"),
        note="The authors' code picks the nearest pixel to resize, here pixels are interpolated linearly.",
    ),
    "brats2023": Preset(
        networks=("segmamba", "segmamba_v2"),
        source="github.com/ge-xing/SegMamba, 2_preprocessing_mri.py and 4_predict.py",
        tile=(128, 128, 128),
        preparation=(
            {"step": "crop_nonzero"},
            normalise("zscore"),
            {"step": "resample", "spacing": [1.0, 1.0, 1.0], "anisotropy": "nnunet"},
        ),
        channels={4: ("t2w", "t2f", "t1n", "t1c")},
        classes=("background", "necrotic core", "oedema", "enhancing tumour"),
        mirror_axes=(0, 1, 2),
    ),
    "medmamba": Preset(
        networks=("medmamba",),
        source="github.com/YubiaoYue/MedMamba, train.py",
        tile=(224, 224),
        preparation=(resize(224), normalise(standardised(0.5, 0.5))),
        channels={3: RGB},
    ),
    "clip": Preset(
        networks=("vivim",),
        source="github.com/scott-yjyang/Vivim, dataloaders and train.py",
        tile=(256, 256),
        preparation=(normalise(*IMAGENET),),
        channels={3: RGB},
        classes=("target",),
        activation="sigmoid",
        note="The authors' code resizes each frame to 256 x 256; here larger frames go through in overlapping tiles.",
    ),
    "frames": Preset(
        networks=("vmrnn_b", "vmrnn_d"),
        source="github.com/yyyujintang/VMRNN-PyTorch, Moving_MNIST_VMRNN/dataset.py, configs.py and functions.py",
        tile=(64, 64),
        preparation=(normalise(standardised(0.0, 1.0)),),
        channels={1: ("grey",), 3: RGB},
        note="Frames are taken to be of 8 bits; those of another range are brought to 0 to 255 first.",
    ),
    "pathology": Preset(
        networks=("vim4path",),
        source="github.com/AtlasAnalyticsLab/Vim4Path, mil_data_creation.py and MIL/datasets/dataset_h5.py",
        tile=(224, 224),
        preparation=(normalise(*IMAGENET),),
        channels={3: RGB},
        note="Give the level of the slide at which a pixel is about 1 µm (10x).",
    ),
    "btcv": Preset(
        networks=("mamba_mim", "tp_mamba"),
        source="github.com/FengheTan9/MambaMIM, its fine-tuning on BTCV (arXiv:2408.08070, section 4)",
        tile=(96, 96, 96),
        preparation=(
            {"step": "orient", "axcodes": "RAS"},
            {"step": "transpose", "axes": [2, 1, 0]},
            normalise(standardised(0.0, 1.0, -175.0, 250.0)),
            {"step": "respace", "spacing": [1.5, 1.5, 1.5]},
        ),
        channels={1: ("CT",)},
        classes=(
            "background",
            "spleen",
            "right kidney",
            "left kidney",
            "gallbladder",
            "oesophagus",
            "liver",
            "stomach",
            "aorta",
            "inferior vena cava",
            "portal and splenic veins",
            "pancreas",
            "right adrenal gland",
            "left adrenal gland",
        ),
        note="TP-Mamba's authors publish no preparation, only that volumes are 96 x 96 x 96 with slices along the last "
        "axis: where theirs was another, give the steps yourself.",
    ),
    "exposure": Preset(
        networks=("fdv_net",),
        source="github.com/zzr-idam/FDV-NET, dataset.py and our_train.py",
        tile=(512, 512),
        preparation=(normalise("rgb_0_1"), resize(512, antialias=False)),
        channels={3: RGB},
        overlap=0.0,
        note="As with the authors each frame is made 512 x 512 and seen as a whole; what comes back has the frame's "
        "own size, and no more detail than 512 pixels hold.",
    ),
    "adni": Preset(
        networks=("gfe_mamba_pair",),
        source="github.com/Tinysqua/GFE-Mamba, dataloader/pic_table_loader.py, utils/data_normalization.py and config",
        tile=(96, 160, 160),
        preparation=(*ADNI, {"step": "resize", "shape": [96, 160, 160], "antialias": False}),
        channels={1: ("MRI",), 2: ("MRI", "PET")},
        classes=("converts to Alzheimer's disease",),
        arguments={"heads": 8},
        note=f"{ADNI_NOTE} The columns of the table have to be said: categories are numbered by their sorted values, "
        "and numbers are standardised by the table's own mean and deviation.",
    ),
    "adni-pet": Preset(
        networks=("gfe_mamba_generator",),
        source="github.com/Tinysqua/GFE-Mamba, dataloader/pic_table_loader.py and utils/data_normalization.py",
        tile=(160, 160, 96),
        preparation=(
            {"step": "transpose", "axes": [2, 1, 0]},
            *ADNI,
            {"step": "resize", "shape": [160, 160, 96], "antialias": False},
        ),
        channels={1: ("MRI",)},
        overlap=0.0,
        note=f"{ADNI_NOTE} The PET that comes out is on the MR image's scale of values, not on a PET's.",
    ),
    "imagenet": Preset(
        networks=("vim", "vmamba"),
        source="github.com/hustvl/Vim and github.com/MzeroMiko/VMamba, their evaluation transforms",
        tile=(224, 224),
        preparation=(resize(224), normalise(*IMAGENET)),
        channels={3: RGB},
        note="The authors' code cuts the middle out of an image made 256 pixels high; here the whole image is resized.",
    ),
    "sr-reg": Preset(
        networks=("mambamorph", "vmambamorph"),
        source="github.com/Guo-Stone/MambaMorph, scripts/torch/test_cross.py, generators.py and configs_TransMorph.py",
        tile=(176, 208, 192),
        preparation=(
            *PATIENT_AXES,
            {"step": "resample", "spacing": [1.0, 1.0, 1.0], "order": 1},
            normalise("rescale_0_1"),
            {"step": "centre", "size": NETWORK_SIZE},
        ),
        channels={2: PAIR},
        overlap=0.0,
        note=f"{SR_REG_NOTE} Voxels of 1 mm, in a window of the network's size about what both images show.",
    ),
    "sr-reg-128": Preset(
        networks=("mambamorph", "vmambamorph"),
        source="github.com/ziyangwang007/VMambaMorph, README.md, scripts/torch/test_cross.py and generators.py",
        tile=(128, 128, 128),
        preparation=(*PATIENT_AXES, normalise("rescale_0_1"), {"step": "resize", "shape": NETWORK_SIZE}),
        channels={2: PAIR},
        overlap=0.0,
        note=f"{SR_REG_NOTE} How they were made 128 x 128 x 128 is not told: here the whole image is resized.",
    ),
}


def presets_for(network: str) -> list[str]:
    """Names of the presets that were read for this network."""
    return [name for name, preset in PRESETS.items() if network in preset.networks]


def preset_for(name: str, network: str) -> Preset:
    """The preset called `name`; raises `InputError` if there is none, or it is for other networks."""
    if name in PRESETS and network in PRESETS[name].networks:
        return PRESETS[name]
    fitting = presets_for(network)
    hint = f"for {network} there is {', '.join(fitting)}" if fitting else f"there is none for {network}"
    if name not in PRESETS:
        raise InputError(f"no preset is called {name!r}; {hint}")
    raise InputError(f"the preset {name!r} is of {', '.join(PRESETS[name].networks)}; {hint}")
