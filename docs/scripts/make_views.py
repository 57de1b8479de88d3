"""Take the pictures of registration.md and heart.md in a real napari window, from what the repository holds.

    xvfb-run -a -s "-screen 0 1280x800x24" python docs/scripts/make_views.py [registration] [heart]

The head is the ICBM sample; it is turned, warped and given another contrast, so that it has to be found again. The
beating heart is drawn: tubes in a chest, with the network's answer on top of them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
from qtpy.QtWidgets import QApplication
from scipy.ndimage import gaussian_filter

from napari_mamba import io
from napari_mamba.heart.cine import Cine
from napari_mamba.registration.transforms import Transform, resample
from napari_mamba.volume import Volume

SIZE = (1280, 800)
IMAGES = Path(__file__).parents[1] / "images"
HEAD = Path(__file__).parents[2] / "sample_data" / "icbm2009a_t1.nii.gz"


def wait(until: Callable[[], bool], seconds: float = 600) -> None:
    """Let the window live until something is so."""
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            raise SystemExit("the window did not get there in time: run this on a machine that is less busy")
        QApplication.processEvents()
        time.sleep(0.005)


def settle(seconds: float = 1.0) -> None:
    """Let pending drawing happen."""
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end)


def save(viewer: napari.Viewer, name: str) -> None:
    """The window, as it is on the screen."""
    viewer.screenshot(str(IMAGES / name), canvas_only=False, flash=False)
    print(IMAGES / name)


def another_head(fixed: Volume) -> Volume:
    """The head turned by 8 degrees, shifted, warped by up to 14 mm, dark where it was bright."""
    noise = gaussian_filter(np.random.default_rng(3).normal(size=(*fixed.shape, 3)), (11, 11, 11, 0))
    angle = np.radians(8)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[:3, 3] = (4, -6, 5)
    warp = Transform(turn, (14 * noise / np.abs(noise).max()).astype(np.float32), fixed.affine)
    moved = np.asarray(resample(fixed, fixed, warp).data, np.float32)
    return Volume(np.where(moved > 8, 1.3 * moved.max() - moved, 0), fixed.affine, name="other contrast")


def drawn_heart(phases: int = 20) -> Cine:
    """Short-axis slices of a left ventricle that shrinks by half, its wall, a right ventricle, lungs and a chest."""
    spacing, shape = (8.0, 1.4, 1.4), (9, 144, 144)
    z, y, x = np.meshgrid(
        *[(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij"
    )
    taper = np.sqrt(np.clip(1 - (z / 44) ** 2, 0, 1))
    images = []
    for t in range(phases):
        shrunk = 1 - 0.3 * np.sin(np.pi / 2 * (t / 8 if t < 8 else 1 - (t - 8) / 12))  # shortest at phase 8
        from_axis = np.hypot(y, x)
        cavity = from_axis < 25 * taper * shrunk
        wall = from_axis < np.cbrt((25 * shrunk) ** 3 + 24_000) * taper**0.5
        right = (np.hypot((y + 8) / 1.3, x + 34) < 26 * taper) & ~wall
        chest = (x / 95) ** 2 + (y / 80) ** 2 < 1
        lungs = chest & (np.abs(x - 10) > 48) & (np.abs(y) < 55)
        image = np.select([cavity, wall, right, lungs, chest], [230, 70, 215, 22, 110], 4).astype(float)
        noise = np.random.default_rng(t).normal(0, 6, shape)
        images.append(gaussian_filter(image, (0, 0.8, 0.8)) + noise)
    affine = np.array([[0, 0, -1.4, 100], [0, -1.4, 0, 100], [8.0, 0, 0, -32], [0, 0, 0, 1]])
    return Cine(np.clip(images, 0, 255).astype(np.uint8), affine, 45.0 * np.arange(phases), None, "drawn heart")


def registration() -> None:
    """Checkerboard, warped grid and the change of volume after a registration with a fitted warp."""
    from napari_mamba.ui.registration.widget import open_registration

    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    with tempfile.TemporaryDirectory() as folder:
        io.write(another_head(io.read(HEAD)), Path(folder) / "other contrast.nii.gz")
        viewer.open([HEAD], plugin="napari-mamba")
        viewer.open([Path(folder) / "other contrast.nii.gz"], plugin="napari-mamba")
    dock = open_registration(viewer)
    settle()
    dock.run()
    wait(lambda: not dock.work.running, 1800)
    names = {"checkerboard": "registration_checkerboard.png", "grid": "registration_grid.png"}
    names["jacobian"] = "registration_volume.png"
    for view, name in names.items():
        for other, box in dock.views.items():
            box.setChecked(other == view)
        wait(lambda view=view: any(layer.name.startswith(view) for layer in viewer.layers))  # type: ignore[misc]
        settle()
        save(viewer, name)
    viewer.close()


def heart() -> None:
    """The dock beside a heart that is followed, at end systole."""
    from napari_mamba.ui.heart.layers import cine_layer
    from napari_mamba.ui.heart.widget import open_heart

    viewer = napari.Viewer(show=True)
    viewer.window.resize(*SIZE)
    dock = open_heart(viewer)
    viewer.add_layer(napari.layers.Layer.create(*cine_layer(drawn_heart())))
    dock.run()
    wait(lambda: not dock.work.running, 1800)
    if dock.model.beat is None:
        raise SystemExit(dock.model.message)
    dock.model.show_phase(dock.model.beat.systole)
    settle(2)
    save(viewer, "heart.png")
    viewer.close()


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for name in sys.argv[1:] or ("registration", "heart"):
        {"registration": registration, "heart": heart}[name]()
