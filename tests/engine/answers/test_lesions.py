"""Lesions that were labelled as healthy tissue: cortex too thick, white matter unlike the rest of it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from engine_fakes import Apply, fake_bundle, two_classes
from scipy import ndimage

from napari_mamba.bundles import Tile
from napari_mamba.engine import run_to_end
from napari_mamba.engine.answers.lesions import points, residuals, thickest
from napari_mamba.engine.answers.postprocessing import postprocess
from napari_mamba.errors import BundleError
from napari_mamba.volume import Volume

NAMES = {0: "background", 1: "white matter", 2: "cortex"}
RAS = np.eye(4)[[2, 1, 0, 3]]
THICK = {"step": "warn_thick", "rules": [[2, 6, 1.0]]}
UNLIKE = {"step": "warn_unlike", "rules": [[[1], 4, 1.0]]}
SHAPE = (64, 60, 56)


def ball(radius: float, middle: tuple[float, ...] = (32, 30, 28)) -> np.ndarray:
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), -1)
    return np.linalg.norm(grid - np.array(middle), axis=-1) < radius


def head() -> np.ndarray:
    """White matter under 4 mm of cortex."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[ball(26)], labels[ball(22)] = 2, 1
    return labels


def image_of(labels: np.ndarray, contrast: tuple[float, ...]) -> np.ndarray:
    """Noise, and shading by a factor of 2 from one end to the other."""
    random = np.random.default_rng(0)
    shade = np.linspace(0.7, 1.4, SHAPE[2]) * np.linspace(0.9, 1.1, SHAPE[0])[:, None, None]
    values = np.array(contrast)[labels] + 0.02 * random.standard_normal(SHAPE)
    return (1000 * values * shade).astype(np.float32)


def said(labels: np.ndarray, step: dict, image: np.ndarray | None = None, spacing=(1, 1, 1)) -> list[str]:
    after, doubts = postprocess(labels, spacing, NAMES, [step], affine=RAS, image=image)
    assert after is labels
    return doubts


def place(said: str) -> np.ndarray:
    """The R, A and S that are named."""
    return np.array([int(one) for one in re.findall(r"[RAS] (-?[0-9]+)", said)])


def test_cortex_many_times_too_thick_is_doubted_where_it_lies():
    labels = head()
    assert said(labels, THICK) == []
    labels[ball(10, (32, 36, 24))] = 2  # 4.2 ml
    [one] = said(labels, THICK)
    assert one.startswith("4 ml of cortex (around R ")
    assert "are thicker than it is anywhere in people. A lesion or a tumour" in one
    assert np.abs(place(one) - [24, 36, 32]).max() < 2
    assert said(labels, {**THICK, "rules": [[2, 6, 5.0]]}) == []
    assert said(labels, THICK, spacing=(0.3, 0.3, 0.3)) == []  # the same of a head a third of the size


def test_thickness_is_that_of_an_opening_by_cubes():
    mask = head() == 2
    mask[ball(12)] = True
    coarse = mask[np.ix_(*points(SHAPE, (1, 1, 1)))]
    opened = np.zeros_like(coarse)  # every place that a cube of 3 x 3 x 3 fits into, painted
    for z, y, x in np.argwhere(coarse):
        cube = (slice(z, z + 3), slice(y, y + 3), slice(x, x + 3))
        if coarse[cube].shape == (3, 3, 3) and coarse[cube].all():
            opened[cube] = True
    pieces, _ = ndimage.label(opened)
    assert thickest(coarse, 6)[0] == pytest.approx(np.bincount(pieces.ravel())[1:].max() * 0.008)


@pytest.mark.parametrize("contrast", [(0.0, 1.0, 0.7), (0.0, 0.4, 0.6)], ids=["T1", "T2"])
@pytest.mark.parametrize("factor", [0.7, 1.4], ids=["darker", "brighter"])
def test_white_matter_unlike_the_rest_is_doubted_and_shading_is_not(contrast, factor):
    labels = head()
    image = image_of(labels, contrast)
    assert said(labels, UNLIKE, image) == []
    image[ball(9, (32, 36, 22))] *= factor  # 3.1 ml
    [one] = said(labels, UNLIKE, image)
    assert re.match(r"A region of [23] ml in white matter \(around R ", one)
    assert "mm) looks unlike the rest of it" in one
    assert np.abs(place(one) - [22, 36, 32]).max() < 2
    assert said(labels, {**UNLIKE, "rules": [[[1], 4, 4.0]]}, image) == []
    assert said(labels, UNLIKE) == []  # no image, nothing to compare


def test_a_lesion_that_fills_a_seventh_of_the_tissue_is_told_from_the_rest():
    labels = head()
    image = image_of(labels, (0.0, 1.0, 0.7))
    lesion = ball(12, (32, 32, 18))
    image[lesion] *= 0.65
    assert 0.13 < (labels[lesion] == 1).sum() / (labels == 1).sum() < 0.2
    assert said(labels, UNLIKE, image)


def test_odd_images_and_rules_are_left_alone_or_told():
    labels = head()
    image = image_of(labels, (0.0, 1.0, 0.7))
    image[30] = np.nan
    assert said(labels, UNLIKE, image) == []
    assert said(np.zeros(SHAPE, np.uint8), UNLIKE, image) == []
    assert not residuals(np.zeros((20, 20, 20), np.float32), np.ones((20, 20, 20), bool)).any()
    with pytest.raises(BundleError, match="not made of the bundle's labels"):
        said(labels, {**UNLIKE, "rules": [[[7], 4, 1.0]]}, image)
    with pytest.raises(BundleError, match="wrong options"):
        said(labels, {**THICK, "rules": [[9, 6, 1.0], [2]]})


def test_a_run_hands_its_image_to_the_step():
    labels = ball(26).astype(np.uint8)
    image = image_of(labels, (0.0, 1.0)) / 1000
    image[ball(9, (32, 36, 22))] *= 0.75
    bundle = fake_bundle(Apply(two_classes), classes=2, tile=Tile((64, 64, 64)), postprocessing=(UNLIKE,))
    assert [one for one in run_to_end(Volume(image[None], RAS), bundle).warnings if "in class 1 (around R 2" in one]
