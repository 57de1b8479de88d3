"""Between state_dicts and networks: building, filling, and which keys name one and the same tensor."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from napari_mamba import models
from napari_mamba.bundles.doors import no_larger_than
from napari_mamba.bundles.int8 import SCALE, dequantize, quantize
from napari_mamba.bundles.spec import BundleSpec, Network
from napari_mamba.bundles.vocabulary import Dtype
from napari_mamba.errors import BundleError, InputError
from napari_mamba.io.common.guard import quoted


class _Unfilled(TorchFunctionMode):
    """While it lasts, PyTorch's common initialisers leave tensors as memory was.

    The tensors' own methods still draw: truncated normals are drawn until they are within their bounds.
    """

    _RANDOM = frozenset(
        {
            *(nn.init.uniform_, nn.init.normal_),
            *(nn.init.kaiming_uniform_, nn.init.kaiming_normal_, nn.init.xavier_uniform_, nn.init.xavier_normal_),
        }
    )

    _INSIDE: Any = (getattr(nn.init, name, None) for name in ("_no_grad_uniform_", "_no_grad_normal_"))
    _CODES = frozenset(inspect.unwrap(one).__code__ for one in [*_RANDOM, *_INSIDE] if one is not None)
    _DRAWS = frozenset({Tensor.normal_, Tensor.uniform_})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func in self._RANDOM:
            return args[0] if args else given["tensor"]
        # Of some initialisers, kaiming_normal_ for one, PyTorch tells a mode nothing but that they draw.
        if func in self._DRAWS and sys._getframe(1).f_code in self._CODES:
            return args[0]
        return func(*args, **given)


def build(spec: BundleSpec, weights: Mapping[str, Tensor] | None = None, network: Network | None = None) -> nn.Module:
    """The network `spec` names, with random weights; with none that mean anything where `weights` will `fill` it.

    Half of what building takes goes into random numbers. `network` is another one than `spec.network`: of a member.

    Raises
    ------
    BundleError
        If it cannot be built, or would be much larger than the `weights` that are meant for it.
    """
    network = network or spec.network
    try:
        if weights is None:
            return models.create(network.name, **network.arguments)
        with no_larger_than(weights), _Unfilled():
            return models.create(network.name, **network.arguments)
    except InputError as error:
        raise BundleError(f"bundle {spec.name}: {error}") from error
    except Exception as error:  # a network may fail on arguments from outside in any way
        raise BundleError(
            f"bundle {spec.name}: the network {network.name} cannot be built with its arguments ({quoted(error)})"
        ) from error


def aliases(network: nn.Module) -> dict[str, str]:
    """Keys of the state_dict that name a tensor which an earlier key names too, each with that first key.

    U-Mamba's decoder, for one, holds its encoder, so that every weight of the encoder has two names.
    """
    first: dict[int, str] = {}
    return {
        key: first[id(tensor)]
        for key, tensor in network.state_dict(keep_vars=True).items()
        if first.setdefault(id(tensor), key) != key
    }


def fill(network: nn.Module, weights: Mapping[str, Tensor], where: str) -> nn.Module:
    """Load `weights` strictly, save that of several names of one tensor one is enough.

    Raises
    ------
    BundleError
        If keys are missing, unknown or of another shape, or a value is not finite.
    """
    same = aliases(network)
    own = network.state_dict()
    whole = dict(weights)
    for key, original in same.items():
        if key not in whole and original in whole:
            whole[key] = whole[original]
    missing = sorted(own.keys() - whole.keys())
    unknown = sorted(whole.keys() - own.keys())
    misshapen = [key for key in own if key in whole and own[key].shape != whole[key].shape]
    for what, keys in (("lack", missing), ("hold the unknown", unknown), ("have another shape in", misshapen)):
        if keys:
            raise BundleError(
                f"{where}: these are not the network's weights, they {what} {keys[0]!r} ({len(keys)} keys)"
            )
    if bad := _not_finite(whole):
        raise BundleError(
            f"{where}: the weights {bad!r} are not finite numbers: the training diverged or the file broke"
        )
    if _as_they_are(network) and all(whole[key] is whole[original] for key, original in same.items()):
        _take(network, whole, same)
    else:
        network.load_state_dict(whole, strict=True)
    return network


def _not_finite(weights: Mapping[str, Tensor]) -> str:
    """The key of a tensor that holds NaN or infinity, or an empty text; a device is asked once for all."""
    each = {id(t): (key, t) for key, t in weights.items() if t.is_floating_point()}.values()
    if not each:
        return ""
    finite = torch.stack([torch.isfinite(t).all() for _, t in each])
    if bool(finite.all()):
        return ""
    return next(key for (key, _), good in zip(each, finite.tolist(), strict=True) if not good)


def _as_they_are(network: nn.Module) -> bool:
    """Whether every module takes a state_dict's tensors as they are.

    Some change names of older versions; PyTorch's own only add what `fill` misses, and refuses.
    """

    def changes(module: nn.Module) -> bool:
        loads = type(module)._load_from_state_dict.__module__
        hooked = module._load_state_dict_pre_hooks or module._load_state_dict_post_hooks
        return bool(hooked) or not loads.startswith("torch.nn.modules.")

    return not any(map(changes, network.modules()))


@torch.no_grad()
def _take(network: nn.Module, weights: Mapping[str, Tensor], same: Mapping[str, str]) -> None:
    """Copy each tensor once; those of another device take the place of the network's own."""
    for key, own in network.state_dict(keep_vars=True).items():
        if key in same:
            continue
        if own.device == weights[key].device:
            own.copy_(weights[key])
        else:
            own.data = weights[key].to(own.dtype).contiguous()


def compact(network: nn.Module, weights: Mapping[str, Tensor], dtype: Dtype) -> dict[str, Tensor]:
    """What to store: each tensor once, contiguous, floats as `dtype` (as float32 where float16 would overflow).

    With "int8" kernels and matrices in eight bits (`int8.quantize`), other floats as float16.

    Raises
    ------
    BundleError
        If two names of one tensor come with different values.
    """
    same = aliases(network)
    for key, original in same.items():
        if key in weights and original in weights and not torch.equal(weights[key], weights[original]):
            raise BundleError(f"{key!r} and {original!r} are one tensor in the network, but differ in these weights")
    once = {key: t for key, t in weights.items() if same.get(key, key) == key or same[key] not in weights}
    return stored(once, dtype)


def stored(weights: Mapping[str, Tensor], dtype: Dtype) -> dict[str, Tensor]:
    """Weights as a file of `dtype` holds them; `int8.dequantize` of it are those that a bundle gives."""
    if dtype != "int8":
        return {key: _stored(tensor, getattr(torch, dtype)) for key, tensor in weights.items()}
    small = quantize(weights)
    return {
        key: tensor.cpu().contiguous() if key.endswith(SCALE) else _stored(tensor, torch.float16)
        for key, tensor in small.items()
    }


def smallest(weights: Sequence[Mapping[str, Tensor]]) -> Dtype:
    """The type of file that keeps every weight as it is."""
    for dtype in ("int8", "float16"):
        if all(_kept(one, dtype) for one in weights):
            return dtype
    return "float32"


def _kept(weights: Mapping[str, Tensor], dtype: Dtype) -> bool:
    again = dequantize(stored(weights, dtype))
    return all(torch.equal(again[key].to(value.dtype), value.cpu()) for key, value in weights.items())


def _stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        fits = tensor.abs().max() <= torch.finfo(dtype).max if tensor.numel() else True
        tensor = tensor.to(dtype if fits else torch.float32)
    return tensor.clone(memory_format=torch.contiguous_format)
