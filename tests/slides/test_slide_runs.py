"""A slide's run: equal to the network's own, in any order where the network reads none, and refused in a sentence."""

from __future__ import annotations

import csv
import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_slides import made_bag, slide_bundle, write_hdf5

from napari_mamba import bundles, models
from napari_mamba.cli import main
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.slides.run import run_slide, slide_to_end
from napari_mamba.errors import BundleError, InputError
from napari_mamba.models.slides import mammil
from napari_mamba.models.slides.orders import nearest_neighbours, tree_orders
from napari_mamba.slides.bag import Bag
from napari_mamba.volume import Volume

CPU = RunOptions(device="cpu")
MAMMIL = {"input_dim": 12, "embed_dim": 32, "d_state": 16, "num_classes": 3, "act": "relu"}


@pytest.fixture(scope="module")
def mil(tmp_path_factory):
    return slide_bundle(tmp_path_factory.mktemp("b") / "mil", "mambamil", ("normal", "tumour"), in_dim=12)


def shuffled(bag: Bag, seed: int = 1) -> tuple[Bag, np.ndarray]:
    order = np.random.default_rng(seed).permutation(len(bag))
    return replace(bag, features=bag.features[order], coordinates=bag.coordinates[order]), order


def test_a_run_is_the_networks_answer(mil):
    bag = made_bag()
    result = slide_to_end(bag, mil, CPU)
    with torch.inference_mode():
        _, probabilities, _ = mil.networks()[0](torch.from_numpy(bag.features))
    np.testing.assert_allclose(list(result.scores.values()), probabilities[0], rtol=1e-5)
    assert list(result.scores) == ["normal", "tumour"]
    assert result.attention.shape == (40,)
    assert result.attention.sum() == pytest.approx(1, abs=1e-5)
    assert result.provenance["patches"] == 40
    assert result.provenance["bundle"]["name"] == "mil"


@pytest.mark.parametrize(
    ("network", "arguments"), [("mambamil", {"in_dim": 12, "layer": 0}), ("mammil", MAMMIL | {"layer_n": 1})]
)
def test_a_bag_in_another_order_has_the_same_score_where_nothing_scans(tmp_path, network, arguments):
    """Without a mixer that runs, what is left is attention pooling; each patch keeps its own attention."""
    classes = ("a", "b") if network == "mambamil" else ("a", "b", "c")
    bundle = slide_bundle(tmp_path / "still", network, classes, **arguments)
    bag = made_bag()
    other, order = shuffled(bag)
    one, two = slide_to_end(bag, bundle, CPU), slide_to_end(other, bundle, CPU)
    np.testing.assert_allclose(list(one.scores.values()), list(two.scores.values()), rtol=1e-5)
    np.testing.assert_allclose(one.attention[order], two.attention, rtol=1e-4)


def test_a_scan_reads_the_order(mil):
    one, two = (slide_to_end(bag, mil, CPU).scores["tumour"] for bag in (made_bag(), shuffled(made_bag())[0]))
    assert abs(one - two) > 1e-4


def test_mammil_in_stretches_is_mammil_at_once(monkeypatch):
    torch.manual_seed(0)
    network = models.create("mammil", **(MAMMIL | {"layer_n": 2})).eval()
    bag = made_bag(50)
    features = torch.from_numpy(bag.features)
    edges = nearest_neighbours(bag.coordinates)
    whole, _ = network(features, edges, *tree_orders(bag.coordinates, edges))  # with gradients: all at once
    monkeypatch.setattr(mammil, "STRETCH", 7)
    with torch.inference_mode():
        logits, share = network.slide(features, torch.from_numpy(bag.coordinates))
    torch.testing.assert_close(logits, whole[0].detach(), rtol=1e-4, atol=1e-5)
    assert float(share.sum()) == pytest.approx(1, abs=1e-5)


