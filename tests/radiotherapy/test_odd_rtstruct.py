"""RTSTRUCT as planning systems write it: each oddity against regions that are known by their formula."""

import numpy as np
import pydicom
import pytest

from napari_mamba.errors import InputError
from napari_mamba.radiotherapy.dicom.contours import rasterised
from napari_mamba.radiotherapy.dicom.filling import combined
from napari_mamba.radiotherapy.dicom.grids import drawn_on, own_grid
from napari_mamba.radiotherapy.dicom.reference import new_dataset, without_series
from napari_mamba.radiotherapy.dicom.rtstruct import SOP_CLASS, read_structures
from napari_mamba.radiotherapy.sources import structures_of
from napari_mamba.volume import Volume

FRAME = "1.2.826.0.1.3680043.8.498.1"
OTHER = "1.2.826.0.1.3680043.8.498.2"
SLICES, SIDE, DISTANCE = 20, 40, 3.0


@pytest.fixture
def image() -> Volume:
    """Voxels of 3 x 1 x 1 mm; the first one's centre is the origin, so that places are easy to tell."""
    return Volume(np.zeros((1, SLICES, SIDE, SIDE), np.int16), np.array(_axes()))


def _axes():
    return [[0, 0, -1.0, 0], [0, -1.0, 0, 0], [DISTANCE, 0, 0, 0], [0, 0, 0, 1]]


def disc(z, radius, x=20.0, y=20.0):
    """Corners (N, 3) in LPS of a circle; z counts slices."""
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    places = np.full(60, z * DISTANCE)
    return np.stack([x + 0.123 + radius * np.cos(angle), y + 0.217 + radius * np.sin(angle), places], 1)


def region(z, radius, x=20.0, y=20.0):
    """The voxels (Z, Y, X) of discs on some slices, by another program."""
    from skimage.draw import polygon2mask

    mask = np.zeros((SLICES, SIDE, SIDE), bool)
    mask[np.ravel(z)] = polygon2mask((SIDE, SIDE), disc(0, radius, x, y)[:, 1::-1])
    return mask


def item(**values):
    dataset = pydicom.Dataset()
    for key, value in values.items():
        setattr(dataset, key, value)
    return dataset


