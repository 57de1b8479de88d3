"""From voxels to tokens and back: through tiles, crops, resampling and orientation, on every network."""

import numpy as np
import pytest
import torch
from made_networks import given
from tiny_networks import TINY

from napari_mamba import bundles
from napari_mamba.engine.preparation.prepare import prepare
from napari_mamba.errors import InputError
from napari_mamba.explain.maps import MAPS, explain
from napari_mamba.explain.methods.attention import attention_of
from napari_mamba.explain.recorded import places
from napari_mamba.explain.recorded.opening import subject_of, subject_of_network
from napari_mamba.explain.recorded.recording import layers, record
from napari_mamba.volume import Volume

# FDV-Net scans parts of one size of any image, MiM-ISTD scans patches and the pixels within each: no grid of the image
APART = ("fdv_net", "mim_istd")
SPATIAL = [case for case in TINY if case.name not in ("mambamil", *APART)]
BAGS = [case for case in TINY if case.name == "mambamil"]
STEPS = {
    "turned": [{"step": "orient", "axcodes": "LPI"}],
    "cropped": [{"step": "crop_nonzero"}],
    "resampled": [{"step": "resample", "spacing": [1.5, 1.1, 0.9]}],
    "respaced": [{"step": "respace", "spacing": [1.5, 1.1, 0.9]}],
    "all": [
        {"step": "crop_nonzero"},
        {"step": "orient", "axcodes": "PIR"},
        {"step": "resample", "spacing": [1.3, 2.0, 0.8]},
        {"step": "transpose", "axes": [2, 0, 1]},
        {"step": "centre", "size": [40, 40, 40]},
    ],
}


def spot(shape, at, affine):
    data = np.zeros((1, *shape), np.float32)
    data[0, 2:-2, 3:-3, 4:-4] = 1  # something to crop to
    data[(0, *at)] = 50
    return Volume(data, affine=affine)


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_the_index_map_finds_a_bright_voxel(steps, oblique_affine):
    at = (7, 12, 15)
    prepared = prepare(spot((14, 26, 30), at, oblique_affine), steps)
    matrix = places.index_map(prepared, (14, 26, 30))
    found = places.apply(matrix, at)
    brightest = np.unravel_index(prepared.data[0].argmax(), prepared.data.shape[1:])
    assert np.abs(found - brightest).max() <= 1.0  # a resampled spot peaks on a voxel, its place lies between two
    back = places.apply(np.linalg.inv(matrix), found)
    np.testing.assert_allclose(back, at, atol=1e-6)