def test_survival_and_risk(tmp_path):
    survival = slide_bundle(
        tmp_path / "s", "mambamil", ("1", "2", "3"), "sigmoid", in_dim=12, n_classes=3, survival=True
    )
    found = slide_to_end(made_bag(), survival, CPU)
    hazards = np.array(list(found.scores.values()))
    np.testing.assert_allclose(found.survival, np.cumprod(1 - hazards), rtol=1e-6)
    graph = slide_bundle(tmp_path / "g", "gat_mamba", ("risk",), "none")
    bag = made_bag(30, 1024)
    risk = slide_to_end(bag, graph, CPU)
    x = torch.cat([torch.from_numpy(bag.coordinates).float(), torch.from_numpy(bag.features)], dim=1)
    with torch.inference_mode():
        expected, _ = graph.networks()[0](x, nearest_neighbours(bag.coordinates))
    assert risk.scores["risk"] == pytest.approx(float(expected), rel=1e-5)
    assert risk.attention.sum() == pytest.approx(1, abs=1e-5)
    with pytest.raises(InputError, match="needs to know where the patches lie"):
        slide_to_end(Bag(bag.features), graph, CPU)


def test_what_does_not_suit_is_refused(mil, tmp_path):
    with pytest.raises(InputError, match="takes 12 features a patch, and slide has 5"):
        slide_to_end(made_bag(20, 5), mil, CPU)
    with pytest.raises(InputError, match="the bag is empty"):
        slide_to_end(made_bag(0), mil, CPU)
    with pytest.raises(InputError, match="takes a slide's bag"):
        run_to_end(Volume(np.zeros((1, 4, 4, 4))), mil, CPU)
    with pytest.raises(BundleError, match="does not take 9 features"):
        replace(mil, tile=bundles.Tile((9,)))
    few = slide_to_end(made_bag(3), mil, CPU)
    assert any("3 patches, few for a slide" in warning for warning in few.warnings)


def test_a_stopped_run_has_no_answer(mil):
    cancel = threading.Event()
    events = run_slide(made_bag(), mil, CPU, cancel)
    next(events)
    cancel.set()
    with pytest.raises(StopIteration) as end:
        next(events)
    assert end.value.value.cancelled
    assert end.value.value.scores == {}


def test_the_command(mil, tmp_path, capsys):
    bag = write_hdf5(tmp_path / "bag.h5", made_bag(), patch_size=256)
    out, report = tmp_path / "out.csv", tmp_path / "report.json"
    arguments = ["run", str(mil.path), str(bag), "-o", str(out), "--report", str(report), "--device", "cpu"]
    assert main(arguments) == 0
    assert "tumour" in capsys.readouterr().out
    assert len(list(csv.DictReader(out.open()))) == 40
    told = json.loads(report.read_text())
    assert sum(told["scores"].values()) == pytest.approx(1, abs=1e-5)
    assert told["outputs"]["attention"] == str(out)
    for wrong, said in (
        (arguments, "already there"),
        (
            ["run", str(mil.path), str(bag), "-o", str(tmp_path / "x.nii.gz")],
            "is an image's name, and the input is a bag",
        ),
        (["run", str(mil.path), str(bag), "--table", str(tmp_path / "x.csv")], "no table: leave --table out"),
        (["run", "hippocampus-mr", str(bag), "-o", str(tmp_path / "y.csv")], "is a bag of features"),
        (["run", str(mil.path), str(tmp_path / "none.h5")], "does not exist"),
    ):
        assert main(wrong) == 2
        assert said in capsys.readouterr().err.splitlines()[-1]


def test_weights_become_a_bundle_for_slides(tmp_path):
    torch.manual_seed(0)
    network = models.create("mambamil", in_dim=12, n_classes=3)
    torch.save(network.state_dict(), tmp_path / "best.pth")
    chosen = {"type": "SRMamba", "rate": 10, "act": "gelu", "survival": False}
    path = bundles.import_checkpoint(tmp_path / "best.pth", tmp_path / "made", arguments=chosen)
    bundle = bundles.load(path)
    assert (bundle.task, bundle.tile.size, [c.name for c in bundle.classes]) == (
        "slide",
        (12,),
        ["class 0", "class 1", "class 2"],
    )
    bag = made_bag()
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(bag.features))[1][0]
    np.testing.assert_allclose(list(slide_to_end(bag, bundle, CPU).scores.values()), expected, rtol=1e-4)
