"""Grids and classes on which every format is tried."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_mamba.volume import Volume


@dataclass(frozen=True)
class Label:
    index: int
    name: str
    color: str


def _oblique(spacing: tuple[float, float, float], angles: tuple[float, float, float]) -> np.ndarray:
    affine = np.eye(4)
    # columns (z, y, x): z towards S, y towards A, x towards R before the rotation
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()[:, ::-1] * spacing
    affine[:3, 3] = [-123.456, 45.678, 901.234]
    return affine


def _left_handed() -> np.ndarray:
    affine = _oblique((3.3, 0.9, 0.7), (10, 20, 30)).copy()
    affine[:3, 2] *= -1
    return affine


def _sheared() -> np.ndarray:
    affine = _oblique((3.3, 0.9, 0.7), (10, 20, 30)).copy()
    affine[:3, 0] += 0.4 * affine[:3, 1]  # a tilted gantry
    return affine


def _psr() -> np.ndarray:
    affine = np.zeros((4, 4))
    affine[1, 2], affine[2, 1], affine[0, 0] = -0.5, 0.8, 4.0  # x runs to P, y to S, z to R
    affine[:, 3] = [1.5, -20.25, 300.125, 1]
    return affine


AFFINES = {
    "oblique": _oblique((3.3, 0.9, 0.7), (10, 20, 30)),
    "left-handed": _left_handed(),
    "sheared": _sheared(),
    "PSR": _psr(),
    "anisotropic": _oblique((12.0, 0.01, 0.3), (0, 0, 0)),
    "half-turn": _oblique((1.0, 1.0, 2.0), (180, 0, 0)),  # where a quaternion's scalar part is 0
}


@pytest.fixture(params=list(AFFINES))
def affine(request: pytest.FixtureRequest) -> np.ndarray:
    """A (z, y, x) → RAS affine of each kind that a scanner or a program makes."""
    return AFFINES[request.param]


@pytest.fixture
def label_map(rng: np.random.Generator, affine: np.ndarray) -> Volume:
    """Labels 0, 1 and 2 as int64, which no file may hold."""
    return Volume(rng.integers(0, 3, (1, 5, 6, 7)), affine)


@pytest.fixture
def classes() -> list[Label]:
    return [
        Label(0, "background", "#000000"),
        Label(1, 'Anterior & <left> "one"', "#ff0000"),
        Label(2, "Äußerer\nRand", "#00ff80"),
    ]
