"""Tiles: positions, weights and rolling blend against brute force, SciPy and MONAI."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from napari_mamba.engine.device import choose_device
from napari_mamba.engine.tiling import tiles
from napari_mamba.engine.tiling.infer import Ensemble, predict_tiles
from napari_mamba.engine.tiling.tiles import RollingBlend, Tiling, fitted_tile_length, gaussian_weights, tile_starts

CPU = torch.device("cpu")


def ramp(x: torch.Tensor) -> torch.Tensor:
    """Depends on the place within the tile, so that a wrong blend shows."""
    place = torch.arange(math.prod(x.shape[2:]), dtype=torch.float32).reshape(x.shape[2:]) / 1000
    return torch.cat([x * place, x + place.square()], dim=1)


def blended(data, tile, overlap=0.5, batch_size=1, spatial_dims=3, network=ramp):
    out = np.full((2, *data.shape[1:]), np.nan, np.float32)

    def sink(z, values):
        assert np.isnan(out[:, z : z + values.shape[1]]).all(), "a slice came twice"
        out[:, z : z + values.shape[1]] = values.numpy()

    class Network(torch.nn.Module):
        def forward(self, x):
            return network(x)

    ensemble = Ensemble([Network()], choose_device("cpu"), spatial_dims=spatial_dims)
    tiling = Tiling(data.shape[1:], tile, overlap)
    for _ in predict_tiles(data, ensemble, tiling, sink, batch_size=batch_size, blend_device=CPU):
        pass
    return out


def brute_force(data, tile, overlap=0.5, spatial_dims=3):
    """Every tile added into sums of the whole padded volume, in float64."""
    missing = [max(t - n, 0) for n, t in zip(data.shape[1:], tile, strict=True)]
    padded = np.pad(data, [(0, 0)] + [(m // 2, m - m // 2) for m in missing])
    impulse = np.zeros(tile)
    impulse[tuple(t // 2 for t in tile)] = 1
    weights = gaussian_filter(impulse, [t / 8 for t in tile], mode="constant")
    sums, norm = np.zeros((2, *padded.shape[1:])), np.zeros(padded.shape[1:])
    for z in tile_starts(padded.shape[1], tile[0], overlap):
        for y in tile_starts(padded.shape[2], tile[1], overlap):
            for x in tile_starts(padded.shape[3], tile[2], overlap):
                here = (slice(z, z + tile[0]), slice(y, y + tile[1]), slice(x, x + tile[2]))
                part = torch.from_numpy(np.ascontiguousarray(padded[:, *here]))[None]
                answer = ramp(part.squeeze(2)).unsqueeze(2) if spatial_dims == 2 else ramp(part)
                sums[:, *here] += answer[0].numpy() * weights
                norm[here] += weights
    inner = tuple(slice(m // 2, m // 2 + n) for m, n in zip(missing, data.shape[1:], strict=True))
    return (sums / norm)[:, *inner]


@pytest.mark.parametrize("size", [16, 17, 23, 24, 25, 31, 32, 33, 100, 257])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_tiles_cover_an_axis_with_at_least_the_overlap_and_no_more_tiles_than_needed(size, overlap):
    starts = tile_starts(size, 16, overlap)
    steps = np.diff(starts)
    assert starts[0] == 0
    assert starts[-1] == size - 16
    assert (steps > 0).all()
    assert (steps <= np.ceil(16 * (1 - overlap))).all()
    assert len(starts) == math.ceil((size - 16) / (16 * (1 - overlap))) + 1


def test_tiles_start_where_nnunet_says():
    assert tile_starts(110, 64) == [0, 23, 46]  # the example in nnU-Net's own comment
    assert tile_starts(64, 64) == [0]


@pytest.mark.parametrize("tile", [(16, 16, 16), (8, 12, 20), (1, 32, 24), (7, 9, 11)])
def test_weights_are_a_gaussian_of_an_eighth_of_the_side(tile):
    impulse = np.zeros(tile)
    impulse[tuple(n // 2 for n in tile)] = 1
    wanted = gaussian_filter(impulse, [n / 8 for n in tile], mode="constant")
    weights = gaussian_weights(tile)
    assert weights.min() > 0
    assert weights.max() == 1
    np.testing.assert_allclose(weights, wanted / wanted.max(), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("shape", "tile", "overlap"),
    [
        ((20, 33, 12), (16, 16, 16), 0.5),
        ((41, 16, 17), (16, 16, 16), 0.25),
        ((5, 40, 6), (16, 16, 8), 0.5),
        ((37, 18, 18), (8, 16, 16), 0.75),
        ((33, 8, 8), (16, 8, 8), 0.0),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_rolling_blend_equals_brute_force(rng, shape, tile, overlap, batch_size):
    data = rng.normal(size=(1, *shape)).astype(np.float32)
    wanted = brute_force(data, tile, overlap)
    np.testing.assert_allclose(blended(data, tile, overlap, batch_size), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_slices_of_a_2d_network_equal_brute_force(rng, batch_size):
    data = rng.normal(size=(1, 7, 20, 33)).astype(np.float32)
    wanted = brute_force(data, (1, 16, 16), spatial_dims=2)
    np.testing.assert_allclose(
        blended(data, (1, 16, 16), batch_size=batch_size, spatial_dims=2), wanted, rtol=1e-4, atol=1e-4
    )


def test_blend_equals_monai_where_both_place_tiles_alike(rng):
    data = rng.normal(size=(1, 40, 24, 32)).astype(np.float32)
    wanted = sliding_window_inference(
        torch.from_numpy(data)[None],
        roi_size=(16, 16, 16),
        sw_batch_size=1,
        predictor=ramp,
        overlap=0.5,
        roi_weight_map=torch.from_numpy(gaussian_weights((16, 16, 16))),
    )[0]
    np.testing.assert_allclose(blended(data, (16, 16, 16)), wanted.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(("shape", "tile"), [((40, 33, 41), (16, 16, 16)), ((9, 40, 12), (16, 16, 16))])
def test_a_window_is_the_whole_to_the_bit(rng, shape, tile, half):
    data = rng.normal(size=(1, *shape)).astype(np.float32)
    tiling = Tiling(shape, tile, 0.5, half)
    ensemble = Ensemble([Ramp()], choose_device("cpu", "float32"))

    def run(window):
        found = np.full((2, *shape), np.nan, np.float32)

        def sink(z, values):
            found[:, z : z + values.shape[1], window[1], window[2]] = values.float().numpy()

        for _ in predict_tiles(data, ensemble, tiling, sink, batch_size=1, blend_device=CPU, window=window):
            pass
        return found[(slice(None), *window)]

    whole = run(tiling.whole)
    for _ in range(6):
        ends = [sorted(rng.choice(n + 1, 2, replace=False)) for n in shape]
        window = tuple(slice(int(a), int(b)) for a, b in ends)
        np.testing.assert_array_equal(run(window), whole[(slice(None), *window)])


class Ramp(torch.nn.Module):
    """Answers by where in its tile a voxel lies, so that every tile's share shows."""

    def forward(self, x):
        return torch.cat([x + torch.linspace(0, 1000, x.shape[-1]), x - torch.linspace(0, 77, x.shape[-2])[:, None]], 1)


