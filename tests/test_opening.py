"""What a process opens ahead of PyTorch's import: never in its way, and once."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from napari_mamba import opening

WITHOUT_TORCH = """
import sys
from napari_mamba import opening
begun = []
opening._cuda_build = lambda: {folder}
opening.open_context = lambda index: begun.append(index)
opening.open_libraries = lambda folder: begun.append(folder)
for device in {devices}:
    for thread in opening.open_ahead(device):
        thread.join()
assert "torch" not in sys.modules and "numpy" not in sys.modules
print(begun)
"""


def in_a_new_process(devices: list[str], folder: str = "'lib'") -> str:
    text = WITHOUT_TORCH.format(devices=devices, folder=folder)
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(("device", "index"), [("auto", 0), ("cuda", 0), ("cuda:2", 2)])
def test_driver_and_libraries_are_opened_once_and_before_pytorch_and_numpy(device, index):
    expected = {repr(index), "'lib'"} if sys.platform == "linux" else {repr(index)}
    found = in_a_new_process([device, device, "cuda:1"])
    assert set(found.strip("[]").split(", ")) == expected


@pytest.mark.parametrize("device", ["cpu", "mps", "nonsense"])
def test_what_is_no_gpu_opens_nothing(device):
    assert in_a_new_process([device]) == "[]"


def test_a_build_without_cuda_opens_nothing():
    assert in_a_new_process(["auto"], folder="None") == "[]"


def test_the_build_is_told_by_its_library(tmp_path, monkeypatch):
    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(opening, "find_spec", lambda name: Spec)
    assert opening._cuda_build() is None
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libtorch_cuda.so").touch()
    assert opening._cuda_build() == tmp_path / "lib"
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    assert opening._cuda_build() is None


def test_with_pytorch_there_nothing_is_opened(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", object())
    monkeypatch.setattr(opening, "_cuda_build", lambda: pytest.fail("looked for a build"))
    assert opening.open_ahead("cuda") == []


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_goes_wrong_is_left_to_the_run(monkeypatch):
    monkeypatch.setattr(opening, "_opened", [])

    def fails() -> None:
        raise OSError("no driver")

    opening._begin("fails", fails)
    assert not opening._opened[0].daemon
    opening._opened[0].join()


@pytest.mark.skipif(sys.platform != "linux", reason="dlopen")
def test_libraries_of_a_missing_folder_are_let_be():
    before = threading.active_count()
    opening.open_libraries(Path("/nowhere"))
    assert threading.active_count() == before


@pytest.mark.skipif(sys.platform != "linux", reason="dlopen")
def test_libraries_are_opened(monkeypatch):
    import _ctypes

    monkeypatch.setattr(opening, "FIRST", (Path(_ctypes.__file__).name,))
    monkeypatch.setattr(opening, "_later", lambda folder: [Path("/nowhere")])
    monkeypatch.setitem(sys.modules, "torch._C", object())
    opening.open_libraries(Path(_ctypes.__file__).parent)


def test_later_libraries_lie_beside_pytorch(tmp_path):
    for name in ("cudnn/lib/libcudnn_graph.so.9", "cudnn/lib/libcudnn.so.9", "cu13/lib/libnvrtc.so.13"):
        file = tmp_path / "nvidia" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    found = [path.name for path in opening._later(tmp_path / "torch" / "lib")]
    assert found == ["libcudnn_graph.so.9", "libnvrtc.so.13"]


@pytest.mark.parametrize("there", [True, False])
def test_imports_are_made_without_the_collector_where_pytorch_is_not_there(monkeypatch, there):
    if there:
        monkeypatch.setitem(sys.modules, "torch", object())
    else:
        monkeypatch.delitem(sys.modules, "torch", raising=False)
    frozen = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))

    def import_and_fail() -> None:
        with opening.importing():
            assert gc.isenabled() == there
            raise ValueError("stops")

    with pytest.raises(ValueError, match="stops"):
        import_and_fail()
    assert gc.isenabled()
    assert bool(frozen) != there


@pytest.mark.gpu
def test_a_context_that_was_opened_ahead_is_pytorchs():
    text = (
        "from napari_mamba.opening import open_ahead; threads = open_ahead('cuda'); import torch;"
        "[t.join() for t in threads]; print(len(threads), float(torch.ones(3, device='cuda').sum()))"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "3.0"