@pytest.mark.parametrize("case", SPATIAL, ids=str)
def test_every_layers_tokens_lie_where_a_bright_voxel_is(case):
    """A change of one voxel changes what enters a layer's scan most at a token whose place is beside it."""
    network, x = given(case)
    network.requires_grad_(False)
    spatial = tuple(x.shape[2:])
    at = tuple(n // 3 for n in spatial)
    bright = x.clone()
    bright[(0, slice(None), *at)] += 0.5
    placed = [layer for layer in layers(network, x) if layer.grid is not None]
    assert placed, "at least one layer scans places"
    tile, first = places.three_dimensional(spatial), placed[0]
    torch.manual_seed(1)
    before = record(network, x, [first.name])[0]
    torch.manual_seed(1)
    after = record(network, bright, [first.name])[0]
    if not torch.equal(before.paths[0].table, after.paths[0].table):
        pytest.skip("the order itself follows the image")
    change = after.map([q.u - p.u for p, q in zip(before.along(0), after.along(0), strict=True)], after.along(0))
    strength = np.abs(change).sum(0)
    cell = np.unravel_index(int(strength.argmax()), first.grid)
    place = places.three_dimensional((0,) * (3 - len(spatial)) + at)
    expected = np.unravel_index(places.cell_at(place, places.three_dimensional(first.grid), tile), first.grid)
    # a causal convolution before the scan may have spread the change to the next three steps of a path
    cells = np.stack(np.unravel_index(np.arange(int(np.prod(first.grid))), first.grid), axis=1)
    near = np.flatnonzero(np.abs(cells - expected).max(1) <= 1)
    reached = set(near.tolist())
    for path in after.along(0):
        way = path.cells[path.table].numpy()
        steps = np.flatnonzero(np.isin(way, near))
        reached |= {int(way[step + more]) for step in steps for more in range(4) if step + more < len(way)}
    beside = np.abs(np.array(cell) - expected).max() <= 2  # nor do convolutions keep it in its cell
    assert beside or int(strength.argmax()) in reached, (cell, expected)
    for layer in placed:
        assert layer.tokens == np.prod(layer.grid)


@pytest.mark.parametrize("case", [case for case in TINY if case.name in APART], ids=str)
def test_tokens_that_are_no_places_of_the_image_are_given_none(case):
    network, x = given(case)
    found = layers(network, x)
    assert found
    assert all(layer.grid is None for layer in found)


@pytest.mark.parametrize("case", BAGS, ids=str)
def test_the_tokens_of_a_bag_are_no_places_but_have_an_attention(case):
    network, x = given(case)
    network.requires_grad_(False)
    found = layers(network, x)
    assert found
    scan = record(network, x, [found[0].name])[0]
    path = scan.paths[0]
    drawn = attention_of(path, path.length - 1).drawn_absolute
    assert drawn.shape == (path.length,)
    assert float(drawn.max()) > 0
    if scan.grid is None:
        with pytest.raises(InputError, match="not places"):
            scan.need_grid()
    else:  # the bag as its order lays it out
        assert np.prod(scan.grid) >= 23


@pytest.fixture(scope="module")
def subject(tiny_bundle):
    rng = np.random.default_rng(0)
    affine = np.array([[0.0, 0, -1.5, 30], [0, -0.9, 0, 20], [2.0, 0, 0, -12], [0, 0, 0, 1]])
    data = rng.normal(100, 10, (1, 20, 24, 18)).astype(np.float32)
    data[0, 5:12, 8:15, 6:12] += 80
    return subject_of(Volume(data, affine=affine, name="block"), bundles.load(tiny_bundle))


@pytest.mark.parametrize("name", MAPS)
def test_every_map_lies_on_the_images_grid(subject, name):
    voxel = (9, 11, 8)
    layer = subject.layers[-1].name if name == "rollout" else subject.layers[0].name
    found = explain(subject, [name], voxel, layer)
    assert found.volumes or found.curves
    for volume in found.volumes.values():
        assert volume.shape == subject.volume.shape
        assert np.array_equal(volume.affine, subject.volume.affine)
        assert np.isfinite(volume.data).all()
    if name == "attention":
        order = explain(subject, ["order"], voxel, layer).volumes["order 1"].data[0]
        drawn, given = (found.volumes[f"attention {side}"].data[0] for side in ("drawn", "given"))
        inside = drawn + given > 0
        assert (order[inside & (drawn > 0)] <= order[voxel]).all()  # it looks back on the path
        assert (order[inside & (given > 0)] >= order[voxel]).all()
        assert drawn[voxel] > 0


def test_the_path_is_the_scans_own_in_the_world(subject):
    found = explain(subject, ["order"], (9, 11, 8), subject.layers[0].name)
    way = found.paths["path 1"]
    tile = subject.tile_at((9, 11, 8))
    grid = subject.layers[0].grid
    assert way.shape == (np.prod(grid), 3)
    voxels = places.apply(np.linalg.inv(subject.volume.affine), way)
    # the raster's steps run along one axis of the prepared image, one token at a time
    lengths = np.linalg.norm(np.diff(voxels, axis=0), axis=1)
    assert np.median(lengths) == pytest.approx(16 / grid[-1], rel=1e-3)
    cell = tile.cell_of((9, 11, 8), grid)
    assert np.abs(voxels[cell] - (9, 11, 8)).max() <= 16 / min(grid) / 2 + 1e-6
    order = found.volumes["order 1"].data[0]
    assert order[9, 11, 8] == cell


def test_a_voxel_in_the_world_is_that_voxel(subject):
    world = places.apply(subject.volume.affine, (3, 20, 5))
    assert subject.voxel_of(world) == (3, 20, 5)


def test_bad_wishes_are_one_sentence(subject):
    for call, said in (
        (lambda: explain(subject, ["maps"]), "no map 'maps'"),
        (lambda: explain(subject, ["state"], (99, 0, 0)), "outside of the image"),
        (lambda: subject.voxel_of((1e4, 0, 0)), "outside of the image"),
        (lambda: explain(subject, ["state"], layer="encoder.nothing"), "no scanning layer"),
        (lambda: explain(subject, ["state"], direction=5), "scans along 1 path:"),
        (lambda: explain(subject, ["relevance"], target="liver"), "no class 'liver'"),
    ):
        with pytest.raises(InputError, match=said):
            call()


def test_a_network_without_scans_says_so(volume):
    plain = torch.nn.Conv3d(1, 2, 1)
    subject = subject_of_network(volume, plain, (8, 8, 8))
    with pytest.raises(InputError, match="no scan"):
        explain(subject, ["state"])


def test_a_map_larger_than_memory_is_refused(subject, monkeypatch):
    from napari_mamba.errors import OutOfMemoryError

    monkeypatch.setattr("napari_mamba.engine.memory.available_bytes", lambda: 1000)
    with pytest.raises(OutOfMemoryError, match="does not fit"):
        explain(subject, ["state"])


def test_a_stop_is_heard(subject):
    import threading

    from napari_mamba.explain.maps import explaining

    cancel = threading.Event()
    events = explaining(subject, ["state", "memory"], cancel=cancel)
    next(events)
    cancel.set()

    def drained():
        return (yield from events)

    *_, found = _all(drained())
    assert found.cancelled
    assert "memory" not in found.volumes


def test_a_pass_is_given_up_in_the_middle_and_the_network_is_left_as_it_was():
    import threading

    from napari_mamba.explain.recorded.stopping import Stopped, stoppable

    network, cancel, ran = torch.nn.Sequential(*(torch.nn.Identity() for _ in range(5))), threading.Event(), []
    for number, part in enumerate(network):
        part.register_forward_hook(lambda *_, number=number: ran.append(number))
    network[2].register_forward_hook(lambda *_: cancel.set())
    with pytest.raises(Stopped), stoppable(network, cancel):
        network(torch.zeros(1))
    assert ran == [0, 1, 2]
    network(torch.zeros(1))
    assert ran == [0, 1, 2, 0, 1, 2, 3, 4]


def _all(events):
    """What a generator yields, and at last what it returns."""
    while True:
        try:
            yield next(events)
        except StopIteration as end:
            yield end.value
            return


def test_a_run_is_the_same_while_and_after_it_is_listened_to(tiny_bundle, volume):
    """Bit for bit: the logits' softmax, not only the labels."""
    from contextlib import ExitStack

    from napari_mamba.engine import RunOptions, run_to_end
    from napari_mamba.scan import listen

    bundle, options = bundles.load(tiny_bundle), RunOptions(device="cpu", probabilities=True)
    before = run_to_end(volume, bundle, options)
    explain(subject_of(volume, bundle), ["state", "relevance", "attention"])
    after = run_to_end(volume, bundle, options)
    networks, heard = bundle.networks(), []
    bundle = _Same(bundle, networks)
    with ExitStack() as listening:
        for network in networks:
            listening.enter_context(listen(network, heard.append))
        meanwhile = run_to_end(volume, bundle, options)
    assert heard
    for other in (after, meanwhile):
        assert np.array_equal(other.labels.data, before.labels.data)
        assert np.array_equal(other.extra["probabilities"].data, before.extra["probabilities"].data)


class _Same:
    """A bundle whose networks are these."""

    def __init__(self, bundle, networks):
        self._bundle, self._networks = bundle, networks

    def __getattr__(self, name):
        return getattr(self._bundle, name)

    def networks(self, device=None):
        return self._networks
