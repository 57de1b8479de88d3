"""Fixtures and marks shared by all tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import make_tiny_bundle

REPOSITORY = Path(__file__).resolve().parents[1]
HAS_DISPLAY = sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))

# Before anything imports Qt or Matplotlib: without a display both would abort the whole run instead of failing a test.
os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:  # a process a core: their threads would only wait for one another
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if not HAS_DISPLAY:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


# Many seconds in few tests: they come first, so that no process of `pytest -n 2 --dist loadfile` ends long after the
# other. xdist would begin with the files of most tests, and end with these.
LONG = (
    "models/test_parity.py",
    "training/nnunet/test_guide_to_the_end.py",
    "engine/registering/test_register.py",
    "server/test_server.py",
    "slicer/test_process.py",
    "explain/test_notebook.py",
    "cluster/test_cluster_runs.py",
    "training/nnunet/test_networks.py",
    "ui/test_ui_window.py",
    "ui/learn/test_learn_widget.py",
    "engine/reproducibility/test_determinism.py",
    "ui/test_ui_closing.py",
    "ui/test_ui_look_inside.py",
    "test_benchmarks.py",
)


# Their files share a fixture that takes long: one process makes it once, where two would make two.
TOGETHER = ("tests/cluster/",)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Files as `--dist loadfile` hands them out; those of a folder of `TOGETHER` as one."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return next((folder for folder in TOGETHER if file.startswith(folder)), file)

    return Scheduling(config, log)


def pytest_configure(config: pytest.Config) -> None:
    """Files are handed out in the order of `pytest_collection_modifyitems`."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; skip, and say so, what this machine cannot run."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONG))
    reasons = {}
    if not HAS_DISPLAY:
        reasons["window"] = "needs a display: run under xvfb-run -a"
    if any(item.get_closest_marker("gpu") for item in items) and not _has_cuda():
        reasons["gpu"] = "needs a CUDA device"
    for item in items:
        for mark, reason in reasons.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session", autouse=True)
def _own_user_folder(tmp_path_factory: pytest.TempPathFactory):
    """Keep the tests, and the commands they start, away from the bundles and settings of whoever runs them."""
    home = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
            patch.setenv(name, str(home / name.lower()))
        yield home


@pytest.fixture(autouse=True)
def _no_networks_of_other_tests() -> None:
    """A test's run builds its own networks: none that another test's run has left."""
    if (module := sys.modules.get("napari_mamba.engine.networks.idle")) is not None:
        module.IDLE.clear()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real volumes and parity outputs beside the checkout; skips where it is absent."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"needs the real volumes in {folder}")
    return folder


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The repository's own sample volumes."""
    return REPOSITORY / "sample_data"


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers in every run."""
    return np.random.default_rng(20240605)


@pytest.fixture
def oblique_affine() -> np.ndarray:
    """A left-handed, anisotropic, oblique (z, y, x) → RAS affine: the geometry that shows most mistakes at once."""
    z, y, x = np.deg2rad([20.0, -10.0, 15.0])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    # columns z, y, x onto the world's S, P, R
    axes = about_z @ about_y @ about_x @ np.array([[0, 0, 1], [0, -1, 0], [1, 0, 0]], dtype=float)
    affine = np.eye(4)
    affine[:3, :3] = axes @ np.diag([4.0, 0.7, 0.8])
    affine[:3, 3] = [-31.5, 20.25, 7.125]
    return affine


@pytest.fixture
def volume(rng: np.random.Generator, oblique_affine: np.ndarray):
    """A small one-channel `Volume` with a bright block in noise."""
    from napari_mamba.volume import Volume

    data = rng.normal(100, 10, (1, 12, 20, 24)).astype(np.float32)
    data[0, 3:9, 5:15, 6:18] += 80
    return Volume(data, affine=oblique_affine, channel_names=("T1",), name="block")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a bundle that runs in a moment: one MR channel in, three classes out, an untrained U-Mamba."""
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny", ("T1",))


@pytest.fixture(scope="session")
def tiny_bundle_2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for two channels."""
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny-2", ("T1", "FLAIR"))
