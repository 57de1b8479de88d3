"""On a GPU: pairs of images, films, slides, colour and diffusion are answered as on the CPU.

Alone on a machine with PyTorch, NumPy and SciPy: `python -m pytest tests/engine/answers/test_kinds_gpu.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from engine_fakes import fake_bundle
from made_slides import made_bag, slide_bundle

from napari_mamba import models
from napari_mamba.bundles import Channel, Tile
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.frames.run import film_to_end
from napari_mamba.engine.slides.run import slide_to_end
from napari_mamba.io.moving.film import of_array
from napari_mamba.volume import Volume

pytestmark = pytest.mark.gpu
DEVICE = "cuda"
RGB = tuple(Channel(name) for name in ("red", "green", "blue"))
VIVIM = {"depths": [1] * 4, "feat_size": [8, 8, 16, 16], "backbone_depths": [1] * 4, "decoder_width": 8}
DOSE = {"inp_channels": 2, "dim": 8, "img_size": 16, "depths": [1] * 8, "inp_struc_channels": 1, "T": 3}
MAMMIL = {"input_dim": 12, "embed_dim": 32, "d_state": 16, "num_classes": 2, "act": "relu", "layer_n": 1}
FUSION = {"depths": [1, 1], "depths_decoder": [1, 1], "dims": [16, 32], "dims_decoder": [32, 16]}
UNIT = ({"step": "normalise", "schemes": ["rescale_0_1"]},)


@pytest.fixture(autouse=True)
def _no_tf32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def network(name: str, **arguments) -> torch.nn.Module:
    torch.manual_seed(0)
    made = models.create(name, **arguments).eval()
    for parameter in made.parameters():
        if not parameter.any():  # a last layer that begins at zero would say nothing
            torch.nn.init.normal_(parameter, std=0.1)
    return made


def on(device: str, **more) -> RunOptions:
    return RunOptions(device=device, precision="float32", **more)


def both(answer: Callable[[str], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The answers of the GPU and of the CPU."""
    return tuple(np.asarray(answer(device), np.float64) for device in (DEVICE, "cpu"))


def near(found: np.ndarray, expected: np.ndarray, bound: float = 1e-4) -> None:
    assert expected.std() > 1e-3
    assert np.linalg.norm(found - expected) <= bound * np.linalg.norm(expected)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(0.1, 0.9, shape).astype(np.float32)


@pytest.mark.parametrize(("name", "arguments"), [("mambadfuse", {"embed_dim": 8}), ("fusionmamba", FUSION)])
def test_a_pair_is_fused(name, arguments):
    def fused(device):
        bundle = fake_bundle(network(name, **arguments), task="fusion", modalities=("CT", "MR"), activation="none",
                             preparation=UNIT, tile=Tile((32, 32), divisor=(8, 8)))  # fmt: skip
        return run_to_end(Volume(noise(2, 3, 40, 48)), bundle, on(device)).image.data

    near(*both(fused))


def test_a_film_is_labelled():
    data = noise(9, 3, 1, 32, 64)

    def labelled(device):
        bundle = fake_bundle(network("vivim", **VIVIM, out_chans=2), classes=2, channels=RGB,
                             tile=Tile((32, 64), frames=5, divisor=(32, 32)))  # fmt: skip
        return film_to_end(of_array(data, Volume(data[0])), bundle, on(device)).labels

    found, expected = both(labelled)
    assert 0 < expected.mean() < 1
    assert (found == expected).mean() > 0.999


@pytest.mark.parametrize(("name", "arguments"), [("mambamil", {"in_dim": 12}), ("mammil", MAMMIL)])
def test_a_slide_is_scored(tmp_path, name, arguments):
    bundle = slide_bundle(tmp_path / name, name, ("normal", "tumour"), **arguments)
    results = {device: slide_to_end(made_bag(), bundle, on(device)) for device in (DEVICE, "cpu")}
    scores, attention = ([read(results[device]) for device in (DEVICE, "cpu")] for read in
                         (lambda one: list(one.scores.values()), lambda one: one.attention))  # fmt: skip
    np.testing.assert_allclose(*scores, rtol=1e-4)
    np.testing.assert_allclose(*attention, rtol=1e-3)


@pytest.mark.parametrize("name", ["fdv_net", "mambair"])
def test_a_colour_image_is_restored(name):
    arguments = {"n_blocks": 1, "side": 8} if name == "fdv_net" else {"embed_dim": 32, "depths": [1], "mlp_ratio": 1.2}

    def restored(device):
        bundle = fake_bundle(network(name, **arguments), task="restoration", channels=RGB, activation="none",
                             tile=Tile((24, 16), divisor=(8, 8)))  # fmt: skip
        return run_to_end(Volume(noise(3, 2, 24, 16)), bundle, on(device)).image.data

    near(*both(restored))


def test_a_seed_gives_the_same_sample():
    def sampled(device):
        bundle = fake_bundle(network("md_dose", **DOSE), task="diffusion", modalities=("CT", "CT"), activation="none",
                             tile=Tile((16, 16), fixed=True))  # fmt: skip
        return run_to_end(Volume(noise(2, 2, 16, 16)), bundle, on(device, seed=4)).image.data

    near(*both(sampled), bound=1e-3)
