"""Every segmentation network has a trainer, is built for a plan, and answers in the plan's classes."""

from __future__ import annotations

import pytest
import torch

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.training.nnunet.networks import (
    BASELINES,
    MIXERS,
    TRAINABLE,
    UNTRAINED,
    PlanFacts,
    Trainable,
    check_channels,
    fitted_patch,
    network_arguments,
    network_note,
    parse_trainer,
    plan_facts,
    trainer_name,
)
from napari_mamba.training.nnunet.options import Run, TrainOptions, check_mixers


def plan(dims: int, side: int = 24, channels: int = 2, classes: int = 4) -> PlanFacts:
    stages, size = 3, (side, *(side,) * (dims - 1))
    strides = ((1,) * dims, (2,) * dims, (2,) * dims)
    return PlanFacts(channels, classes, size, (16, 32, 64), ((3,) * dims,) * stages, strides, (2,) * stages, (2, 2))


def test_every_segmentation_network_of_the_registry_can_be_trained_or_says_why_not() -> None:
    known = {info.name: info for info in models.list_models() if info.task == "segmentation"}
    assert set(TRAINABLE) == set(known) - set(UNTRAINED)
    assert set(UNTRAINED) < set(known)
    assert all(set(of.dims) <= set(known[name].spatial_dims) for name, of in TRAINABLE.items())


CASES = [(name, dims) for name, known in TRAINABLE.items() for dims in known.dims]


@pytest.mark.parametrize(("name", "dims"), CASES, ids=[f"{name}-{dims}d" for name, dims in CASES])
def test_it_is_built_for_a_plan_and_answers_in_its_classes(name: str, dims: int) -> None:
    channels = TRAINABLE[name].channels or 2
    # 24 where instance norms would see one voxel of a patch of 16
    side = 24 if name in ("segmamba_v2", "vim_unet") else 16
    size = fitted_patch(name, plan(dims, side).patch_size)
    facts = PlanFacts(**{**vars(plan(dims)), "patch_size": size, "channels": channels})
    arguments = network_arguments(name, "mamba", facts)
    if TRAINABLE[name].supervised:
        arguments["deep_supervision"] = True
    network = models.create(name, **arguments)
    answer = network(torch.randn(2, channels, *size))
    if TRAINABLE[name].supervised:
        # nnU-Net halves its targets with the plan's strides, from the finest answer on
        assert [tuple(one.shape[2:]) for one in answer] == [size, tuple(n // 2 for n in size)]
        answer = answer[0]
    assert answer.shape == (2, 4, *size)
    if name != "nnmamba":  # its published answer has passed a ReLU
        assert answer.min() < 0, "these are logits, of both signs"
    if TRAINABLE[name].supervised:
        holders = [module for module in network.modules() if hasattr(module, "deep_supervision")]
        for module in holders:
            module.deep_supervision = False
        assert isinstance(network(torch.randn(2, 2, *size)), torch.Tensor)


def test_note_says_what_tiles_must_be_multiples_of() -> None:
    assert network_note("umamba_bot", "mamba", plan(3))["divisor"] == [4, 4, 4]
    assert network_note("segmamba", "mamba", plan(3))["divisor"] == [32, 32, 32]
    assert network_note("vivim", "mamba", plan(3))["divisor"] == [5, 32, 32]
    assert network_note("t_mamba_3d", "mamba", plan(3))["fixed"] is True
    assert network_note("umamba_bot", "s5", plan(3))["arguments"]["mixer"] == "s5"


def test_trainers_names_are_read_back() -> None:
    for network in (*TRAINABLE, *BASELINES):
        for mixer in MIXERS if network in TRAINABLE else ("mamba",):
            assert parse_trainer(trainer_name(network, mixer)) == (network, mixer)
    assert parse_trainer("nnUNetTrainer") is None
    assert parse_trainer("nnUNetTrainer_umamba_bot_fnet") is None


def test_a_network_of_one_channel_says_so() -> None:
    check_channels("em_net", 1)
    check_channels("segmamba", 4)
    check_channels("nnunet", 4)
    with pytest.raises(InputError, match="em_net takes images of 1 channel, and these have 2: choose another"):
        check_channels("em_net", 2)


def test_facts_are_read_off_a_plan_of_either_kind() -> None:
    kwargs = {
        "features_per_stage": [8, 16], "kernel_sizes": [[3, 3], [3, 3]], "strides": [[1, 1], [2, 2]],
        "n_conv_per_stage": [3, 3], "n_conv_per_stage_decoder": [2],
    }  # fmt: skip
    plain = plan_facts({"patch_size": [32, 32], "architecture": {"arch_kwargs": kwargs}}, 1, 2)
    assert plain.blocks == (3, 3)
    residual = {**kwargs, "n_blocks_per_stage": [1, 6]}
    del residual["n_conv_per_stage"]
    assert plan_facts({"patch_size": [32, 32], "architecture": {"arch_kwargs": residual}}, 1, 2).blocks == (2, 2)


def test_runs_are_networks_times_mixers_and_baselines_once() -> None:
    runs = TrainOptions(("umamba_bot", "resenc"), ("mamba", "s5")).runs
    assert [run.name for run in runs] == ["umamba_bot", "umamba_bot-s5", "resenc"]
    assert runs[2].planner == ("nnUNetPlannerResEncM", "nnUNetResEncUNetMPlans")
    assert Run("vm_unet").configuration(3) == "2d"
    assert Run("segmamba").configuration(3) == "3d_fullres"
    assert Run("umamba_bot").configuration(2) == "2d"


@pytest.mark.parametrize("name", TRAINABLE)
def test_every_network_takes_another_mixer(name: str) -> None:
    check_mixers((Run(name, "s5"),))


def test_a_mixer_that_a_network_does_not_take_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRAINABLE, "fluence", Trainable(lambda plan: {}, (3,)))
    with pytest.raises(InputError, match="fluence"):
        check_mixers((Run("fluence", "s4d"),))


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        ({"networks": ("umamba",)}, "there is no network 'umamba'"),
        ({"networks": ()}, "--network"),
        ({"networks": ("vm_unet",), "mixers": ("s6",)}, "there is no mixer 's6'"),
        ({"networks": ("vm_unet",), "configuration": "3d_fullres"}, "vm_unet sees slices"),
        ({"networks": ("vm_unet",), "configuration": "3d_lowres"}, "2d and 3d_fullres"),
        ({"networks": ("vm_unet",), "epochs": 3, "minutes": 2.0}, "give one of them"),
        ({"networks": ("vm_unet",), "epochs": 0}, "epochs is above 0"),
        ({"networks": ("vm_unet",), "minutes": float("nan")}, "minutes is above 0"),
        ({"networks": ("vm_unet",), "device": "gpu"}, "--device gpu"),
    ],
)
def test_options_that_cannot_be(chosen: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        TrainOptions(**chosen)
