"""A picture of a slide to a bag of features: which patches, where, and equal to the encoder on each."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import tifffile
import torch

from napari_mamba import bundles, models
from napari_mamba.cli import main
from napari_mamba.engine.slides.features import features_to_end, is_tissue
from napari_mamba.errors import InputError
from napari_mamba.slides import files
from napari_mamba.volume import Volume

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Vim4Path with random weights for patches of 32, and its bundle."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    network = models.create("vim4path", img_size=32, depth=1, embed_dim=16).eval()
    torch.save(network.state_dict(), folder / "w.pth")
    how = {"preset": "pathology", "tile": (32, 32), "arguments": {"if_devide_out": True}}
    path = bundles.import_checkpoint(folder / "w.pth", folder / "encoder", network="vim4path", **how)
    return network, path


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """3 x 4 patches and a rest that is left out, tissue in three of them."""
    pixels = np.full((3 * 32 + 5, 4 * 32 + 9, 3), 242, np.uint8)
    random = np.random.default_rng(0)
    for row, column in ((0, 1), (1, 3), (2, 0)):
        place = pixels[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
        place[:] = random.integers((120, 40, 110), (220, 120, 190), (32, 32, 3))
    path = tmp_path_factory.mktemp("slide") / "slide.tif"
    tifffile.imwrite(path, pixels, photometric="rgb")
    return pixels, path


def test_patches_of_tissue_become_features(encoder, slide, tmp_path):
    (network, bundle), (pixels, picture) = encoder, slide
    out = tmp_path / "bag.h5"
    assert main(["run", str(bundle), str(picture), "-o", str(out), "--device", "cpu"]) == 0
    bag = files.read(out)
    assert bag.coordinates.tolist() == [[32, 0], [96, 32], [0, 64]]
    assert bag.side == 32
    for (x, y), found in zip(bag.coordinates, bag.features, strict=True):
        patch = (pixels[y : y + 32, x : x + 32] / 255 - MEAN) / STD
        with torch.inference_mode():
            expected = network(torch.from_numpy(patch.transpose(2, 0, 1)[None].astype(np.float32)))[0]
        np.testing.assert_allclose(found, expected, atol=1e-4)
    for suffix in (".csv", ".npz"):
        assert main(["run", str(bundle), str(picture), "-o", str(tmp_path / f"bag{suffix}"), "--device", "cpu"]) == 0
    with open(tmp_path / "bag.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][:4] == ["patch", "x", "y", "feature 1"]
    np.testing.assert_allclose([float(n) for n in rows[2][3:]], bag.features[1], rtol=1e-5)
    with np.load(tmp_path / "bag.npz") as arrays:
        np.testing.assert_array_equal(arrays["coords"], bag.coordinates)
        np.testing.assert_array_equal(arrays["features"], bag.features)


def test_coordinates_are_those_of_the_finest_level(encoder, slide):
    pixels = np.moveaxis(slide[0], -1, 0)[:, None]
    volume = Volume(pixels, channel_names=("red", "green", "blue"))
    bag = features_to_end(volume, bundles.load(encoder[1]), downsample=4.0)
    assert bag.coordinates.tolist() == [[128, 0], [384, 128], [0, 256]]
    assert bag.side == 128


def test_what_cannot_be_written_is_said_before_the_slide_is_encoded(encoder, slide, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("napari_mamba.slides.writing.find_spec", lambda name: None)
    monkeypatch.setattr("napari_mamba.engine.slides.features.run_features", lambda *_, **__: pytest.fail("encoded"))
    assert main(["run", str(encoder[1]), str(slide[1]), "-o", str(tmp_path / "bag.h5"), "--device", "cpu"]) != 0
    assert "napari-mamba[slides]" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_refusals_are_sentences(encoder, slide, tmp_path, capsys):
    bundle = bundles.load(encoder[1])
    glass = Volume(np.full((3, 1, 40, 40), 240, np.uint8), channel_names=("red", "green", "blue"))
    with pytest.raises(InputError, match="shows no tissue"):
        features_to_end(glass, bundle)
    with pytest.raises(InputError, match="less than a patch"):
        features_to_end(Volume(glass.data[:, :, :20]), bundle)
    with pytest.raises(InputError, match="one picture in colour"):
        features_to_end(Volume(glass.data[:1]), bundle)
    assert not is_tissue(glass.data[:, 0])
    assert main(["run", str(encoder[1]), str(slide[1]), "-o", str(tmp_path / "bag.nii.gz")]) == 2
    assert "ends in .h5, .csv or .npz" in capsys.readouterr().err
    assert main(["run", "hippocampus-mr", str(slide[1]), "-o", str(tmp_path / "labels.csv")]) == 2
    assert "no place for an image" in capsys.readouterr().err
