"""Bags of features: files as others write them, read back, and what is refused, in one sentence each."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from made_slides import made_bag, write_hdf5

from napari_mamba.errors import InputError, OutputError
from napari_mamba.slides import files
from napari_mamba.slides.bag import Bag
from napari_mamba.slides.report import percentiles, write


def test_hdf5_as_clam_and_trident_write_it(tmp_path):
    bag = made_bag()
    read = files.read(write_hdf5(tmp_path / "a.h5", bag, patch_size=256, downsample=np.array([2.0, 2.0])))
    np.testing.assert_array_equal(read.features, bag.features)
    np.testing.assert_array_equal(read.coordinates, bag.coordinates)
    assert (read.patch_size, read.name) == (512, "a")
    deep = replace(bag, features=bag.features[None].astype(np.float16)[0])
    assert files.read(write_hdf5(tmp_path / "b.h5", deep, patch_size_level0=333, patch_size=256)).side == 333
    assert files.read(write_hdf5(tmp_path / "c.h5", bag)).side == 256  # by the nearest two


def test_torch_files_and_their_coordinates(tmp_path):
    bag = made_bag()
    (tmp_path / "pt_files").mkdir()
    (tmp_path / "h5_files").mkdir()
    torch.save(torch.from_numpy(bag.features), tmp_path / "pt_files" / "one.pt")
    assert files.read(tmp_path / "pt_files" / "one.pt").coordinates is None
    write_hdf5(tmp_path / "h5_files" / "one.h5", bag, features=False)
    np.testing.assert_array_equal(files.read(tmp_path / "pt_files" / "one.pt").coordinates, bag.coordinates)
    torch.save({"features": torch.from_numpy(bag.features).half(), "coords": torch.zeros(40, 2)}, tmp_path / "two.pt")
    two = files.read(tmp_path / "two.pt")
    assert two.features.dtype == np.float32
    assert two.coordinates.shape == (40, 2)
    np.save(tmp_path / "three.npy", bag.features)
    three = files.read([tmp_path / "three.npy", tmp_path / "h5_files" / "one.h5"])
    np.testing.assert_array_equal(three.coordinates, bag.coordinates)


def _refused(place) -> str:
    with pytest.raises(InputError) as found:
        files.read(place)
    text = str(found.value)
    assert ": " in text or "," in text
    assert "\n" not in text
    return text


def test_refusals_are_one_sentence(tmp_path):
    bag = made_bag()
    only = write_hdf5(tmp_path / "coords.h5", bag, features=False)
    assert "coordinates without features" in _refused(only)
    assert "the bag is empty" in _refused(write_hdf5(tmp_path / "empty.h5", made_bag(0)))
    short = replace(bag, coordinates=bag.coordinates[:-1])
    assert "40 patches and coordinates of shape (39, 2)" in _refused(write_hdf5(tmp_path / "short.h5", short))
    broken = replace(bag, features=np.where(np.arange(480).reshape(40, 12) == 7, np.nan, bag.features))
    assert "NaN" in _refused(write_hdf5(tmp_path / "nan.h5", broken))
    (tmp_path / "text.h5").write_text("not HDF5")
    assert "cannot be read as HDF5" in _refused(tmp_path / "text.h5")
    torch.save({"features": "words"}, tmp_path / "words.pt")
    assert "holds no features" in _refused(tmp_path / "words.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "code.pt")  # would have to run code
    assert "no plain tensors" in _refused(tmp_path / "code.pt")
    assert "does not exist" in _refused(tmp_path / "none.h5")
    np.save(tmp_path / "f.npy", bag.features)
    np.save(tmp_path / "g.npy", bag.features)
    assert "has no coordinates" in _refused([tmp_path / "f.npy", tmp_path / "g.npy"])


def test_arrays_of_other_files_are_not_followed(tmp_path):
    write_hdf5(tmp_path / "real.h5", made_bag())
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["features"] = h5py.ExternalLink("real.h5", "features")
    assert "no array of this very file" in _refused(tmp_path / "link.h5")
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("features", shape=(2**21, 2**12), dtype="f4", chunks=(1, 64))
    assert "more than a slide has" in _refused(tmp_path / "huge.h5")


def test_attention_is_written_for_others(tmp_path):
    bag = made_bag()
    attention = np.random.default_rng(0).dirichlet(np.ones(40)).astype(np.float32)
    rows = list(csv.DictReader(write(bag, attention, tmp_path / "a.csv").open()))
    assert [int(row["x"]) for row in rows] == bag.coordinates[:, 0].tolist()
    np.testing.assert_allclose([float(row["attention"]) for row in rows], attention, rtol=1e-5)
    assert int(np.argmax([float(row["percentile"]) for row in rows])) == int(attention.argmax())
    with h5py.File(write(bag, attention, tmp_path / "a.h5")) as file:
        np.testing.assert_array_equal(file["attention_scores"][:, 0], attention)
        np.testing.assert_array_equal(file["coords"], bag.coordinates)
    drawn = json.loads(write(bag, attention, tmp_path / "a.geojson").read_text())["features"]
    first = np.array(drawn[0]["geometry"]["coordinates"][0])
    assert first.min(axis=0).tolist() == bag.coordinates[0].tolist()
    assert np.ptp(first, axis=0).tolist() == [256, 256]
    with pytest.raises(OutputError, match="no coordinates"):
        write(Bag(bag.features), attention, tmp_path / "b.geojson")
    assert percentiles(np.ones(4)).tolist() == [50.0] * 4
