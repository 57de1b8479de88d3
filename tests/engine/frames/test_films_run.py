"""Films run: one repeated frame gives one answer, windows overlap and are weighed, memory holds no more than one."""

from __future__ import annotations

import csv
import threading
from dataclasses import replace
from itertools import pairwise

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from engine_fakes import Apply, fake_bundle, two_classes

from napari_mamba import bundles, io, models
from napari_mamba.bundles import Channel, Tile
from napari_mamba.cli import main
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.frames.run import film_to_end, run_film
from napari_mamba.engine.frames.windows import FrameBlend, windows
from napari_mamba.errors import BundleError, InputError
from napari_mamba.io.moving.film import Film, of_array
from napari_mamba.volume import Volume

CPU = RunOptions(device="cpu")
RGB = tuple(Channel(name) for name in ("red", "green", "blue"))


def film_of(data: np.ndarray, **facts) -> Film:
    return of_array(data, Volume(data[0], np.diag([1.0, 2, 2, 1]), (), "mm", "film"), **facts)


def moving(count: int = 9, channels: int = 1) -> np.ndarray:
    """A bright square that wanders to the right over noise."""
    data = np.random.default_rng(0).uniform(0, 0.3, (count, channels, 1, 24, 32)).astype(np.float32)
    for t in range(count):
        data[t, :, :, 8:16, 2 * t : 2 * t + 8] += 0.7
    return data


def clip_bundle(function, frames: int = 3, **changes):
    tile = changes.pop("tile", Tile((16, 16), frames=frames, divisor=(4, 4)))
    return fake_bundle(Apply(function), classes=2, tile=tile, **changes)


def middle(x: torch.Tensor) -> torch.Tensor:
    """(B, F, C, H, W): of each frame, class 1 where the mean of the clip is above 0.5."""
    mean = x.mean(dim=1, keepdim=True).expand_as(x)[:, :, :1]
    return torch.cat([torch.zeros_like(mean), mean - 0.5], dim=2).flatten(0, 1)


def own(x: torch.Tensor) -> torch.Tensor:
    """Each frame for itself."""
    return torch.cat([torch.zeros_like(x[:, :, :1]), x[:, :, :1] - 0.5], dim=2).flatten(0, 1)


def test_windows_reach_every_frame_and_overlap():
    for count in (2, 5, 6, 13, 40):
        plan = windows(count, 5, 0.5)
        done = [t for window in plan for t in range(window.done, window.end)]
        assert done == list(range(count))
        assert all(set(range(w.done, w.end)) <= set(w.frames) for w in plan)
        if count > 5:
            assert all(len(set(a.frames) & set(b.frames)) >= 2 for a, b in pairwise(plan))


def test_the_blend_is_the_weighted_mean_and_forgets():
    plan, blend = windows(7, 5, 0.5), FrameBlend(5)
    answers = np.random.default_rng(0).normal(size=(len(plan), 5, 2, 1, 1, 1))
    weights = blend.weights
    assert weights.argmax() == 2
    for number, window in enumerate(plan):
        blend.add(window, answers[number])
        for t in range(window.done, window.end):
            near = [
                (weights[w.frames.index(t)], answers[n][w.frames.index(t)])
                for n, w in enumerate(plan[: number + 1])
                if t in w.frames
            ]
            expected = sum(w * a for w, a in near) / sum(w for w, _ in near)
            np.testing.assert_allclose(blend.take(t), expected, rtol=1e-5)
        assert len(blend.sums) <= 5
    assert not blend.sums


@pytest.mark.parametrize("frames", [0, 3])
def test_each_frame_is_labelled_as_the_image_that_it_is(frames):
    data = moving()
    bundle = clip_bundle(own, frames) if frames else fake_bundle(Apply(two_classes), classes=2, tile=Tile((16, 16)))
    result = film_to_end(film_of(data, times=40.0 * np.arange(9)), bundle, CPU)
    np.testing.assert_array_equal(result.labels, data[:, 0] > 0.5)
    assert result.times[2] == 80
    counts = [row["voxels"] for row in result.table]
    assert counts == (data[:, 0] > 0.5).sum(axis=(1, 2, 3)).tolist()
    assert result.table[3]["ml"] == pytest.approx(counts[3] * 4 / 1000)


def test_one_repeated_frame_gives_one_answer():
    still = np.repeat(moving()[4:5], 11, axis=0)
    result = film_to_end(film_of(still), clip_bundle(middle, 5), CPU)
    assert (result.labels == result.labels[0]).all()
    np.testing.assert_array_equal(result.labels[0], still[0, 0] > 0.5)
    single = run_to_end(Volume(still[0]), fake_bundle(Apply(two_classes), classes=2, tile=Tile((16, 16))), CPU)
    np.testing.assert_array_equal(result.labels[5], single.labels.data[0])


