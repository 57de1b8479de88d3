"""What each network takes of an nnU-Net plan: its arguments, the sides of its patches, its optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from napari_mamba.errors import InputError

MIXERS = ("mamba", "mamba2", "s4d", "s5")
BASELINES = {
    "nnunet": "nnU-Net's own network, from the same plan",
    "resenc": "nnU-Net's residual encoder (ResEnc M), from its own plan",
}
"""Not of the registry: what a Mamba network is compared with."""

UNTRAINED = {
    "mamba_mim": "it takes cubes alone, which a plan's patches seldom are",
    "mim_istd": "it takes square images alone, which a plan's patches seldom are",
    "tp_mamba": "it begins from SAM's weights, which nnU-Net's trainers do not load",
    "uvixlstm": "it takes patches of 96 x 96 x 96 voxels and no others",
    "uxlstm_bot": "its authors' own nnU-Net trains it; here its checkpoints are imported",
    "uxlstm_enc": "its authors' own nnU-Net trains it; here its checkpoints are imported",
}
"""Segmentation networks of the registry that have no trainer, and why."""


@dataclass(frozen=True)
class PlanFacts:
    """What a plan and a data set say of a network. `blocks` and `decoder_blocks` are convolutions a stage."""

    channels: int
    classes: int
    patch_size: tuple[int, ...]
    features: tuple[int, ...]
    kernels: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]

    @property
    def dims(self) -> int:
        """2 or 3."""
        return len(self.patch_size)


@dataclass(frozen=True)
class Trainable:
    """How one network is trained by nnU-Net.

    Attributes
    ----------
    arguments : callable
        From `PlanFacts` to the network's arguments.
    dims : tuple of int
        Spatial dimensions that it has trainers for.
    multiple : int or tuple of int
        Sides of its patches are multiples of this (of these, axis by axis); 1 where the plan's strides are its own.
    alike : tuple of int
        Axes on which its patches have one length.
    channels : int
        How many the image must have; 0 for any number.
    supervised : bool
        It takes `deep_supervision=True` and answers once a decoder stage, as nnU-Net's own networks do.
    optimiser : {"sgd", "adamw"}
        nnU-Net's SGD, for networks of convolutions with a few scans; AdamW for those of token blocks throughout.
    fixed : bool
        The weights or tables depend on the patch's sides.
    """

    arguments: Callable[[PlanFacts], dict[str, Any]]
    dims: tuple[int, ...]
    multiple: int | tuple[int, ...] = 1
    alike: tuple[int, ...] = ()
    channels: int = 0
    supervised: bool = False
    optimiser: str = "sgd"
    fixed: bool = False

    def multiples(self, dims: int) -> tuple[int, ...]:
        """`multiple` of each axis."""
        return self.multiple if isinstance(self.multiple, tuple) else (self.multiple,) * dims


def _from_plan(plan: PlanFacts, *, input_size: bool = True) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "spatial_dims": plan.dims,
        "input_channels": plan.channels,
        "num_classes": plan.classes,
        "features_per_stage": list(plan.features),
        "kernel_sizes": [list(kernel) for kernel in plan.kernels],
        "strides": [list(stride) for stride in plan.strides],
        "n_conv_per_stage": list(plan.blocks),
        "n_conv_per_stage_decoder": list(plan.decoder_blocks),
    }
    return arguments | ({"input_size": list(plan.patch_size)} if input_size else {})


def _lightm(plan: PlanFacts) -> dict[str, Any]:
    # 32 filters, as in the authors' trainer for nnU-Net
    return {
        "spatial_dims": plan.dims, "init_filters": 32, "in_channels": plan.channels, "out_channels": plan.classes,
        "blocks_down": [1, 2, 2, 4], "blocks_up": [1, 1, 1],
    }  # fmt: skip


def _mucm(plan: PlanFacts) -> dict[str, Any]:
    return {
        "input_channels": plan.channels, "num_classes": plan.classes,
        "embed_dims": [8, 16, 24, 32, 48, 64, plan.channels],
    }  # fmt: skip


def _mamba_nd(plan: PlanFacts) -> dict[str, Any]:
    # the widths of the authors' smaller network for abdominal CT
    return {
        "in_channels": plan.channels, "out_channels": plan.classes, "img_size": list(plan.patch_size),
        "feature_size": 32, "hidden_size": 384,
    }  # fmt: skip


def _swin_umamba_d(plan: PlanFacts) -> dict[str, Any]:
    vss = {"in_chans": plan.channels, "patch_size": 4, "depths": [2, 2, 9, 2], "dims": 96, "drop_path_rate": 0.2}
    return {
        "vss_args": vss, "decoder_args": {"num_classes": plan.classes, "features_per_stage": [96, 192, 384, 768]}
    }  # fmt: skip


def _named(channels: str, classes: str, **fixed: Any) -> Callable[[PlanFacts], dict[str, Any]]:
    """Arguments of a network that takes no more of the plan than these two numbers, under these names."""
    return lambda plan: {channels: plan.channels, classes: plan.classes, **fixed}


_VM_DEPTHS = {"depths": [2, 2, 2, 2], "depths_decoder": [2, 2, 2, 1]}

TRAINABLE: Mapping[str, Trainable] = {
    "umamba_enc": Trainable(_from_plan, (2, 3), supervised=True),
    "umamba_bot": Trainable(_from_plan, (2, 3), supervised=True),
    "lkm_unet": Trainable(lambda plan: _from_plan(plan, input_size=False), (2, 3), supervised=True),
    "mamba_clinix": Trainable(lambda plan: _from_plan(plan, input_size=False), (3,), supervised=True),
    "lightm_unet": Trainable(_lightm, (2, 3), 8, optimiser="adamw"),
    "segmamba": Trainable(_named("in_chans", "out_chans"), (3,), 32),
    "segmamba_v2": Trainable(_named("in_chans", "out_chans"), (3,), 16),
    "nnmamba": Trainable(_named("in_ch", "number_classes", generation="nnunet"), (3,), 16),
    "t_mamba_3d": Trainable(
        lambda plan: {"in_channels": plan.channels, "classes": plan.classes, "input_size": list(plan.patch_size)},
        (3,), 8, optimiser="adamw", fixed=True,
    ),
    "em_net": Trainable(
        lambda plan: {"in_chans": plan.channels, "out_chans": plan.classes, "in_shpae": list(plan.patch_size)},
        (3,), 32, alike=(0, 1), channels=1, optimiser="adamw", fixed=True,
    ),
    "mamba_nd_unetr": Trainable(_mamba_nd, (3,), 16, alike=(1, 2), optimiser="adamw", fixed=True),
    "vivim": Trainable(_named("in_chans", "out_chans", volume=True), (3,), (5, 32, 32), optimiser="adamw"),
    "t_mamba_2d": Trainable(
        lambda plan: {"in_channels": plan.channels, "classes": plan.classes, "input_size": list(plan.patch_size)},
        (2,), 8, optimiser="adamw", fixed=True,
    ),
    "swin_umamba": Trainable(_named("in_chans", "out_chans"), (2,), 32, optimiser="adamw"),
    "swin_umamba_d": Trainable(_swin_umamba_d, (2,), 32, optimiser="adamw"),
    "mamba_unet": Trainable(_named("in_chans", "num_classes", depths=[2, 2, 2, 2]), (2,), 32, optimiser="adamw"),
    "vm_unet": Trainable(_named("input_channels", "num_classes", **_VM_DEPTHS), (2,), 32, optimiser="adamw"),
    "vm_unet_v2": Trainable(
        _named("input_channels", "num_classes", deep_supervision=False), (2,), 32, optimiser="adamw"
    ),
    "mhs_vm": Trainable(
        _named("input_channels", "num_classes", head_num=4, gfu_t=0.4, **_VM_DEPTHS), (2,), 32, optimiser="adamw"
    ),
    "msvm_unet": Trainable(_named("in_channels", "num_classes"), (2,), 32, optimiser="adamw"),
    "h_vmunet": Trainable(_named("input_channels", "num_classes"), (2,), 32, optimiser="adamw"),
    "ultralight_vm_unet": Trainable(_named("input_channels", "num_classes"), (2,), 32, optimiser="adamw"),
    "mucm_net": Trainable(_mucm, (2,), 64, optimiser="adamw"),
    "hmt_unet": Trainable(_named("input_channels", "num_classes"), (2,), 32, optimiser="adamw"),
    "vim_unet": Trainable(
        lambda plan: {"channels": plan.channels, "out_channels": plan.classes, "img_size": max(plan.patch_size)},
        (2,), 16, optimiser="adamw",
    ),
}  # fmt: skip
"""The registry's segmentation networks, by name."""

