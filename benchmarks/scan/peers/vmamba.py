"""VMamba's selective scan ("oflex"), whose networks have one state, called without autograd and without copies.

`build_vmamba.sh` builds it from a clone of github.com/MzeroMiko/VMamba; VMAMBA_SCAN names the library.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

import torch
from torch import Tensor

from benchmarks.scan.peers import Inputs

SHORTEST = 1025  # positions; below, VMamba has other blocks, which are not built
TENSORS = ("u", "delta", "A", "B", "C", "D", "bias", "y", "ends")
GRADIENTS = ("dy", "du", "ddelta", "dA", "dB", "dC", "dD", "dbias")


class _Problem(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int) for name in ("batch", "channels", "length", "states")),
        *((name, ctypes.c_void_p) for name in (*TENSORS, *GRADIENTS)),
    )


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(os.environ["VMAMBA_SCAN"])
    for function in (library.vmamba_forward, library.vmamba_backward):
        function.argtypes, function.restype = [ctypes.POINTER(_Problem), ctypes.c_int, ctypes.c_void_p], ctypes.c_int
    return library


def unavailable() -> str:
    """Why VMamba's scan kernel cannot be called here, or an empty text."""
    if "VMAMBA_SCAN" not in os.environ:
        return "VMAMBA_SCAN does not name VMamba's library (benchmarks/scan/peers/build_vmamba.sh)"
    try:
        _library()
    except (OSError, AttributeError) as error:
        return f"VMamba's library cannot be loaded ({error})"
    return ""


class Scan:
    """A problem in VMamba's layout, (B, D, L); z is left out, which VMamba's kernel does not have.

    Parameters
    ----------
    x : dict
        u, delta (B, L, D), B and C (B, L, N), A (D, N), D and delta_bias (D,); L above 1024.

    Attributes
    ----------
    t : dict of Tensor
        What the kernels read and write; after `backward` the gradients, those of A, B, C, D and the bias summed up.
    """

    def __init__(self, x: Inputs) -> None:
        u = x["u"].transpose(1, 2).contiguous()
        (batch, width, length), states = u.shape, x["A"].shape[1]
        if length < SHORTEST:
            raise ValueError(f"length is {length}, at least {SHORTEST}")
        t = {"u": u, "delta": x["delta"].transpose(1, 2).contiguous(), "A": x["A"].contiguous()}
        t |= {name: x[name].transpose(1, 2).contiguous() for name in "BC"}
        t |= {"D": x["D"], "bias": x["delta_bias"], "y": torch.empty_like(u), "dy": torch.empty_like(u)}
        t["ends"] = u.new_empty(batch, width, -(-length // 2048), 2 * states, dtype=torch.float32)
        t |= {"du": torch.empty_like(u), "ddelta": torch.empty_like(u)}
        for name, like in (("dA", "A"), ("dB", "B"), ("dC", "C"), ("dD", "D"), ("dbias", "bias")):
            t[name] = torch.zeros_like(t[like], dtype=torch.float32)
        self.t: dict[str, Tensor] = t
        self.half = int(u.dtype == torch.bfloat16)
        addresses = (t[name].data_ptr() for name in (*TENSORS, *GRADIENTS))
        self.problem = _Problem(batch, width, length, states, *addresses)

    def _run(self, function: ctypes._NamedFuncPointer) -> None:
        error = function(ctypes.byref(self.problem), self.half, torch.cuda.current_stream().cuda_stream)
        if error:
            raise RuntimeError(f"CUDA error {error} in VMamba's scan")

    def forward(self) -> Tensor:
        """y, (B, D, L)."""
        self._run(_library().vmamba_forward)
        return self.t["y"]

    def backward(self) -> dict[str, Tensor]:
        """The gradients for `t["dy"]`; `forward` has run before. Zeroing the sums belongs to it, as in VMamba's own."""
        for name in ("dA", "dB", "dC", "dD", "dbias"):
            self.t[name].zero_()
        self._run(_library().vmamba_backward)
        return {name: self.t[name] for name in GRADIENTS[1:]}