def test_sums_are_held_for_one_tile_of_depth_however_long_the_image():
    blend = RollingBlend(Tiling((500, 16, 16), (16, 16, 16)), 3, 16, CPU)
    assert blend.sums.shape == (3, 16, 16, 16)
    slices = []
    for start in blend.tiling.starts:
        blend.release(start[0], lambda z, values: slices.extend(range(z, z + values.shape[1])))
        blend.add(start, torch.ones(3, 16, 16, 16))
    blend.release(500, lambda z, values: slices.extend(range(z, z + values.shape[1])))
    assert slices == list(range(500))


def drained(passes):
    """What a generator returns at its end."""
    try:
        while True:
            next(passes)
    except StopIteration as done:
        return done.value


def test_left_and_right_change_places_in_mirrored_copies():
    """A network that calls the left half 1 and the right half 2 is right twice only if its channels are exchanged."""

    class Halves(torch.nn.Module):
        def forward(self, x):
            left = (torch.arange(x.shape[-1]) < x.shape[-1] // 2).float().expand_as(x[:, 0])
            return torch.stack([torch.zeros_like(left), left, 1 - left], 1)

    def answer(channel_swap):
        tiles = torch.zeros(1, 1, 4, 4, 8)
        return drained(
            Ensemble([Halves()], choose_device("cpu"), mirror_axes=(2,), channel_swap=channel_swap).mean(tiles)
        )

    once = Halves()(torch.zeros(1, 1, 4, 4, 8))
    assert torch.equal(answer((0, 2, 1)), once)
    assert not torch.equal(answer(()), once)


@pytest.mark.parametrize("size", [3, 40, 128, 129, 171, 240, 300, 513])
@pytest.mark.parametrize("overlap", [0.0, 0.125, 0.5])
def test_snug_tiles_are_as_many_and_never_longer(size, overlap):
    side = fitted_tile_length(size, 128, overlap, 4)
    assert side <= 128
    assert side % 4 == 0
    starts = tile_starts(max(size, side), side, overlap)
    assert len(starts) <= len(tile_starts(max(size, 128), 128, overlap))
    assert starts[-1] + side >= size
    assert all(b - a <= side for a, b in itertools.pairwise(starts))
    assert side - 4 < max(size, 1) / len(starts) + overlap * 128  # no shorter one would do


@pytest.mark.parametrize(
    ("members", "axes", "pass_schedule"),
    [
        (2, (2,), [(0, ()), (1, (2,))]),
        (2, (1, 2), [(0, ()), (1, (1,)), (0, (2,)), (1, (1, 2))]),
        (3, (2,), [(0, ()), (1, (2,)), (2, ())]),
        (2, (), [(0, ()), (1, ())]),
        (1, (2,), [(0, ()), (0, (2,))]),
    ],
)
def test_dealt_copies_are_answered_by_one_network_each(members, axes, pass_schedule):
    networks = [torch.nn.Conv3d(1, 1, 3, padding=1) for _ in range(members)]
    tiles = torch.randn(2, 1, 4, 6, 8)
    ensemble = Ensemble(networks, choose_device("cpu"), mirror_axes=axes, round_robin=True)
    passes = list(ensemble.mean(tiles))
    assert len(passes) == ensemble.passes == len(pass_schedule)
    with torch.no_grad():
        apart = [
            networks[i](tiles.flip([a + 2 for a in flips])).flip([a + 2 for a in flips]) for i, flips in pass_schedule
        ]
    assert torch.allclose(drained(ensemble.mean(tiles)), torch.stack(apart).mean(0), atol=1e-6)


def test_a_short_image_is_filled_up_with_its_mirror_image():
    data = np.random.default_rng(0).random((2, 5, 9, 4)).astype(np.float32)
    tiling = Tiling((5, 9, 4), (8, 8, 8), reflect=True)
    wanted = np.pad(data, [(0, 0), (1, 2), (0, 0), (2, 2)], mode="reflect")
    np.testing.assert_array_equal(tiling.pad(data), wanted)
    zeros = replace(tiling, reflect=False).pad(data)
    for _, y, _ in tiling.starts:
        tile = (slice(None), slice(None), slice(y, y + 8))
        np.testing.assert_array_equal(tiling.filled(zeros[tile]), wanted[tile])  # as one that is read from a disk


def test_the_weights_profile_is_scipys_to_the_bit():
    for n in (*range(1, 20), 96, 112, 127, 300):
        impulse = np.zeros(n)
        impulse[n // 2] = 1.0
        np.testing.assert_array_equal(tiles._gaussian(n), gaussian_filter1d(impulse, n / 8, mode="constant"))
