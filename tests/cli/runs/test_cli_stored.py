"""`napari-mamba run` into a Zarr store: as in memory, from every kind of store, killed and gone on with."""

from __future__ import annotations

import json
import signal
import time
import zipfile

import numpy as np
import pytest
import tifffile
import zarr

from napari_mamba import bundles, engine, io
from napari_mamba.volume import Volume


@pytest.fixture
def wanted(tiny_bundle, volume):
    """What a run in memory gives."""
    return engine.run_to_end(volume, bundles.load(tiny_bundle), engine.RunOptions(device="cpu"))


@pytest.fixture
def store(tmp_path, volume):
    return io.write(volume, tmp_path / "image.ome.zarr")


def test_a_store_becomes_a_store(command, tiny_bundle, store, folder, wanted):
    output, table, report = folder / "out.ome.zarr", folder / "table.csv", folder / "report.json"
    done = command(*("run", tiny_bundle, store, "-o", output, "--table", table, "--report", report, "--device", "cpu"))
    assert done.code == 0, done.err
    np.testing.assert_array_equal(np.asarray(io.read(output).data), wanted.labels.data)
    assert [int(line.split(",")[2]) for line in table.read_text().splitlines()[1:]] == [
        row.voxels for row in wanted.table
    ]
    told = json.loads(report.read_text())
    assert told["outputs"]["labels"] == str(output)
    stored = told["provenance"]["stored"]
    assert 0 < stored["share_computed"] <= 1
    assert stored["bounded_by"] in ("computing", "reading", "writing", "waiting")
    assert sorted(path.name for path in folder.iterdir()) == ["out.ome.zarr", "report.json", "table.csv"]


def test_a_dry_run_tells_what_the_run_takes_and_writes_nothing(command, tiny_bundle, store, folder):
    line = ("run", tiny_bundle, store, "-o", folder / "out.ome.zarr", "--device", "cpu", "--dry-run")
    done = command(*line)
    assert done.code == 0, done.err
    assert [row.split()[0] for row in done.out.splitlines()] == ["image", "network", "time", "memory", "disk"]
    done = command(*line, "--events", "jsonl", "--workers", "2")
    (told,) = (one for one in map(json.loads, done.out.splitlines()) if one["event"] == "forecast")
    assert told["seconds"] == pytest.approx(told["reading_seconds"] + told["passes"] * told["pass_seconds"] / 2)
    assert list(folder.iterdir()) == []
    done = command("run", tiny_bundle, store, "-o", folder / "out.nii.gz", "--dry-run")
    assert (done.code, list(folder.iterdir())) == (2, [])
    assert "--dry-run is for outputs in a Zarr store" in done.err


def test_a_dry_run_of_a_bundle_that_takes_a_small_image_whole_tells_of_a_run_in_memory(command, store, folder):
    done = command("run", "hippocampus-mr", store, "-o", folder / "out.ome.zarr", "--device", "cpu", "--dry-run")
    assert (done.code, list(folder.iterdir())) == (0, []), done.err
    assert done.out.split()[:3] == ["run", "in", "memory:"]


def made(kind, volume, folder):
    """The same image in a store or file of some kind, and what `run` needs to be told."""
    data = volume.data[0]
    path = folder / "image.zarr"
    if kind == "zarr 2":
        zarr.create_array(path, data=data, chunks=(8, 8, 8), zarr_format=2)
    elif kind == "zarr 3":
        zarr.create_array(path, data=data, chunks=(8, 8, 8), zarr_format=3)
    elif kind == "sharded":
        zarr.create_array(path, data=data, chunks=(4, 4, 4), shards=(16, 16, 16), zarr_format=3)
    elif kind == "zip":
        whole = io.write(volume, path)
        path = folder / "image.zarr.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in whole.rglob("*"):
                if file.is_file():
                    archive.write(file, str(file.relative_to(whole)))
    elif kind == "address":
        group = zarr.open_group("memory://stores/image.zarr", mode="w", zarr_format=2)
        group.create_array("0", data=volume.data, chunks=(1, 8, 8, 8))
        group.attrs.update(dict(zarr.open_group(str(io.write(volume, path)), mode="r").attrs))
        path = "memory://stores/image.zarr"
    elif kind == "nifti":
        path = io.write(volume, folder / "image.nii")
    elif kind == "tiff":
        path = folder / "image.tif"
        tifffile.imwrite(path, data, imagej=True, metadata={"axes": "ZYX"})
    elif kind == "tiff pyramid":
        path = folder / "image.ome.tif"
        with tifffile.TiffWriter(path) as writer:
            writer.write(data, subifds=1, metadata={"axes": "ZYX"}, tile=(16, 16))
            writer.write(data[:, ::2, ::2], subfiletype=1, tile=(16, 16))
    return path