_ENDS_IN_SIGMOID = frozenset(
    {"h_vmunet", "mhs_vm", "mucm_net", "ultralight_vm_unet", "vim_unet", "vm_unet", "vm_unet_v2"}
)


def trainable(network: str) -> Trainable:
    """How `network` is trained; raises `InputError` that lists the names."""
    if network not in TRAINABLE:
        names = ", ".join(sorted([*TRAINABLE, *BASELINES]))
        raise InputError(f"there is no network {network!r} to train for segmentation; there are {names}")
    return TRAINABLE[network]


def network_arguments(network: str, mixer: str, plan: PlanFacts) -> dict[str, Any]:
    """What builds the network for a plan, as `models.create` and a bundle take it.

    Examples
    --------
    >>> plan = PlanFacts(1, 3, (64, 64), (32,), ((3, 3),), ((1, 1),), (2,), ())
    >>> network_arguments("vm_unet", "s4d", plan)["mixer"]
    's4d'
    """
    arguments = trainable(network).arguments(plan)
    if mixer != "mamba":
        arguments["mixer"] = mixer
    if network in _ENDS_IN_SIGMOID:
        arguments["logits"] = True
    return arguments


def fitted_patch(network: str, patch_size: Sequence[int]) -> tuple[int, ...]:
    """The patch's sides, each raised to the next that the network takes.

    >>> fitted_patch("segmamba", (40, 56, 40)), fitted_patch("umamba_bot", (40, 56, 40))
    ((64, 64, 64), (40, 56, 40))
    >>> fitted_patch("em_net", (40, 80, 40)), fitted_patch("vivim", (16, 80, 40))
    ((96, 96, 64), (20, 96, 64))
    """
    known = trainable(network)
    sides = [-(-side // step) * step for side, step in zip(patch_size, known.multiples(len(patch_size)), strict=True)]
    longest = max((sides[axis] for axis in known.alike), default=0)
    return tuple(longest if axis in known.alike else side for axis, side in enumerate(sides))


def check_channels(network: str, channels: int) -> None:
    """Raise `InputError` if a network does not take images of so many channels."""
    takes = TRAINABLE[network].channels if network in TRAINABLE else 0
    if takes and takes != channels:
        raise InputError(
            f"{network} takes images of {takes} channel{'s' * (takes > 1)}, and these have {channels}: choose another "
            "network (napari-mamba train --list)"
        )


def network_note(network: str, mixer: str, plan: PlanFacts) -> dict[str, Any]:
    """What stands beside the folds, so that nobody has to guess the network from its weights."""
    known = trainable(network)
    strides = [math.prod(steps) for steps in zip(*plan.strides, strict=True)]
    return {
        "name": network,
        "arguments": network_arguments(network, mixer, plan),
        "divisor": strides if known.supervised else list(known.multiples(plan.dims)),
        "fixed": known.fixed,
    }


def plan_facts(configuration: Mapping[str, Any], channels: int, classes: int) -> PlanFacts:
    """The facts of one configuration of `plans.json`, with what it inherits filled in."""
    kwargs = configuration["architecture"]["arch_kwargs"]
    strides = tuple(tuple(int(s) for s in stride) for stride in kwargs["strides"])
    stages = len(strides)
    # a plan for residual encoders counts blocks, of which deep stages have six: the published networks have two units
    blocks = kwargs.get("n_conv_per_stage", [2] * stages)
    return PlanFacts(
        channels=channels,
        classes=classes,
        patch_size=tuple(int(n) for n in configuration["patch_size"]),
        features=tuple(int(n) for n in kwargs["features_per_stage"]),
        kernels=tuple(tuple(int(n) for n in kernel) for kernel in kwargs["kernel_sizes"]),
        strides=strides,
        blocks=tuple(int(n) for n in blocks),
        decoder_blocks=tuple(int(n) for n in kwargs["n_conv_per_stage_decoder"]),
    )


def trainer_name(network: str, mixer: str = "mamba") -> str:
    """The trainer's name, as nnU-Net's `-tr` takes it.

    >>> trainer_name("umamba_bot"), trainer_name("umamba_bot", "s4d"), trainer_name("nnunet")
    ('nnUNetTrainer_umamba_bot', 'nnUNetTrainer_umamba_bot_s4d', 'nnUNetTrainer_nnunet')
    """
    return f"nnUNetTrainer_{network}" + (f"_{mixer}" if mixer != "mamba" else "")


def parse_trainer(name: str) -> tuple[str, str] | None:
    """Network and mixer of a trainer's name; None if it is none of these."""
    for network in (*TRAINABLE, *BASELINES):
        for mixer in MIXERS if network in TRAINABLE else MIXERS[:1]:
            if name == trainer_name(network, mixer):
                return network, mixer
    return None