def contour(points, kind="CLOSED_PLANAR"):
    values = [f"{v:.3f}" for v in np.ravel(points)]
    return item(ContourGeometricType=kind, NumberOfContourPoints=len(values) // 3, ContourData=values)


def written(path, drawn, *, frames=None, listed=(FRAME,), own=""):
    """An RTSTRUCT of structures by name; each has a list of contours, or of lists for several items."""
    dataset = new_dataset(without_series(own), "RTSTRUCT", SOP_CLASS)
    dataset.FrameOfReferenceUID = own
    dataset.ReferencedFrameOfReferenceSequence = [item(FrameOfReferenceUID=frame) for frame in listed]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(drawn, 1):
        roi = item(ROINumber=number, ROIName=name)
        if frame := (frames or {}).get(name, FRAME if frames is not None else ""):
            roi.ReferencedFrameOfReferenceUID = frame
        dataset.StructureSetROISequence.append(roi)
        for part in contours if contours and isinstance(contours[0], list) else [contours]:
            dataset.ROIContourSequence.append(item(ReferencedROINumber=number, ContourSequence=part))
    dataset.save_as(path, enforce_file_format=True)
    return path


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def read(tmp_path, image, contours, **options):
    return read_structures(written(tmp_path / "rs.dcm", [("it", contours)], **options), image)


def test_pieces_of_a_slice_that_cross_are_one_region(tmp_path, image):
    found = read(tmp_path, image, [contour(disc(z, 8, x)) for z in (4, 5, 6) for x in (16, 25)])["it"].mask
    np.testing.assert_array_equal(found, region((4, 5, 6), 8, 16) | region((4, 5, 6), 8, 25))


def test_a_contour_that_is_there_twice_counts_once(tmp_path, image):
    found = read(tmp_path, image, [contour(disc(z, 8)) for z in (4, 5, 6) for _ in range(2)])["it"].mask
    np.testing.assert_array_equal(found, region((4, 5, 6), 8))


def test_a_hole_an_island_in_it_and_two_holes_that_cross(tmp_path, image):
    rings = [contour(disc(4, radius)) for radius in (16, 10, 4)]
    found = read(tmp_path, image, rings)["it"].mask
    np.testing.assert_array_equal(found, region(4, 16) & ~region(4, 10) | region(4, 4))
    holes = [contour(disc(4, 16)), contour(disc(4, 5, 17)), contour(disc(4, 5, 23))]
    found = read(tmp_path, image, holes)["it"].mask
    np.testing.assert_array_equal(found, region(4, 16) & ~region(4, 5, 17) & ~region(4, 5, 23))


def test_exclusive_or_where_the_file_asks_for_it(tmp_path, image):
    found = read(tmp_path, image, [contour(disc(4, 8, x), "CLOSEDPLANAR_XOR") for x in (16, 25)])["it"].mask
    np.testing.assert_array_equal(found, region(4, 8, 16) ^ region(4, 8, 25))


def test_random_polygons_that_do_not_cross_agree_with_another_program():
    from skimage.draw import polygon2mask

    random = np.random.default_rng(2)
    polygons = [
        np.array(middle) + random.uniform(0.5, 1, (9, 1)) * reach * np.stack([np.sin(turn), np.cos(turn)], 1)
        for middle, reach in (((20.2, 20.1), 7), ((50.3, 40.2), 18), ((20.2, 20.1), 3))
        for turn in [np.linspace(0, 2 * np.pi, 9, endpoint=False)]
    ]
    expected = np.logical_xor.reduce([polygon2mask((80, 70), polygon) for polygon in polygons])
    np.testing.assert_array_equal(combined(polygons, (80, 70)), expected)


def test_far_pieces_are_not_joined(tmp_path, image):
    found = read(tmp_path, image, [contour(disc(z, 8)) for z in (3, 15)])["it"].mask
    np.testing.assert_array_equal(found, region((3, 15), 8))


def test_one_plane_between_slices_is_as_thick_as_slices_are_apart(tmp_path, image):
    contours = [("one", [contour(disc(4.4, 8))]), ("other", [contour(disc(z + 0.4, 8)) for z in range(8, 12)])]
    found = read_structures(written(tmp_path / "rs.dcm", contours), image)
    assert dice(found["one"].mask, region(4, 8)) > 0.97


def test_mostly_every_second_slice_but_for_one(tmp_path, image):
    found = read(tmp_path, image, [contour(disc(z, 8)) for z in (2, 4, 6, 7, 9, 11)])["it"].mask
    assert dice(found, region(np.arange(1, 13), 8)) > 0.97


def test_planes_that_are_rounded_differently_are_one(tmp_path, image):
    shifted = [disc(z + 0.4 + off, r) for z in (4, 5, 6) for r, off in ((14, 0.02), (6, -0.02))]
    found = read(tmp_path, image, [contour(points) for points in shifted])["it"].mask
    assert dice(found, region((4, 5, 6), 14) & ~region((4, 5, 6), 6)) > 0.98


def test_an_item_for_each_contour(tmp_path, image):
    found = read(tmp_path, image, [[contour(disc(z, 8))] for z in (4, 5, 6)])["it"].mask
    np.testing.assert_array_equal(found, region((4, 5, 6), 8))


def test_a_line_whose_ends_meet_and_a_kind_that_is_not_told(tmp_path, image):
    ring = np.concatenate([disc(4, 8), disc(4, 8)[:1]])
    for kind in ("OPEN_PLANAR", "closed_planar", ""):
        np.testing.assert_array_equal(read(tmp_path, image, [contour(ring, kind)])["it"].mask, region(4, 8))


def test_points_and_damaged_contours_are_told(tmp_path, image):
    bad = contour(disc(5, 8))
    bad.ContourData = bad.ContourData[:-1]
    drawn = [("iso", [contour([[1, 2, 3]], "POINT")]), ("organ", [contour(disc(4, 8)), bad]), ("nobody", [])]
    found = read_structures(written(tmp_path / "rs.dcm", drawn), image)
    assert found.notes == (
        "iso: points or open lines, which enclose nothing",
        "organ has 1 damaged contours: they are left out",
    )
    assert [structure.empty for structure in found] == [True, False, True]


def test_planes_that_cross_cost_that_structure_alone(tmp_path, image):
    flat = disc(4, 8)
    drawn = [("bad", [contour(flat), contour(flat[:, [2, 0, 1]])]), ("good", [contour(flat)])]
    found = read_structures(written(tmp_path / "rs.dcm", drawn), image)
    assert found.notes == ("bad: left empty, its contours do not lie in parallel planes",)
    np.testing.assert_array_equal(found["good"].mask, region(4, 8))


def test_two_frames_of_reference(tmp_path, image):
    drawn = [("mine", [contour(disc(4, 8))]), ("of the MR", [contour(disc(9, 8)), contour(disc(10, 8))])]
    path = written(tmp_path / "rs.dcm", drawn, frames={"of the MR": OTHER}, listed=(FRAME, OTHER))
    found = read_structures(path, image, frame=FRAME)
    assert [s.name for s in found] == ["mine"]
    assert found.notes == ("of the MR: left out, drawn in another frame of reference",)
    assert [s.name for s in read_structures(path, image)] == ["of the MR"]  # most contours, where nothing is known
    assert drawn_on(path).frames == (OTHER, FRAME)
    assert own_grid(path).shape[0] == 2
    with pytest.raises(InputError, match="another frame of reference"):
        read_structures(path, image, frame="1.2.3")


def test_the_frame_is_found_wherever_a_file_tells_it(tmp_path, image):
    drawn = [("it", [contour(disc(4, 8))])]
    for options in ({"listed": (FRAME,)}, {"listed": (), "own": FRAME}, {"listed": (OTHER,), "frames": {"it": FRAME}}):
        path = written(tmp_path / "rs.dcm", drawn, **options)
        assert len(read_structures(path, image, frame=FRAME)) == 1
        with pytest.raises(InputError, match="another frame of reference"):
            read_structures(path, image, frame="1.2.3")
    assert "check that they fit" in read_structures(path, image).notes[0]  # the last one contradicts itself


def test_names_in_other_scripts_are_told_apart(tmp_path, image):
    names = {"脑干": 8, "脊髓": 6, "Слюнная железа": 5, "++": 4, "--": 3}
    path = written(tmp_path / "rs.dcm", [(name, [contour(disc(4, radius))]) for name, radius in names.items()])
    found = structures_of([path, path], image)
    assert [s.name for s in found] == list(names)
    for name, radius in names.items():
        np.testing.assert_array_equal(found[name].mask, region(4, radius))


def test_names_that_occur_twice_stay_apart(tmp_path, image):
    names = ["eye", "eye", "eye 2", ""]
    path = written(tmp_path / "rs.dcm", [(name, [contour(disc(4, 8))]) for name in names])
    assert [s.name for s in read_structures(path, image)] == ["eye 1", "eye 2 (2)", "eye 2", "structure 4"]


def test_contours_in_crossing_planes_are_refused_where_they_are_all(image):
    flat = disc(4.3, 8)
    with pytest.raises(InputError, match="parallel"):
        rasterised([flat, flat[:, [2, 0, 1]]], image.affine, image.shape)
