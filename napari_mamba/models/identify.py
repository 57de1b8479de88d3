"""Which network a checkpoint belongs to, read off the keys and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, ModelInfo, Shapes, create, info, list_models, tensors_of

# Entries under which training programs keep a network's tensors; weights averaged over the training come first.
CONTAINERS = (
    "network_weights",
    "params_ema",
    "params",
    "model_ema",
    "ema_model",
    "state_dict",
    "module",
    "model_state_dict",
    "model_state",
    "model",
    "network",
    "net",
    "net_model",
    "teacher",
)

# How entries begin that hold something else: what an optimiser remembers, a network that is not the one to use.
ASIDE = ("optim", "sched", "scaler", "student", "disc", "critic", "loss")

# Looked for after all others: a Vim of two classes has the keys of a Vim4Path, which asks.
LAST = ("vim",)


def identify(
    state_dict: Mapping[str, Any], name: str | None = None, arguments: Mapping[str, Any] | None = None
) -> Identification:
    """Recognise the network, its generation and its arguments.

    Looks into the entries that hold weights in common checkpoints (`CONTAINERS`; into another one where no other entry
    holds tensors), and past prefixes that all keys
    share ("module.", "_orig_mod.", "mamba_unet."…). Of a DINO checkpoint it is the teacher's encoder, as its authors
    take it.

    Parameters
    ----------
    state_dict : mapping
        A state_dict, or a checkpoint that holds one.
    name : str, optional
        Look for this network alone.
    arguments : mapping, optional
        Its arguments, where its keys and shapes do not tell them: what fits a network built so is taken.

    Returns
    -------
    Identification
        `identification.weights(state_dict)` are the tensors under the network's own keys.

    Raises
    ------
    InputError
        If it holds no tensors, or those of no network known here.

    Examples
    --------
    >>> network = create("umamba_bot", spatial_dims=2, input_channels=1, num_classes=2, features_per_stage=[8, 16],
    ...                  kernel_sizes=3, strides=[1, 2], n_conv_per_stage=1, n_conv_per_stage_decoder=1)
    >>> identify({"network_weights": network.state_dict()}).name
    'umamba_bot'
    """
    near_miss = ""
    candidates = sorted(list_models(), key=lambda model: model.name in LAST) if name is None else [info(name)]
    for container, tensors in _contained(state_dict):
        for prefix, shapes in _unprefixed(tensors):
            for model in candidates:
                found = _recognise(model, shapes)
                if found is None and name is not None and arguments:
                    found = Identification(name, arguments=dict(arguments))
                if found is None:
                    continue
                if misfits := _mismatches(found, shapes):
                    near_miss = near_miss or (
                        f"the weights resemble {model.title or model.name}, but {len(misfits)} tensors are missing, "
                        f"unknown or of another shape, such as {misfits[0]}"
                    )
                    continue
                return replace(found, container=container, prefix=prefix)
    raise InputError(near_miss or _unknown(state_dict, candidates))


def _contained(checkpoint: Mapping[str, Any], depth: int = 3) -> Iterator[tuple[tuple[str, ...], Shapes]]:
    """The sets of tensors in a checkpoint, each with the path of entries that leads to it."""
    if tensors := tensors_of(checkpoint):
        yield (), {key: tuple(value.shape) for key, value in tensors.items()}
    for entry in CONTAINERS if depth else ():
        if isinstance(inner := checkpoint.get(entry), Mapping):
            for path, shapes in _contained(inner, depth - 1):
                yield (entry, *path), shapes
    others = {entry: list(_contained(checkpoint[entry], depth - 1)) for entry in _other_entries(checkpoint, depth)}
    if len(holding := {entry: found for entry, found in others.items() if found}) == 1:
        entry, found = holding.popitem()
        yield from (((entry, *path), shapes) for path, shapes in found)


def _other_entries(checkpoint: Mapping[str, Any], depth: int) -> list[str]:
    """Entries of other names that may hold a network; of several nobody could say which is meant."""
    if not depth or any(isinstance(checkpoint.get(entry), Mapping) for entry in CONTAINERS):
        return []
    return [
        entry
        for entry, inner in checkpoint.items()
        if isinstance(entry, str) and isinstance(inner, Mapping) and not entry.lower().startswith(ASIDE)
    ]


def _unprefixed(shapes: Shapes) -> Iterator[tuple[str, Shapes]]:
    """The keys as they are, then without the first name they all share, and so on.

    DINO keeps an encoder as "backbone" beside the "head" that it is trained with: then without what is not the encoder.
    """
    prefix = ""
    while True:
        yield prefix, shapes
        heads = {key.partition(".")[0] for key in shapes}
        if heads == {"backbone", "head"} and any(key.startswith("head.last_layer.") for key in shapes):
            heads = {"backbone"}
        if len(heads) != 1 or any("." not in key for key in shapes):
            return
        head = f"{heads.pop()}."
        inner = {key.removeprefix(head): shape for key, shape in shapes.items() if key.startswith(head)}
        prefix, shapes = prefix + head, inner


def _recognise(model: ModelInfo, shapes: Shapes) -> Identification | None:
    try:
        return model.identify(shapes) if model.identify is not None else None
    except (KeyError, IndexError):
        return None  # it has the network's telltale keys, but not those its arguments are read from


def _mismatches(found: Identification, shapes: Shapes) -> list[str]:
    """Keys in which the network that was recognised differs from the tensors; none if shapes do not say enough."""
    try:
        with torch.device("meta"):
            network = create(found.name, **found.arguments)
    except (InputError, NotImplementedError, RuntimeError):
        return []  # an ambiguous argument is missing, or the initialisation needs real tensors
    ours = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    misfits = sorted(key for key in ours.keys() | shapes.keys() if ours.get(key) != shapes.get(key))
    return [] if misfits and _loads(network, shapes) else misfits


def _loads(network: torch.nn.Module, shapes: Shapes) -> bool:
    """Whether the network itself loads these tensors, as one does that renames those of its older releases."""
    try:
        network.load_state_dict({key: torch.empty(shape, device="meta") for key, shape in shapes.items()}, assign=True)
    except RuntimeError:
        return False
    return True


def _unknown(state_dict: Mapping[str, Any], candidates: list[ModelInfo]) -> str:
    keys = [key for _, shapes in _contained(state_dict) for key in shapes]
    if not keys:
        return "the file holds no network weights; choose the checkpoint that the training wrote"
    known = ", ".join(model.title or model.name for model in candidates)
    if len(candidates) == 1:
        return f"these weights ({keys[0]!r} and {len(keys) - 1} others) are not those of {known}; leave the name out"
    return f"these weights ({keys[0]!r} and {len(keys) - 1} others) belong to none of the networks known here: {known}"
