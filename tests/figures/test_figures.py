"""Surfaces against volumes known exactly, mesh files read back by VTK's rules and by trimesh, figures looked into."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import trimesh

from napari_mamba.errors import InputError, OutputError
from napari_mamba.figures import SlicePicture, class_surface, scale_bar_length, write_figure, write_surfaces
from napari_mamba.volume import Volume


@pytest.fixture
def ball(oblique_affine):
    """A ball of 14 mm in an oblique, left-handed, anisotropic grid, and its centre in RAS."""
    shape = (14, 60, 56)
    index = np.stack([*np.indices(shape), np.ones(shape)]).reshape(4, -1)
    world = (oblique_affine @ index)[:3]
    centre = (oblique_affine @ [6.5, 30, 28, 1])[:3]
    data = (np.linalg.norm(world - centre[:, None], axis=0) <= 14).reshape(1, *shape)
    return Volume(data.astype(np.uint8) * 4, oblique_affine), centre


@pytest.mark.parametrize("smoothing", [0, 15])
def test_the_surface_of_a_ball(ball, smoothing):
    labels, centre = ball
    surface = class_surface(labels, 4, name="ball", smoothing=smoothing)
    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False)
    assert mesh.is_watertight
    voxels = int((labels.data == 4).sum()) * abs(np.linalg.det(labels.affine[:3, :3]))
    assert mesh.volume == pytest.approx(voxels, rel=0.08), "positive: the triangles look outwards"
    np.testing.assert_allclose(mesh.vertices.mean(axis=0), centre, atol=0.6)


def test_smoothing_takes_the_steps_away(ball):
    labels, _ = ball
    rough, fine = (class_surface(labels, 4, smoothing=n) for n in (0, 15))
    areas = [trimesh.Trimesh(s.vertices, s.faces, process=False).area for s in (rough, fine)]
    ideal = 4 * np.pi * 14**2
    assert abs(areas[1] - ideal) < abs(areas[0] - ideal)


def test_a_class_that_touches_the_rim_is_closed_and_an_absent_one_refused():
    data = np.ones((1, 4, 5, 6), np.uint8)
    surface = class_surface(Volume(data), 1, smoothing=0)
    mesh = trimesh.Trimesh(surface.vertices, surface.faces)
    assert mesh.is_watertight
    assert mesh.bounds.tolist() == [[-0.5] * 3, [3.5, 4.5, 5.5]]
    with pytest.raises(InputError, match="no voxel"):
        class_surface(Volume(data), 2, name="liver")


@pytest.mark.parametrize("suffix", [".stl", ".obj", ".ply"])
def test_mesh_files_hold_lps_millimetres_and_say_so(ball, tmp_path, suffix):
    labels, centre = ball
    surface = class_surface(labels, 4, name="ball", color="#e4a63a")
    (path,) = write_surfaces([surface], tmp_path / f"ball{suffix}")
    assert b"SPACE=LPS" in path.read_bytes()[:200]
    mesh = trimesh.load_mesh(path, process=False)
    np.testing.assert_allclose(mesh.bounds, [low_high(surface, 0), low_high(surface, 1)], atol=1e-3)
    np.testing.assert_allclose(mesh.centroid, centre * [-1, -1, 1], atol=0.6)
    assert mesh.volume > 0
    if suffix == ".ply":
        assert mesh.visual.vertex_colors[0].tolist() == [0xE4, 0xA6, 0x3A, 255]
    if suffix == ".stl":
        data = path.read_bytes()
        assert struct.unpack("<I", data[80:84])[0] == len(surface.faces)
        assert len(data) == 84 + 50 * len(surface.faces)


def low_high(surface, which):
    lps = surface.vertices * [-1, -1, 1]
    return (lps.min(axis=0), lps.max(axis=0))[which]


def test_several_surfaces_get_names_of_their_own(ball, tmp_path):
    labels, _ = ball
    surfaces = [class_surface(labels, 4, name=name) for name in ("left/kidney", "left kidney", "")]
    files = write_surfaces(surfaces, tmp_path / "organs.stl")
    assert [f.name for f in files] == ["organs_left_kidney.stl", "organs_left_kidney_.stl", "organs_label_4.stl"]
    with pytest.raises(InputError, match="STL, OBJ or PLY"):
        write_surfaces(surfaces, tmp_path / "a.vtk")
    with pytest.raises(InputError, match="no class"):
        write_surfaces([], tmp_path / "a.stl")
    with pytest.raises(OutputError, match="cannot be written"):
        write_surfaces(surfaces[:1], tmp_path / "nowhere" / "a.stl")


@pytest.fixture
def picture():
    rgb = np.full((80, 100, 3), 90, np.uint8)
    return SlicePicture(
        rgb, (1.5, 1.0), ("R", "L", "A", "P"), (("hippocampus", "#e4a63a"), ("amygdala", "#3a8fd9")), caption="S 12 mm"
    )


def test_an_svg_holds_letters_bar_and_legend_as_text(picture, tmp_path):
    text = write_figure(picture, tmp_path / "figure.svg").read_text()
    for words in (">R<", ">L<", ">A<", ">P<", "20 mm", "hippocampus", "amygdala", "S 12 mm", "#e4a63a"):
        assert words in text, words


def test_a_png_has_the_shape_of_the_slice_in_millimetres_and_a_bar_of_the_right_length(picture, tmp_path):
    from PIL import Image

    bare = SlicePicture(picture.rgb, picture.pixel_mm)
    image = np.asarray(Image.open(write_figure(bare, tmp_path / "figure.png", dpi=100)).convert("RGB")).astype(int)
    assert image.shape[:2] == (600, 500)  # 120 mm over 100 mm, 5 inches at 100 dpi
    row = image[int(600 * 0.956)]
    white = np.flatnonzero((row > 240).all(axis=1))
    assert np.ptp(white) + 1 == pytest.approx(500 * 20 / 100, abs=3)


def test_scale_bars_are_round():
    for width in np.geomspace(0.5, 900, 40):
        length = scale_bar_length(float(width))
        assert 0.12 < length / width < 0.45
        assert f"{length:e}"[0] in "125"


def test_other_endings_are_refused(picture, tmp_path):
    with pytest.raises(InputError, match="PNG or SVG"):
        write_figure(picture, tmp_path / "figure.gif")
    with pytest.raises(OutputError, match="cannot be written"):
        write_figure(picture, tmp_path / "nowhere" / "figure.png")
