"""Where the Triton kernels can run here: on a GPU, in Triton's interpreter, or not at all, with the reason."""

import importlib.util
import os
import sys

import pytest
import torch


def _prepare() -> str:
    """Choose the interpreter where there is no GPU; returns why there is nothing to test, or an empty text."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if torch.cuda.is_available():
        return ""
    if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
        return "Triton was imported before its interpreter could be chosen: run tests/scan/ssd by itself"
    os.environ["TRITON_INTERPRET"] = "1"
    from triton.runtime import interpreter

    known = interpreter._patch_lang_tensor

    def patch(tensor, scope):
        known(tensor, scope)
        # NumPy 2.4 turns no array of one number into an int by itself, which Triton 3.6 still counts on
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch
    return ""


REASON = _prepare()


@pytest.fixture
def device() -> torch.device:
    """Where the kernels run: a GPU, or the CPU in the interpreter."""
    if REASON:
        pytest.skip(REASON)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
