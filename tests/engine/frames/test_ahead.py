"""Frames predicted after a film's last one: fed back one by one, each in the film's values, time going on."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch
from engine_fakes import fake_bundle
from torch import nn

from napari_mamba import bundles, models
from napari_mamba.bundles import Tile
from napari_mamba.cli import main
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.frames.run import film_to_end
from napari_mamba.errors import BundleError, InputError
from napari_mamba.io.moving.film import of_array
from napari_mamba.models.video.vmrnn import predicted_frames
from napari_mamba.volume import Volume

CPU = RunOptions(device="cpu")
EIGHT_BITS = {"step": "normalise", "schemes": [{"scheme": "ct", "lower": 0, "upper": 255, "mean": 0, "std": 255}]}


class Line(nn.Module):
    """Goes on as before: a frame and the one before it lie on a line."""

    unit = 4

    def forward(self, frame: torch.Tensor, before: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        return frame + (frame - before if before is not None else 0), frame


def predictor(*networks: nn.Module, **changes):
    facts = {"task": "prediction", "tile": Tile((16, 16)), "preparation": (EIGHT_BITS,)}
    return fake_bundle(*networks, modalities=("",), activation="none", **(facts | changes))


def film(count: int = 4, slices: int = 2, **facts):
    """Frames (13 x 10, no multiple of the unit) that grow brighter by 10, after two slices of another brightness."""
    data = np.random.default_rng(0).uniform(0, 50, (1, 1, slices, 13, 10)).astype(np.float32)
    data = data + 10 * np.arange(count, dtype=np.float32)[:, None, None, None, None]
    return of_array(data, Volume(data[0], np.diag([3.0, 2, 2, 1]), (), "mm", "film"), **facts)


@pytest.mark.parametrize(("ahead", "expected"), [(None, 4), (2, 2), (6, 6)])
def test_a_line_goes_on(ahead, expected):
    source = film(times=np.arange(4) * 40.0)
    result = film_to_end(source, predictor(Line()), RunOptions(device="cpu", ahead=ahead))
    assert result.image.shape == (expected, 1, 2, 13, 10)
    last = source.frame(3).data
    for n in range(expected):
        np.testing.assert_allclose(result.image[n], last + 10 * (n + 1), rtol=1e-4)
    np.testing.assert_allclose(result.times, 160 + 40.0 * np.arange(expected))
    assert any("the less they are worth" in text for text in result.warnings) == (expected > 4)


def test_weights_become_a_bundle_that_predicts_a_file(tmp_path):
    torch.manual_seed(0)
    network = models.create("vmrnn_b", embed_dim=8, depths=[1]).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    path = bundles.import_checkpoint(tmp_path / "w.pth", tmp_path / "next", preset="frames")
    assert bundles.load(path).task == "prediction"
    data = np.random.default_rng(0).integers(0, 256, (16, 12, 1, 5)).astype(np.uint8)
    image = nibabel.Nifti1Image(data, np.diag([1.0, 1, 1, 1]))
    image.header["pixdim"][4] = 0.5
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, tmp_path / "film.nii.gz")
    out = tmp_path / "next.nii.gz"
    words = ["run", str(path), str(tmp_path / "film.nii.gz"), "-o", str(out), "--device", "cpu", "--ahead", "3"]
    assert main(words) == 0
    written = nibabel.load(out)
    assert written.shape == (16, 12, 1, 3)
    assert float(written.header["toffset"]) == pytest.approx(2.5)
    frames = torch.from_numpy(data[:, :, 0].transpose(2, 1, 0).astype(np.float32) / 255)[None, :, None]
    for n, frame in enumerate(predicted_frames(network, frames, 3)):
        np.testing.assert_allclose(written.get_fdata()[:, :, 0, n].T, 255 * frame[0, 0], atol=0.01)


def test_what_cannot_be_predicted_is_refused():
    with pytest.raises(InputError, match="not one image"):
        run_to_end(Volume(np.zeros((1, 1, 8, 8))), predictor(Line()), CPU)
    still = np.zeros((1, 1, 1, 8, 8), np.float32)
    with pytest.raises(InputError, match="predicts how a film goes on, and this is one image: give the film, or two"):
        film_to_end(of_array(still, Volume(still[0])), predictor(Line()), CPU)
    with pytest.raises(InputError, match="frames can be predicted"):
        RunOptions(ahead=0)
    with pytest.raises(BundleError, match="predicted by one"):
        film_to_end(film(), predictor(Line(), Line()), CPU)
