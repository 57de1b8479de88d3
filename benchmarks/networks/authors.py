"""The authors' own networks, loaded from clones of their repositories that this repository does not contain.

`load(name, folder)` wants `folder/U-Mamba` (github.com/bowang-lab/U-Mamba) and `folder/SegMamba`
(github.com/ge-xing/SegMamba), the packages mamba-ssm, causal-conv1d and MONAI installed, and
dynamic-network-architectures installed or a folder of that name in `folder`. The files run unchanged but for what they
import: U-Mamba's network without the rest of nnU-Net, and SegMamba's fork of mamba-ssm (its bidirectional mixer) on the
scan and convolution kernels of the released packages, which are the same kernels with one argument list changed.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

UMAMBA = {
    "spatial_dims": 3,
    "input_channels": 1,
    "num_classes": 3,
    "features_per_stage": (32, 64, 128, 256, 320, 320),
    "kernel_sizes": 3,
    "strides": (1, 2, 2, 2, 2, 2),
    "n_conv_per_stage": 2,
    "n_conv_per_stage_decoder": 2,
}
"""nnU-Net's plan of a 3D full-resolution network, as ours takes it; `input_size` is the tile."""

SEGMAMBA = {"in_chans": 4, "out_chans": 4}


def arguments(name: str, size: int) -> dict[str, Any]:
    """Our arguments of a network for a tile of size³."""
    return UMAMBA | {"input_size": (size,) * 3} if name == "umamba_enc" else dict(SEGMAMBA)


def channels(name: str) -> int:
    """Input channels of that configuration."""
    return 1 if name == "umamba_enc" else 4


def load(name: str, folder: Path, size: int) -> nn.Module:
    """The authors' network with its own initial weights, in eval mode, on the CPU."""
    with contextlib.redirect_stdout(io.StringIO()):  # U-Mamba prints its sizes
        network = {"umamba_enc": _umamba, "segmamba": _segmamba}[name](Path(folder).resolve(), size)
    return network.eval()


@contextlib.contextmanager
def _modules(**stand_ins: types.ModuleType) -> Iterator[None]:
    """Let imports find these modules (dots in names written as "__"), and afterwards what was there before."""
    named = {key.replace("__", "."): module for key, module in stand_ins.items()}
    inside = tuple(f"{key}." for key in named)
    saved = {key: module for key, module in sys.modules.items() if key in named or key.startswith(inside)}
    for key in saved:
        del sys.modules[key]
    sys.modules.update(named)
    try:
        yield
    finally:
        for key in [key for key in sys.modules if key in named or key.startswith(inside)]:
            del sys.modules[key]
        sys.modules.update(saved)


def _file(path: Path, name: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.exists():
        raise FileNotFoundError(f"{path} is not there: clone the authors' repository")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _module(name: str, **contents: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__dict__.update(contents)
    return module


def _umamba(folder: Path, size: int) -> nn.Module:
    if (folder / "dynamic_network_architectures").is_dir() and str(folder) not in sys.path:
        sys.path.append(str(folder))
    root = folder / "U-Mamba" / "umamba" / "nnunetv2"
    plans = _module("plans_handler", ConfigurationManager=object, PlansManager=object)
    start = _file(root / "utilities" / "network_initialization.py", "authors_initialization")
    with _modules(
        nnunetv2__utilities__plans_handling__plans_handler=plans, nnunetv2__utilities__network_initialization=start
    ):
        module = _file(root / "nets" / "UMambaEnc_3d.py", "authors_umamba")
    stages = len(UMAMBA["features_per_stage"])
    network = module.UMambaEnc(
        input_size=[size] * 3,
        input_channels=UMAMBA["input_channels"],
        n_stages=stages,
        features_per_stage=list(UMAMBA["features_per_stage"]),
        conv_op=nn.Conv3d,
        kernel_sizes=[[3] * 3] * stages,
        strides=[[s] * 3 for s in UMAMBA["strides"]],
        n_conv_per_stage=[2] * stages,
        num_classes=UMAMBA["num_classes"],
        n_conv_per_stage_decoder=[2] * (stages - 1),
        conv_bias=True,
        norm_op=nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=False,
    )
    return network.apply(start.InitWeights_He(1e-2))


def _older_convolution() -> types.ModuleType:
    """causal_conv1d_cuda with the argument list of causal-conv1d 1.0, which SegMamba's fork calls."""
    import causal_conv1d_cuda as kernels

    def forward(x, weight, bias, silu):
        out = torch.empty_like(x)
        kernels.causal_conv1d_fwd(x, weight, bias, None, None, out, None, silu)
        return out

    return _module("causal_conv1d_cuda", causal_conv1d_fwd=forward)


def _segmamba(folder: Path, size: int) -> nn.Module:
    import causal_conv1d  # noqa: F401  (with the kernels' real argument list, before the stand-in)

    root = folder / "SegMamba"
    if not (root / "mamba" / "mamba_ssm" / "modules").is_dir():
        raise FileNotFoundError(f"{root} is not there: clone the authors' repository with its mamba folder")
    fork = _module("mamba_ssm", __path__=[str(root / "mamba" / "mamba_ssm")])
    with _modules(mamba_ssm=fork, causal_conv1d_cuda=_older_convolution()):
        fork.Mamba = importlib.import_module("mamba_ssm.modules.mamba_simple").Mamba
        module = _file(root / "model_segmamba" / "segmamba.py", "authors_segmamba")
    return module.SegMamba(**SEGMAMBA)