@pytest.mark.parametrize("kind", ["zarr 2", "zarr 3", "sharded", "zip", "address", "nifti", "tiff", "tiff pyramid"])
def test_every_kind_of_input_gives_the_labels_of_its_image_in_memory(
    command, tiny_bundle, volume, tmp_path, folder, kind
):
    path = made(kind, volume, tmp_path)
    done = command("run", tiny_bundle, path, "-o", folder / "out.zarr", "--device", "cpu")
    assert done.code == 0, done.err
    plain = io.read(path)
    plain = Volume(np.asarray(plain.data), plain.affine, units=plain.units)
    expected = engine.run_to_end(plain, bundles.load(tiny_bundle), engine.RunOptions(device="cpu"))
    labels = io.read(folder / "out.zarr")
    np.testing.assert_array_equal(np.asarray(labels.data), expected.labels.data)
    np.testing.assert_allclose(labels.affine, plain.affine, atol=1e-5)


def test_a_coarser_level_and_a_region_of_it(command, tiny_bundle, volume, tmp_path, folder):
    path = made("tiff pyramid", volume, tmp_path)
    region = "--region=-12,-12,0,0,0,8"
    done = command("run", tiny_bundle, path, "--level", 1, region, "-o", folder / "out.zarr", "--device", "cpu")
    assert done.code == 0, done.err
    coarse = io.read(path, level=1)
    options = engine.RunOptions(device="cpu", region=(-12, -12, 0, 0, 0, 8))
    expected = engine.run_to_end(coarse, bundles.load(tiny_bundle), options)
    np.testing.assert_array_equal(np.asarray(io.read(folder / "out.zarr").data), expected.labels.data)


def test_one_channel_of_several(command, tiny_bundle, volume, tmp_path, folder, wanted):
    both = Volume(np.concatenate([volume.data[:, ::-1], volume.data]), volume.affine, ("actin", "nuclei"), name="image")
    path = io.write(both, tmp_path / "stained.ome.zarr")
    line = ("run", tiny_bundle, path, "-o", folder / "out.ome.zarr", "--device", "cpu")
    refused = command(*line)
    assert refused.code == 2
    assert "choose of its own (--channel)" in refused.err
    done = command(*line, "--channel", "nuclei")
    assert done.code == 0, done.err
    np.testing.assert_array_equal(np.asarray(io.read(folder / "out.ome.zarr").data), wanted.labels.data)


def test_into_an_address(command, tiny_bundle, store, wanted):
    done = command("run", tiny_bundle, store, "-o", "memory://results/out.zarr", "--device", "cpu")
    assert done.code == 0, done.err
    group = zarr.open_group("memory://results/out.zarr", mode="r")
    np.testing.assert_array_equal(group["0"][...], wanted.labels.data)