def test_a_window_sees_its_neighbours_and_a_short_film_its_last_frame_again():
    def before(x):
        return own(x[:, :1].expand_as(x))

    data = moving()
    result = film_to_end(film_of(data), clip_bundle(before, 3, tile=Tile((24, 32), frames=3, overlap=0.9)), CPU)
    np.testing.assert_array_equal(result.labels[4], data[3, 0] > 0.5)  # the middle of a window counts most
    short = film_to_end(film_of(data[:2]), clip_bundle(own, 5), CPU)
    np.testing.assert_array_equal(short.labels, data[:2, 0] > 0.5)


def test_no_more_than_a_window_is_read_ahead():
    data, asked = moving(20), []
    film = film_of(data)
    watched = Film(20, lambda t: asked.append(t) or film.get(t))
    steps = run_film(watched, clip_bundle(own, 4), CPU)
    done = 0
    while True:
        try:
            event = next(steps)
        except StopIteration:
            break
        done = event.done if event.stage == "network" else done
        assert max(asked, default=0) <= done + 2 * 4
    assert done == 20
    assert len(asked) <= 20 + 4  # each once, and the first for its size


def test_a_restoration_goes_frame_by_frame_in_colour():
    data = 100 * moving(3, 3)
    half = fake_bundle(Apply(lambda x: x / 2), modalities=("", "", ""), task="restoration", tile=Tile((16, 16)))
    half = replace(half, channels=RGB)
    result = film_to_end(film_of(data), half, RunOptions(device="cpu", clip=False))
    np.testing.assert_allclose(result.image, data / 2, rtol=1e-5)


def test_blank_frames_are_left_empty_and_said():
    data = moving()
    data[2] = 0
    for bundle in (clip_bundle(own, 3), fake_bundle(Apply(two_classes), classes=2, tile=Tile((16, 16)))):
        result = film_to_end(film_of(data), bundle, CPU)
        assert not result.labels[2].any()
        assert any("Frame 3 shows nothing" in warning for warning in result.warnings)


def test_what_is_no_film_is_refused():
    bundle = clip_bundle(own, 3)
    with pytest.raises(
        InputError, match="sees 3 frames of a film at once, and this is one image: give the film, or two"
    ):
        film_to_end(film_of(moving(1)), bundle, CPU)
    with pytest.raises(InputError, match="two frames or more, this is one image: run it without time"):
        film_to_end(film_of(moving(1)), fake_bundle(Apply(two_classes), classes=2, tile=Tile((16, 16))), CPU)
    with pytest.raises(InputError, match="sees 3 frames of a film at once, not one image"):
        run_to_end(Volume(moving()[0]), bundle, CPU)
    with pytest.raises(InputError, match="over time there is no uncertainty"):
        film_to_end(film_of(moving()), bundle, RunOptions(device="cpu", uncertainty=True))
    colour = moving(3, 3)
    film = of_array(colour, Volume(colour[0], channel_names=("red", "green", "blue")))
    for grey in (bundle, fake_bundle(Apply(two_classes), classes=2, tile=Tile((16, 16)))):
        with pytest.raises(InputError, match="takes grey images, and this one is in colour"):
            film_to_end(film, grey, CPU)
    with pytest.raises(BundleError, match="2 to 256 frames"):
        clip_bundle(own, 1)


def test_a_stopped_film_has_no_answer():
    cancel = threading.Event()
    steps = run_film(film_of(moving()), clip_bundle(own, 3), CPU, cancel)
    while next(steps).done < 2:
        pass
    cancel.set()
    with pytest.raises(StopIteration) as end:
        next(steps)
    assert end.value.value.cancelled


SMALL = {"depths": [1] * 4, "feat_size": [8] * 4, "backbone_depths": [1] * 4, "decoder_width": 8}


