"""The registry of networks: what each is for, where it comes from, how to build and to recognise it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from inspect import signature
from typing import Any

import torch
from torch import nn

from napari_mamba.errors import InputError
from napari_mamba.nn.blocks.probability import Probability
from napari_mamba.nn.mixers.exchange import replace_mixers

Shapes = Mapping[str, tuple[int, ...]]
"""A state_dict's keys and the shapes of its tensors."""


@dataclass(frozen=True)
class Identification:
    """What a state_dict is, read off its keys and shapes.

    `arguments` are those that shapes determine; `ambiguous` names what they cannot (an argument to be asked for),
    and `note` says so in a sentence. `container` is the path of entries under which the checkpoint keeps its tensors,
    `prefix` what stands before every key.
    """

    name: str
    generation: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    ambiguous: tuple[str, ...] = ()
    note: str = ""
    container: tuple[str, ...] = ()
    prefix: str = ""

    def weights(self, checkpoint: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The checkpoint's tensors under the network's own keys, to be loaded with `strict=True`."""
        for entry in self.container:
            checkpoint = checkpoint[entry]
        tensors = tensors_of(checkpoint).items()
        return {key.removeprefix(self.prefix): tensor for key, tensor in tensors if key.startswith(self.prefix)}


def tensors_of(state_dict: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The entries that are a network's tensors: not epochs, nor the counters that `thop` leaves in a network."""
    counters = ("total_ops", "total_params")
    tensors = {key: value for key, value in state_dict.items() if isinstance(value, torch.Tensor)}
    return {key: value for key, value in tensors.items() if isinstance(key, str) and not key.endswith(counters)}


@dataclass(frozen=True)
class ModelInfo:
    """A registered network. `vectors` maps a parity vector's name to the arguments that build it.

    `frames` is how many frames of a film it takes at once, 0 for a network of one image. `unused` are arguments of the
    authors' constructor that change nothing: they are taken, so that the authors' configurations can be used.
    """

    name: str
    build: Callable[..., nn.Module]
    task: str
    spatial_dims: tuple[int, ...]
    paper: str
    repository: str
    licence: str
    scan_order: str
    title: str = ""
    vectors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    identify: Callable[[Shapes], Identification | None] | None = None
    frames: int = 0
    unused: tuple[str, ...] = ()


_REGISTRY: dict[str, ModelInfo] = {}


def register(*, name: str, **facts: Any) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Decorator for a network class or function: enters it in the registry under `name`."""

    def enter(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        if name in _REGISTRY:
            raise ValueError(f"two networks are called {name!r}")
        _REGISTRY[name] = ModelInfo(name=name, build=build, **facts)
        return build

    return enter


@cache
def _load_all() -> None:
    package = importlib.import_module(__package__)
    for module in pkgutil.walk_packages(package.__path__, f"{__package__}."):
        importlib.import_module(module.name)


@cache
def _modules() -> tuple[str, ...]:
    """The files' names as modules, by their last word, longest first; packages are imported for it, their files not."""
    package = importlib.import_module(__package__)
    found = pkgutil.walk_packages(package.__path__, f"{__package__}.")
    return tuple(sorted((module.name for module in found), key=lambda name: (-len(name.split(".")[-1]), name)))


def _found(name: str) -> ModelInfo | None:
    """The network of a name: sought in the files whose own name is in it, and only then in all.

    The files of all networks take a third of a second to import, those of one a tenth.
    """
    for module in _modules():
        if name in _REGISTRY:
            break
        if module.split(".")[-1] in name:
            importlib.import_module(module)
    if name not in _REGISTRY:
        _load_all()
    return _REGISTRY.get(name)


def list_models() -> list[ModelInfo]:
    """Every registered network, by name."""
    _load_all()
    return [_REGISTRY[name] for name in sorted(_REGISTRY)]


def info(name: str) -> ModelInfo:
    """The registered network called `name`; raises `InputError` that lists the known names."""
    found = _found(name)
    if found is None:
        raise InputError(f"no network is called {name!r}; known are {', '.join(sorted(_REGISTRY))}")
    return found


def one_at_a_time(name: str) -> bool:
    """Whether the images of a batch change each other's answers, so that a run gives this network one alone.

    >>> one_at_a_time("fdv_net"), one_at_a_time("vm_unet")
    (True, False)
    """
    found = _found(name)
    return found is not None and bool(getattr(found.build, "one_at_a_time", False))


def scans(name: str) -> bool:
    """Whether the network of a name has selective scans; not where none is called so.

    >>> scans("umamba_enc"), scans("none")
    (True, False)
    """
    found = _found(name)
    return found is not None and bool(found.scan_order)


def create(name: str, *, mixer: str = "mamba", logits: bool = False, **arguments: Any) -> nn.Module:
    """Build the network called `name`, with random weights.

    Parameters
    ----------
    name : str
        A name from `list_models`, such as "umamba_enc".
    mixer : {"mamba", "mamba2", "s4d", "s5", "s4", "h3"}
        What mixes tokens: S6 as published, or another in its place (`nn.exchange`), with new parameters.
    logits : bool
        Leave out the sigmoid with which some networks end as published; a bundle's activation takes its place.
    **arguments
        The network's own, named as its authors name them.

    Raises
    ------
    InputError
        If there is no such network, it does not take these arguments, or its mixer cannot be exchanged.

    Examples
    --------
    >>> create("ultralight_vm_unet", mixer="s4d")(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 1, 64, 64])
    """
    model = info(name)
    used = {key: value for key, value in arguments.items() if key not in model.unused}
    taken = signature(model.build).parameters
    if all(one.kind is not one.VAR_KEYWORD for one in taken.values()) and (
        odd := [key for key in used if key not in taken]
    ):
        raise InputError(f"{name} takes no argument {odd[0]!r}: it takes {', '.join(taken)}")
    try:
        network = model.build(**used)
    except TypeError as error:
        raise InputError(f"{name} cannot be built with these arguments: {error}") from error
    replace_mixers(network, mixer, name)
    for module in network.modules():
        if isinstance(module, Probability):
            module.logits = logits
    return network
