"""The grid that an RTSTRUCT is filled on when the CT is open, lies beside it, or is nowhere."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from scipy import ndimage

from napari_mamba import io
from napari_mamba.errors import InputError
from napari_mamba.radiotherapy.dicom.grids import drawn_on, frame_at, own_grid, planning_image
from napari_mamba.radiotherapy.dicom.reference import read_reference
from napari_mamba.radiotherapy.dicom.rtdose import write_dose
from napari_mamba.radiotherapy.dicom.rtstruct import read_structures, write_structures
from napari_mamba.radiotherapy.structures import Structure, StructureSet


@pytest.fixture
def drawn(tmp_path, ct_folder, anatomy):
    """An RTSTRUCT on the CT, in a folder beside it."""
    folder = tmp_path / "structures"
    folder.mkdir()
    return write_structures(anatomy, folder / "rs.dcm", read_reference(ct_folder))


def test_it_says_what_it_was_drawn_on(drawn, ct_folder):
    reference = read_reference(ct_folder)
    assert drawn_on(drawn).frames[0] == reference.frame == frame_at(ct_folder) == frame_at(drawn)
    assert drawn_on(drawn).series == (reference.series,)
    assert frame_at(drawn.parent / "nothing.nii.gz") == ""


@pytest.mark.parametrize("place", ["beside", "below", "same"])
def test_the_ct_is_found_where_planners_export_it(tmp_path, drawn, ct_folder, image, place):
    if place == "below":
        shutil.move(ct_folder, drawn.parent / "ct")
    if place == "same":
        drawn = shutil.move(drawn, ct_folder / "zz.dcm")
    found = planning_image(drawn)
    assert found.shape == image.shape
    assert np.allclose(found.affine, image.affine, atol=1e-4)


def test_another_ct_is_not_taken_for_it(tmp_path, drawn, ct_folder, anatomy):
    elsewhere = tmp_path / "elsewhere" / "alone"
    elsewhere.mkdir(parents=True)
    assert planning_image(shutil.copy(drawn, elsewhere / "rs.dcm")) is None
    other = write_structures(anatomy, tmp_path / "structures" / "other.dcm")  # of an unnamed series
    assert planning_image(other) is None


def test_on_a_grid_of_its_own_structures_keep_place_and_size(drawn, image, anatomy):
    grid = own_grid(drawn)
    found = read_structures(drawn, grid)
    for name in ("PTV70", "Spinal Cord"):
        one, same = found[name], anatomy[name]
        volumes = [s.mask.sum() * g for s, g in ((one, found.voxel), (same, anatomy.voxel))]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.05)  # corners are cut
        centres = [
            (affine @ [*ndimage.center_of_mass(s.mask), 1])[:3]
            for s, affine in ((one, grid.affine), (same, image.affine))
        ]
        assert np.linalg.norm(centres[0] - centres[1]) < 0.3
    assert np.linalg.det(grid.affine[:3, :3]) != 0
    assert min(grid.spacing) == pytest.approx(1.0)


def test_no_contours_no_grid(tmp_path, image):
    nothing = StructureSet((Structure("larynx", np.zeros(image.shape, bool)),), image.affine)
    with pytest.raises(InputError, match="no contours"):
        own_grid(write_structures(nothing, tmp_path / "empty.dcm"))


def test_a_dose_file_is_read_in_gray_wherever_images_are(tmp_path, image):
    """`io.read` knows nothing of plans, but must not give stored numbers for a dose."""
    dose = image.with_data(np.linspace(0, 70, image.data.size, dtype=np.float32).reshape(image.data.shape))
    read = io.read(write_dose(dose, tmp_path / "rd.dcm"))
    assert np.allclose(np.asarray(read.data), dose.data, atol=1e-4)
    assert np.allclose(read.affine, image.affine, atol=1e-4)
