"""Weights in eight bits: as near as they promise, the same when stored again, and refused where they do not fit."""

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from toy import ARGUMENTS, SPEC

from napari_mamba import bundles, engine, models
from napari_mamba.bundles.int8 import INT8_MAX, SCALE, dequantize, quantize
from napari_mamba.bundles.weights import smallest, stored
from napari_mamba.errors import BundleError, InputError
from napari_mamba.training.scoring.evaluation import write_numbers
from napari_mamba.volume import Volume


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(3)
    return models.create("umamba_bot", **ARGUMENTS).state_dict()


@pytest.fixture
def bundle(weights, tmp_path):
    return bundles.save(tmp_path / "toy", SPEC, [weights], dtype="int8")


def test_every_value_is_off_by_half_a_step_of_its_row_at_most():
    for size in (1e-30, 1e-4, 1.0, 3e4):
        weight = size * torch.randn(8, 16, 3, 3, 3, generator=torch.Generator().manual_seed(0))
        weight[2] = 0
        found = dequantize(quantize({"w": weight}))["w"]
        rows = weight.flatten(1).abs().amax(1)
        assert ((found - weight).flatten(1).abs().amax(1) <= rows / 127 * 0.5003).all()
        assert torch.equal(found[2], weight[2])


def test_long_rows_alone_are_in_eight_bits():
    kept = {
        "bias": torch.randn(200),
        "A_log": torch.randn(96, 16),
        "depthwise": torch.randn(64, 1, 3, 3, 3),
        "steps": torch.tensor(4),
    }
    found = quantize({**kept, "kernel": torch.randn(4, 64)})
    assert all(found[key] is value for key, value in kept.items())
    assert found["kernel"].dtype == torch.int8
    assert found["kernel" + SCALE].dtype == torch.float32


def test_stored_again_nothing_changes(weights):
    once = dequantize(stored(weights, "int8"))
    assert smallest([weights]) == "float32"
    assert smallest([once]) == "int8"
    assert smallest([{key: value.half().float() for key, value in weights.items()}]) == "float16"
    again = dequantize(stored(once, "int8"))
    assert all(torch.equal(again[key], value) for key, value in once.items())
    assert not all(torch.equal(once[key], value) for key, value in weights.items())


def test_no_row_changes_however_often_it_is_stored():
    random = torch.Generator().manual_seed(5)
    rows = torch.randn(4000, 64, generator=random) * torch.exp(4 * torch.randn(4000, 1, generator=random))
    largest = torch.arange(2**23, 2**24).float()  # of every mantissa
    scale = largest / INT8_MAX
    assert torch.equal(scale * INT8_MAX / INT8_MAX, scale)
    once = quantize({"w": rows})
    again = quantize(dequantize(once))
    assert all(torch.equal(again[key], once[key]) for key in once)


def test_numbers_are_written_into_a_bundle_whose_weights_stay_as_they_are(bundle):
    before = (bundle / "weights.safetensors").read_bytes()
    write_numbers(bundles.load(bundle), {"dice": 1.0}, "# Toy\n")
    assert bundles.load(bundle).metrics == {"dice": 1.0}
    assert (bundle / "weights.safetensors").read_bytes() == before


def test_a_bundle_in_eight_bits_answers_as_one_in_float32_and_is_smaller(bundle, weights, tmp_path):
    exact = bundles.save(tmp_path / "exact", SPEC, [weights])
    volume = Volume(np.random.RandomState(0).rand(1, 8, 8, 8).astype(np.float32))
    options = engine.RunOptions(device="cpu", probabilities=True)
    answers = [
        engine.run_to_end(volume, bundles.load(place), options).extra["probabilities"].data for place in (exact, bundle)
    ]
    assert np.abs(answers[0] - answers[1]).max() < 0.02
    sizes = [sum(file.stat().st_size for file in bundles.load(place).weights) for place in (exact, bundle)]
    assert sizes[1] < 0.5 * sizes[0]


def test_members_in_eight_bits_stay_so(bundle, tmp_path):
    torch.manual_seed(4)
    other = models.create("umamba_bot", **ARGUMENTS).state_dict()
    second = bundles.save(tmp_path / "second", SPEC, [other], dtype="int8")
    whole_ = bundles.load(bundles.join([bundle, second], tmp_path / "both"))
    assert (whole_.path / "weights_0.safetensors").read_bytes() == (bundle / "weights.safetensors").read_bytes()


def test_another_type_is_refused_in_one_line(weights, tmp_path):
    with pytest.raises(InputError, match="float32, float16 or int8, not as 'int4'"):
        bundles.save(tmp_path / "toy", SPEC, [weights], dtype="int4")
    assert not (tmp_path / "toy").exists()


@pytest.mark.parametrize("fault", ["no scales", "no weight", "short", "half", "not finite"])
def test_eight_bits_without_their_scales_are_refused(bundle, fault):
    file = bundle / "weights.safetensors"
    tensors = load(file.read_bytes())
    key = next(key for key in tensors if key.endswith(SCALE))
    if fault == "no scales":
        del tensors[key]
    elif fault == "no weight":
        del tensors[key.removesuffix(SCALE)]
    else:
        scale = tensors[key]
        tensors[key] = {"short": scale[:-1], "half": scale.half(), "not finite": scale * float("nan")}[fault]
    file.write_bytes(save(tensors))
    description = (bundle / "bundle.json").read_text()
    start = description.index('"sha256"')
    end = description.index("}", start)
    (bundle / "bundle.json").write_text(description[:start] + '"sha256": {' + description[end:])
    with pytest.raises(BundleError, match="not finite" if fault == "not finite" else "eight bits") as caught:
        bundles.load(bundle).networks()
    assert "\n" not in str(caught.value)
