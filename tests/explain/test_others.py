"""Receptive field, occlusion, knockout, unusual tokens, scan orders, figures."""

import numpy as np
import pytest
import torch
from made_networks import OnMaps
from published import filled, reference
from torch import nn

from napari_mamba import explain as room
from napari_mamba.errors import InputError, OutOfMemoryError
from napari_mamba.explain.figure import coloured, figure, limits_of
from napari_mamba.explain.methods.attribution import picking
from napari_mamba.explain.methods.field import FieldGraph, layer_field, reach, receptive_field
from napari_mamba.explain.methods.intervention import knockout, linear_scan
from napari_mamba.explain.methods.order import compare_orders, facts, neighbour_distance, order_on, positions, ranks
from napari_mamba.explain.methods.perturbation import occlude, occlusion
from napari_mamba.explain.recorded.recording import record
from napari_mamba.explain.recorded.tokens import unusual_tokens
from napari_mamba.nn import S4D, S5, Mamba, Mamba2
from napari_mamba.scan import scan_order
from napari_mamba.volume import Volume


def test_the_field_of_a_convolution_is_its_kernel():
    conv = nn.Conv2d(1, 1, 5, padding=2).requires_grad_(False)
    field = receptive_field(conv, torch.randn(1, 1, 15, 15), lambda y: y[0, 0, 7, 7])
    expected = torch.zeros(15, 15)
    expected[5:10, 5:10] = conv.weight[0, 0].abs()
    torch.testing.assert_close(field, expected)
    assert reach(expected.numpy(), (7, 7), (1, 1), (1.0,))[0] == pytest.approx(np.hypot(2, 2))