def test_vivim_from_weights_to_labels_over_time(tmp_path, capsys):
    """Seven frames in two windows of five; equal to the network's own logits, weighed."""
    torch.manual_seed(0)
    network = models.create("vivim", **SMALL).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    path = bundles.import_checkpoint(tmp_path / "w.pth", tmp_path / "vivim", preset="clip", tile=(32, 32))
    bundle = bundles.load(path)
    assert bundle.tile.frames == 5
    assert [c.name for c in bundle.classes] == ["target"]
    rgb = np.random.default_rng(1).integers(0, 255, (7, 32, 32, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "clip.tif", rgb, photometric="rgb")
    out, table = tmp_path / "labels.nii.gz", tmp_path / "frames.csv"
    how = ["-o", str(out), "--table", str(table), "--device", "cpu"]
    assert main(["run", str(path), str(tmp_path / "clip.tif"), *how]) == 0
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = torch.from_numpy(((rgb / 255 - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        first, second = (network(x[None, s : s + 5])[:, 0].numpy() for s in (0, 2))
    weights = FrameBlend(5).weights
    total, weight = np.zeros((7, 32, 32)), np.zeros(7)
    for start, logits in ((0, first), (2, second)):
        total[start : start + 5] += weights[:, None, None] * logits
        weight[start : start + 5] += weights
    expected = total / weight[:, None, None] > 0
    labels = np.asarray(nibabel.load(out).dataobj)[:, :, 0].transpose(2, 1, 0)
    assert labels.shape == (7, 32, 32)
    assert (labels.astype(bool) == expected).mean() > 0.999
    assert len(list(csv.DictReader(table.open()))) == 7
    capsys.readouterr()
    assert main(["run", str(path), str(tmp_path / "clip.tif"), "-o", str(tmp_path / "x.nrrd")]) == 2
    assert "results over time are written as" in capsys.readouterr().err


def test_each_volume_of_a_series_by_the_command(tmp_path, capsys):
    """A 4D image in, labels over time out, with its axis of time; and colour pictures as the bundle takes them."""
    from tiny_bundle import make_tiny_bundle

    bundle = make_tiny_bundle(tmp_path / "tiny", ("t1",))
    data = np.random.default_rng(0).normal(100, 20, (20, 18, 17, 2)).astype(np.float32)
    image = nibabel.Nifti1Image(data, np.diag([1.0, 1, 2, 1]))
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 3
    nibabel.save(image, tmp_path / "series.nii.gz")
    out = tmp_path / "out.nii.gz"
    how = ["--device", "cpu", "--no-mirror"]
    assert main(["run", str(bundle), str(tmp_path / "series.nii.gz"), "--frame", "each", "-o", str(out), *how]) == 0
    labels = nibabel.load(out)
    assert labels.shape == (20, 18, 17, 2)
    assert labels.header["pixdim"][4] == 3
    assert labels.header.get_xyzt_units() == ("mm", "sec")
    one = tmp_path / "one.nii.gz"
    assert main(["run", str(bundle), str(tmp_path / "series.nii.gz"), "--frame", "1", "-o", str(one), *how]) == 0
    np.testing.assert_array_equal(np.asarray(labels.dataobj)[..., 1], np.asarray(nibabel.load(one).dataobj))
    capsys.readouterr()
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(tmp_path / "c.png")
    assert main(["run", str(bundle), str(tmp_path / "c.png"), "-o", str(tmp_path / "c.nii.gz")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "colour image" in error
    assert "takes grey ones" in error


def test_a_colour_picture_goes_to_a_network_for_colours(tmp_path):
    torch.manual_seed(0)
    arguments = {"upscale": 1, "in_chans": 3, "img_size": 16, "embed_dim": 30, "depths": [1], "mlp_ratio": 1.5,
                 "upsampler": "", "resi_connection": "1conv", "img_range": 1.0}  # fmt: skip
    network = models.create("mambair", **arguments).eval()
    spec = bundles.BundleSpec(
        name="colour", version="1", title="Colour", task="restoration", network=bundles.Network("mambair", arguments),
        channels=RGB, preparation=({"step": "normalise", "schemes": ["rgb_0_1"]},), tile=Tile((16, 16)),
        activation="none", classes=(),
    )  # fmt: skip
    path = bundles.save(tmp_path / "colour", spec, [network.state_dict()], "# c\n\nFor tests.\n")
    from PIL import Image

    rgb = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / "c.png")
    out = tmp_path / "c.tif"
    assert main(["run", str(path), str(tmp_path / "c.png"), "-o", str(out), "--device", "cpu"]) == 0
    restored = io.read(out)
    x = torch.from_numpy(rgb.transpose(2, 0, 1)[None] / np.float32(255))
    with torch.inference_mode():
        expected = 255 * network(x)[0].numpy()
    expected = np.clip(expected, rgb.min(axis=(0, 1))[:, None, None], rgb.max(axis=(0, 1))[:, None, None])
    np.testing.assert_allclose(restored.data[:, 0], expected, atol=0.05)
