"""A made-up data set, and an environment in which nnU-Net can be imported."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from made_labels import made, write


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., Path]:
    """A folder with images/ and labels/ of some people, one image each."""

    def make(people: int = 4, root: str = "data", folders: tuple[str, str] = ("images", "labels")) -> Path:
        for number in range(people):
            image, labels = made(number)
            write(tmp_path / root / folders[0] / f"person{number}.nii.gz", image)
            write(tmp_path / root / folders[1] / f"person{number}.nii.gz", labels)
        return tmp_path / root

    return make


@pytest.fixture
def nnunet_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips where nnU-Net is missing, and lets it be imported beside a PyTorch without CUDA.

    nnU-Net's networks import torchvision, whose wheel on PyPI is built for CUDA: its operators do not load beside a CPU
    build of PyTorch, and the import ends where it describes one of them. Its processes find that operator declared.
    """
    if importlib.util.find_spec("nnunetv2") is None:
        pytest.skip("nnunetv2 is not installed")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(_DECLARE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


_DECLARE = """
import importlib.abc
import sys


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            if not torch.version.cuda:
                for operator in ("nms", "qnms"):
                    arguments = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                    torch.library.define(f"torchvision::{operator}", operator and arguments)
        return None


sys.meta_path.insert(0, Finder())
"""