def test_published_fields_of_vmamba():
    data, spec, fill = reference("vmamba_erf_attention")
    network = filled("vmamba", spec, fill)

    class Backbone(nn.Module):
        def forward(self, x):
            y = network.patch_embed(x)
            for stage in network.layers:
                y = stage(y)
            return y

    def middle(y):
        return y[0, y.shape[1] // 2, y.shape[2] // 2].clamp(min=0).sum()

    for name, shape, seed in (
        ("128_seed7", (128, 128), 7),
        ("128_seed8", (128, 128), 8),
        ("96x160_seed7", (96, 160), 7),
    ):
        x = torch.from_numpy(fill.input((1, 3, *shape), seed))
        field = receptive_field(Backbone(), x, middle, positive=True).numpy()
        published = data[f"erf_{name}"]
        assert np.linalg.norm(field - published) < 1e-5 * np.linalg.norm(published)


def test_a_raster_scans_field_lies_before_the_token():
    torch.manual_seed(0)
    network = OnMaps(Mamba(4)).requires_grad_(False)
    x = torch.randn(1, 4, 6, 6)
    field = layer_field(network, x, "mix", lambda grid: 20).numpy().ravel()
    assert field[:21].min() > 0
    assert not field[21:].any()


def test_one_pass_serves_many_fields():
    torch.manual_seed(0)
    network = nn.Sequential(OnMaps(Mamba(4)), nn.Conv2d(4, 2, 3, padding=1)).requires_grad_(False)
    x = torch.randn(1, 4, 6, 6)
    graph = FieldGraph(network, x)
    for at in ((1, 2), (4, 5), (1, 2)):
        alone = receptive_field(network, x, lambda y: y[0, :, *at].sum())  # noqa: B023
        assert torch.equal(graph.answer(lambda y: y[0, :, *at].sum()), alone)  # noqa: B023
    assert torch.equal(graph.layer("0.mix", lambda grid: 20), layer_field(network, x, "0.mix", lambda grid: 20))
    assert graph.bytes > x.nbytes
    heard, alone = graph.scan("0.mix"), record(network, x, ["0.mix"])[0]
    assert [layer.name for layer in graph.layers] == ["0.mix"]
    assert graph.scan("1") is None
    for name in ("u", "delta", "B", "C"):
        assert torch.equal(getattr(heard.paths[0], name), getattr(alone.paths[0], name))
    assert torch.equal(heard.convolution.x, alone.convolution.x)
    with pytest.raises(OutOfMemoryError, match="smaller tile"):
        FieldGraph(network, x, most=x.nbytes)
    with pytest.raises(InputError, match="another layer"):
        graph.layer("1", lambda grid: 0)


def test_occlusion_finds_the_one_block_that_counts():
    network = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(network.weight)
    x = torch.zeros(1, 1, 12, 12)
    x[0, 0, 5, 9] = 3
    found = occlusion(network, x, picking(0), block=4)
    assert found[5, 9] == pytest.approx(3 / 144)
    assert np.count_nonzero(found) == 16
    *_, (_, _, shifted) = occlude(network, x, picking(0), block=4, shift=(2, 1))  # begins within larger blocks
    assert np.count_nonzero(shifted) == 16
    assert shifted[2:6, 7:11].all()
    with pytest.raises(InputError, match="2 sides"):
        occlusion(network, x, picking(0), block=(4, 4, 4))


@pytest.mark.parametrize("mixer", [Mamba, Mamba2, S4D, S5])
def test_a_knockout_of_all_that_a_token_draws_leaves_itself(mixer):
    """Cut everything from the first half to the second: the second answers as if the scan began there."""
    torch.manual_seed(0)
    kwargs = {"d_conv": 1} if mixer in (Mamba, Mamba2) else {}
    layer = mixer(4, d_state=4, **kwargs).requires_grad_(False)
    network, x = OnMaps(layer), torch.randn(1, 4, 6, 4)
    first = lambda grid: torch.arange(24) < 12  # noqa: E731
    second = lambda grid: torch.arange(24) >= 12  # noqa: E731
    cut = knockout(network, x, first, second)
    assert cut.cuts == 1
    torch.testing.assert_close(cut.before, network(x))
    torch.testing.assert_close(cut.after[:, :, :3], cut.before[:, :, :3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cut.after[:, :, 3:], network(x[:, :, 3:]), rtol=1e-4, atol=1e-5)
    assert float((cut.after - cut.before).abs().max()) > 1e-4
    assert knockout(network, x, second, first).after.allclose(cut.before, rtol=1e-4, atol=1e-5)  # a raster looks back


def test_a_linear_scan_by_transforms_is_the_mixers_own():
    torch.manual_seed(0)
    for kind in (S4D, S5):
        layer, x, heard = kind(5, d_state=6).requires_grad_(False), torch.randn(1, 20, 5), []
        from napari_mamba.scan import listen

        order = scan_order("bidirectional", (20,))
        with listen(layer, lambda call: heard.append(call.arguments)):  # noqa: B023
            y = layer(x, order)
        with listen(layer, lambda call: linear_scan(call.arguments, call.arguments.u), replaces=True):
            torch.testing.assert_close(layer(x, order), y, rtol=1e-4, atol=1e-5)


def test_a_loud_token_in_the_dark_is_found_and_said():
    torch.manual_seed(0)
    network = OnMaps(Mamba(4, d_conv=1)).requires_grad_(False)
    image = torch.zeros(1, 4, 16, 16)
    image[:, :, 4:12, 4:12] = torch.rand(1, 4, 8, 8) + 1
    scan = record(network, image + 1)[0]
    quiet = unusual_tokens(scan, image)
    assert quiet.sentence == ""
    scan.paths[0].u = scan.paths[0].u.clone()
    scan.paths[0].u[3] += 100  # a corner, in the dark
    scan.paths[0].u[100] += 100  # in what is seen
    loud = unusual_tokens(scan, image)
    assert loud.unusual.sum() == 1
    assert loud.unusual.ravel()[3]
    assert "unusually large norm" in loud.sentence


def test_a_known_permutation_gives_a_known_path():
    table = np.array([3, 0, 1, 2])
    assert ranks(table, (2, 2)).tolist() == [[1, 2], [3, 0]]
    assert positions(table, (2, 2)).tolist() == [[1, 1], [0, 0], [0, 1], [1, 0]]
    assert neighbour_distance(ranks(table, (2, 2))).tolist() == [[1.5, 1.5], [2.5, 2.5]]
    row = facts(scan_order("raster", (4, 8)).table[0], (4, 8))
    assert (row.neighbours, row.worst) == (pytest.approx((28 * 1 + 24 * 8) / 52), 8)


def test_orders_are_compared_where_they_are_defined():
    rows = compare_orders((4, 4, 4))
    assert {"raster", "hilbert", "serpentine"} <= {row.order for row in rows}
    assert "ss2d" not in {row.order for row in rows}  # of flat grids
    assert next(row.jumps for row in rows if row.order == "hilbert") == 0
    assert order_on("ss2d", (2, 2, 2)) is None
    with pytest.raises(InputError, match="unknown"):
        order_on("spaghetti", (2, 2))


def test_a_figure_has_a_row_a_map_and_its_colours_are_right():
    volume = Volume(np.random.default_rng(0).random((1, 8, 9, 10)).astype(np.float32))
    one = volume.with_data(np.linspace(-1, 1, 720, dtype=np.float32).reshape(1, 8, 9, 10))
    assert figure(volume, {"relevance": one, "state": one}, (4, 4, 4)).height > figure(volume, {}, (4, 4, 4)).height
    assert limits_of("relevance", one.data) == pytest.approx((-1, 1), abs=0.02)
    red, white, blue = coloured(np.array([1.0, 0.0, -1.0]), (-1, 1), signed=True)
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert white.min() > 200


def test_the_rooms_names_are_there():
    assert all(callable(getattr(room, name)) or name == "MAPS" for name in room.__all__)  # no module of that name
    with pytest.raises(AttributeError):
        room.nothing  # noqa: B018
