"""Foreign files: numbers come through, code does not run, and what is no checkpoint is said to be none."""

import collections
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_mamba.bundles.importers import import_checkpoint
from napari_mamba.bundles.importers.pickles import read_checkpoint, read_pickle
from napari_mamba.errors import BundleError


class Evil:
    """Runs a shell command when it is unpickled the ordinary way."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class Getattr:
    """Reaches for a function through an allowed name."""

    def __reduce__(self):
        return getattr, (collections.OrderedDict, "fromkeys")


@pytest.fixture
def touched(tmp_path):
    return tmp_path / "touched"


def legacy(path, value):
    torch.save(value, path, _use_new_zipfile_serialization=False)


def zipped(path, value):
    torch.save(value, path)


def bare(path, value):
    path.write_bytes(pickle.dumps(value, protocol=2))


@pytest.mark.parametrize(
    ("read", "write"),
    [(read_checkpoint, zipped), (read_checkpoint, legacy), (read_checkpoint, bare), (read_pickle, bare)],
)
def test_code_in_a_checkpoint_is_named_and_never_runs(tmp_path, touched, read, write):
    path = tmp_path / "evil.pth"
    write(path, {"network_weights": {"a": [1.0]}, "logging": Evil(f"touch {touched}")})
    with pytest.raises(BundleError) as caught:
        read(path)
    assert not touched.exists()
    assert f"{os.name}.system" in str(caught.value)
    assert "state_dict" in str(caught.value)
    assert "\n" not in str(caught.value)
    pickle.loads(path.read_bytes()) if write is bare else torch.load(path, weights_only=False)
    assert touched.exists()  # the file was dangerous indeed


@pytest.mark.parametrize("read", [read_checkpoint, read_pickle])
def test_other_ways_to_code_are_refused(tmp_path, read):
    bare(tmp_path / "a.pkl", {"x": Getattr()})
    with pytest.raises(BundleError, match="getattr"):
        read(tmp_path / "a.pkl")


@pytest.mark.parametrize("value", [np.array([Evil("true"), 1], dtype=object), np.array([{}], dtype=object)])
@pytest.mark.parametrize("read", [read_checkpoint, read_pickle])
def test_arrays_of_objects_are_refused(tmp_path, value, read):
    bare(tmp_path / "a.pkl", value)
    with pytest.raises(BundleError):
        read(tmp_path / "a.pkl")


NUMBERS = {
    "loss": [np.float64(0.25), np.float32(1.5)],
    "epoch": np.int64(7),
    "on": np.bool_(True),
    "spacing": np.array([1.0, 0.5, 0.25]),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
    "swapped": np.array([1, 2, 3], dtype=">f4"),
    "plain": collections.OrderedDict(a=(1, None, True, b"\xff\x00")),
}


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_of_numbers_comes_through(tmp_path, protocol):
    path = tmp_path / "plans.pkl"
    path.write_bytes(pickle.dumps(NUMBERS, protocol=protocol))
    found = read_pickle(path)
    assert found["loss"] == [0.25, 1.5]
    assert (found["epoch"], found["on"]) == (7, True)
    for name in ("spacing", "fortran", "swapped"):
        np.testing.assert_array_equal(found[name], NUMBERS[name])
    assert found["plain"] == {"a": (1, None, True, b"\xff\x00")}


@pytest.mark.parametrize("old_spelling", [False, True])
def test_numpy_numbers_in_a_checkpoint_come_through(tmp_path, old_spelling):
    path = tmp_path / "checkpoint_final.pth"
    weights = {"a": torch.arange(6.0).reshape(2, 3)}
    torch.save({"network_weights": weights, "logging": {"loss": [np.float64(0.5)], "ema": np.float32(2)}}, path)
    if old_spelling:  # what a training under NumPy 1 writes
        data = {}
        with zipfile.ZipFile(path) as archive:
            data = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in data.items():
                archive.writestr(name, content.replace(b"cnumpy._core.", b"cnumpy.core."))
    else:
        with pytest.raises(pickle.UnpicklingError):
            torch.load(path, weights_only=True)
    found = read_checkpoint(path)
    assert found["logging"] == {"loss": [0.5], "ema": 2.0}
    torch.testing.assert_close(found["network_weights"]["a"], weights["a"])


def damaged(kind, path):
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1000)}, buffer)
    content = {
        "text": b"hello, this is a text file\n" * 10,
        "empty": b"",
        "truncated": buffer.getvalue()[:2000],
        "other zip": b"",
        "noise": bytes(range(256)) * 4,
        "pickle": pickle.dumps({"a": 1})[:-3],
    }[kind]
    path.write_bytes(content)
    if kind == "other zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "no weights")
    return path


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "other zip", "noise", "pickle"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_checkpoint(tmp_path, kind, suffix):
    path = damaged(kind, tmp_path / f"file{suffix}")
    with pytest.raises(BundleError, match="is not a") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(BundleError):
        import_checkpoint(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_file():
    with pytest.raises(BundleError, match="no such"):
        read_checkpoint(Path("/nowhere/x.pth"))
    with pytest.raises(BundleError, match="no such"):
        import_checkpoint("/nowhere/x.pth", "/tmp/out")


def test_torchscript_is_refused(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    with pytest.raises(BundleError, match="TorchScript"):
        read_checkpoint(tmp_path / "script.pt")