def test_killed_and_gone_on_with(start, command, tiny_bundle, tmp_path, folder):
    rng = np.random.default_rng(0)
    upright = np.eye(4)[[2, 1, 0, 3]]
    big = Volume(rng.normal(100, 30, (1, 200, 24, 24)).astype(np.float32), upright, name="big")
    path, output = io.write(big, tmp_path / "big.zarr"), folder / "out.zarr"
    line = ("run", tiny_bundle, path, "-o", output, "--device", "cpu", "--no-mirror")
    process = start(*line)
    entries = folder / "out.zarr.unfinished" / "done"
    limit = time.monotonic() + 240
    while not (entries.is_dir() and list(entries.rglob("*.json"))) and time.monotonic() < limit:
        time.sleep(0.05)
        assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = list(entries.rglob("*.json"))
    assert command(*line).error.endswith("go on with --resume, or begin anew with --overwrite")
    assert command("run", tiny_bundle, output, "-o", folder / "other.nii").code == 2
    assert command(*line, "--resume").code == 0
    expected = engine.run_to_end(big, bundles.load(tiny_bundle), engine.RunOptions(device="cpu", mirror=False))
    np.testing.assert_array_equal(np.asarray(io.read(output).data), expected.labels.data)
    assert there
    assert not entries.exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("-o", "labels.nii.gz", "--resume"), "--resume is for outputs in a Zarr store: name one that ends in .zarr"),
        (("-o", "labels.nii.gz", "--workers", "2", "--scheduler", "tcp://127.0.0.1:9"), "give one of them"),
        (("-o", "labels.nii.gz", "--scheduler", "tcp://127.0.0.1:9"), "no Dask scheduler answers at tcp://127.0.0.1:9"),
        (("-o", "labels.zarr", "--scheduler", "tcp://127.0.0.1:9"), "no Dask scheduler answers at tcp://127.0.0.1:9"),
        (("-o", "s3://bucket/labels.nii.gz"), "is an address, where Zarr stores alone are written"),
        (("-o", "nowhere/labels.zarr"), "does not exist, create it first"),
    ],
)
def test_outputs_that_cannot_be(command, tiny_bundle, store, tmp_path, monkeypatch, arguments, reason):
    from napari_mamba.cluster import connecting

    monkeypatch.setattr(connecting, "_CONNECT", "1s")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    done = command("run", tiny_bundle, store, *arguments)
    assert done.code == 2
    assert reason in done.error
    assert sorted(tmp_path.iterdir()) == before


def test_what_needs_memory_is_made_in_memory(command, tiny_bundle, store, folder, wanted):
    done = command(
        "run", tiny_bundle, store, "-o", folder / "out.zarr", "--uncertainty", folder / "u.nii.gz", "--device", "cpu"
    )
    assert done.code == 0, done.err
    np.testing.assert_array_equal(np.asarray(io.read(folder / "out.zarr").data), wanted.labels.data)


def test_a_damaged_chunk_is_told(command, tiny_bundle, store, folder):
    chunk = max((file for file in (store / "0").rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    chunk.write_bytes(chunk.read_bytes()[:-20])
    done = command("run", tiny_bundle, store, "-o", folder / "out.zarr", "--device", "cpu")
    assert done.code == 2
    assert "is damaged" in done.error
    assert list(folder.iterdir()) == []


def test_an_input_that_goes_in_mid_run_is_told_and_what_is_done_stays(tiny_bundle, tmp_path, folder):
    from napari_mamba.engine.stored.run import run_into
    from napari_mamba.errors import InputError

    upright = np.eye(4)[[2, 1, 0, 3]]
    big = Volume(np.random.default_rng(0).normal(100, 30, (1, 200, 20, 20)).astype(np.float32), upright)
    path = io.write(big, tmp_path / "big.zarr")
    options = engine.RunOptions(device="cpu", mirror=False)
    events = run_into(io.Opener((str(path),)), bundles.load(tiny_bundle), folder / "out.zarr", options)
    while next(events).stage != "network":
        pass
    path.rename(tmp_path / "away.zarr")
    with pytest.raises(InputError, match="is gone: its disk may have been taken away"):
        for _ in events:
            pass
    assert (folder / "out.zarr.unfinished").exists()


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("ENOSPC", "no space is left on its disk: free some"),
        ("EROFS", "its disk is read-only"),
        ("EACCES", "you may not"),
    ],
)
def test_a_disk_that_is_full_or_closed_in_mid_run_is_told(tiny_bundle, store, folder, monkeypatch, number, reason):
    import errno

    from zarr.storage import LocalStore

    from napari_mamba.engine.stored.run import run_into
    from napari_mamba.errors import OutputError

    async def full(self, key, value):
        raise OSError(getattr(errno, number), "as the system says")

    events = run_into(io.read(store), bundles.load(tiny_bundle), folder / "out.zarr", engine.RunOptions(device="cpu"))
    while next(events).stage != "network":
        pass
    monkeypatch.setattr(LocalStore, "set", full)
    with pytest.raises(OutputError, match=rf"{reason}.*go on with --resume"):
        for _ in events:
            pass
