"""Volume nodes to files and files to nodes, on real MRML: where every voxel lies, and what is kept with it."""

from __future__ import annotations

import numpy as np
import pytest
from made_scene import (
    GRIDS,
    bent,
    block,
    labels_like,
    linear,
    nearest,
    points_of,
)

from napari_mamba import io

pytest.importorskip("slicer_core", reason="needs Slicer's MRML: pip install slicer-core")


@pytest.mark.parametrize("grid", GRIDS, ids=["left", "right"])
def test_the_file_has_each_value_where_the_node_has_it(add_volume, tmp_path, grid):
    from MambaImagingLib.nodes import volumes

    array = block()
    paths, resample, notes = volumes.export_case([add_volume(array, grid)], tmp_path)
    volume = io.read(paths[0])
    assert np.array_equal(volume.data[0], array)
    for kji in [(0, 0, 0), (13, 17, 19), (3, 5, 7)]:
        assert np.allclose((volume.affine @ [*kji, 1])[:3], (grid @ [*kji[::-1], 1])[:3], atol=1e-3)
    assert (resample, notes) == (False, [])


@pytest.mark.parametrize(
    "kind", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "uint64", "float32", "float64"]
)
def test_every_value_type_arrives(add_volume, tmp_path, kind):
    from MambaImagingLib.nodes import volumes

    array = np.arange(60).reshape(3, 4, 5).astype(kind)
    paths, _, _ = volumes.export_case([add_volume(array, np.eye(4))], tmp_path)
    assert np.array_equal(io.read(paths[0]).data[0], array)


def test_what_is_no_scalar_image_is_refused(scene, add_volume, tmp_path):
    import slicer
    from MambaImagingLib.nodes import volumes

    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "nothing")
    with pytest.raises(volumes.Unusable, match="nothing is empty"):
        volumes.export_case([empty], tmp_path)
    colours = slicer.util.addVolumeFromArray(
        np.zeros((3, 4, 5, 3), np.uint8), name="photo", nodeClassName="vtkMRMLVectorVolumeNode"
    )
    with pytest.raises(volumes.Unusable, match="3 values a voxel"):
        volumes.export_case([colours], tmp_path)
    with pytest.raises(volumes.Unusable, match="choose an input"):
        volumes.export_case([None], tmp_path)


def test_channels_under_linear_transforms_meet_in_the_first_ones_frame(scene, add_volume, tmp_path):
    from MambaImagingLib.nodes import volumes

    turn = np.array([[0, -1, 0, 40.0], [1, 0, 0, 5], [0, 0, 1, -7], [0, 0, 0, 1]])
    shift = np.eye(4)
    shift[:3, 3] = [3, 4, 5]
    first = add_volume(block(), GRIDS[1], "a", linear(scene, shift))
    second = add_volume(block(seed=1), GRIDS[0], "b", linear(scene, turn))
    paths, resample, _ = volumes.export_case([first, second], tmp_path)
    assert resample
    wanted = np.linalg.inv(shift) @ turn @ GRIDS[0]
    assert np.allclose(io.read(paths[1]).affine[:, [2, 1, 0, 3]], wanted, atol=1e-3)
    assert np.array_equal(io.read(paths[1]).data[0], block(seed=1))


def test_a_channel_under_a_bend_is_interpolated_and_told(scene, add_volume, tmp_path):
    """A bright spot appears where the transforms put it."""
    from MambaImagingLib.nodes import volumes

    grid = np.eye(4)
    grid[:3, 3] = [-20, -20, 10]
    spot = np.zeros((40, 40, 40), np.float32)
    k, j, i = np.indices(spot.shape)
    spot += 1000 * np.exp(-((k - 20) ** 2 + (j - 20) ** 2 + (i - 20) ** 2) / 18)
    first = add_volume(spot, grid, "straight")
    second = add_volume(spot, grid, "warped", bent(scene))
    paths, resample, notes = volumes.export_case([first, second], tmp_path)
    assert not resample
    assert len(notes) == 1
    assert "non-linear" in notes[0]
    assert np.unravel_index(io.read(paths[1]).data[0].argmax(), spot.shape) == (20, 20, 24)
    _, _, told = volumes.export_case([second], tmp_path)
    assert "as it was acquired" in told[0]


def test_a_region_under_transforms_is_the_box_in_the_volumes_frame(scene, add_volume):
    from MambaImagingLib.nodes import regions

    turn = np.array([[0, -1, 0, 40.0], [1, 0, 0, 5], [0, 0, 1, -7], [0, 0, 0, 1]])
    volume = add_volume(block(), GRIDS[0], "a", linear(scene, turn))
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
    with pytest.raises(ValueError, match="no size yet"):
        regions.box_of(roi, volume)
    roi.SetCenter(35, 18, 14)
    roi.SetSize(10, 4, 2)
    corners = np.array([[35 + x, 18 + y, 14 + z, 1] for x in (-5, 5) for y in (-2, 2) for z in (-1, 1)])
    back = (corners @ np.linalg.inv(turn).T)[:, :3]
    assert np.allclose(regions.box_of(roi, volume), [*back.min(0), *back.max(0)], atol=1e-3)


def seg_nrrd(tmp_path, grid, labels):
    """What the command writes, for two coded classes."""
    from napari_mamba.bundles import LabelClass
    from napari_mamba.volume import Volume

    classes = [
        LabelClass(0, "background"),
        LabelClass(2, "left hippocampus", "#e41a1c", "SCT:5366008", "Hippocampus", "left"),
        LabelClass(7, "brain-stem", "#377eb8", "SCT:119238007", "Brain stem"),
    ]
    return io.write(Volume(labels[None], grid[:, [2, 1, 0, 3]]), tmp_path / "labels.seg.nrrd", classes=classes)


@pytest.mark.parametrize("kind", ["none", "linear", "bent"])
@pytest.mark.parametrize("grid", GRIDS, ids=["left", "right"])
def test_segments_lie_where_the_labels_are_under_the_inputs_transform(scene, add_volume, tmp_path, grid, kind):
    from MambaImagingLib.nodes import geometry, segmentations

    turn = np.array([[0, -1, 0, 40.0], [1, 0, 0, 5], [0, 0, 1, -7], [0, 0, 0, 1]])
    above = {"none": lambda: None, "linear": lambda: linear(scene, turn), "bent": lambda: bent(scene)}[kind]()
    volume, labels = add_volume(block(), grid, "T1", above), labels_like()
    node = segmentations.load(seg_nrrd(tmp_path, grid, labels), "result", volume)
    assert node.GetParentTransformNode() is above, "nothing is hardened"
    general = geometry.between(volume, None)
    for number, value in enumerate((2, 7)):
        wanted = np.c_[np.argwhere(labels == value)[:, ::-1], np.ones((labels == value).sum())] @ grid.T
        wanted = np.array([general.TransformPoint(point) for point in wanted[:, :3]])
        found = points_of(node, node.GetSegmentation().GetNthSegmentID(number))
        assert len(found) == len(wanted)
        assert nearest(found, wanted) < 1e-3


def test_names_colours_and_codes_survive_saving_and_loading(scene, add_volume, tmp_path):
    import slicer
    from MambaImagingLib.nodes import scene as scenes
    from MambaImagingLib.nodes import segmentations

    volume = add_volume(block(), GRIDS[0])
    node = segmentations.load(seg_nrrd(tmp_path, GRIDS[0], labels_like()), "result", volume)
    result = {"provenance": {"bundle": {"name": "b", "version": "1", "sha256": "f" * 64}, "napari_mamba": "0.1.0"}}
    scenes.keep_provenance(node, result, {"case": "T1"})
    saved = tmp_path / "saved.seg.nrrd"
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(saved))
    assert storage.WriteData(node)
    back = segmentations.load(saved, "again", volume)
    for one in (node, back):
        found = one.GetSegmentation()
        assert [found.GetNthSegment(i).GetName() for i in range(2)] == ["left hippocampus", "brain-stem"]
        assert np.allclose(found.GetNthSegment(0).GetColor(), [0xE4 / 255, 0x1A / 255, 0x1C / 255], atol=1e-2)
        entry = slicer.vtkSlicerTerminologyEntry()
        text = found.GetNthSegment(0).GetTerminology()
        assert slicer.vtkSlicerTerminologiesModuleLogic.DeserializeTerminologyEntry(text, entry)
        assert entry.GetTypeObject().GetCodeMeaning() == "Hippocampus"
        assert entry.GetTypeModifierObject().GetCodeMeaning() == "Left"
        assert entry.GetCategoryObject().GetCodeMeaning() == "Anatomical Structure"
        assert found.GetNthSegment(1).GetTerminology().count("Tissue") == 0
    assert scenes.provenance_of(node)["bundle"]["name"] == "b"
    assert "Not for clinical use" in node.GetDescription()


def test_a_taken_name_and_a_place_beside_the_input(scene, add_volume, tmp_path):
    import slicer
    from MambaImagingLib.nodes import segmentations

    volume = add_volume(block(), GRIDS[1])
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    item = hierarchy.GetItemByDataNode(volume) or hierarchy.CreateItem(study, volume)
    hierarchy.SetItemParent(item, study)
    path = seg_nrrd(tmp_path, GRIDS[1], labels_like())
    one, two = (segmentations.load(path, "result", volume) for _ in range(2))
    assert one.GetName() == "result"
    assert two.GetName() not in ("result", "")
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(two)) == study


def test_segments_are_added_to_a_chosen_segmentation_and_the_old_stay(scene, add_volume, tmp_path):
    from MambaImagingLib.nodes import segmentations

    volume = add_volume(block(), GRIDS[0])
    path = seg_nrrd(tmp_path, GRIDS[0], labels_like())
    target, source = segmentations.load(path, "mine", volume), segmentations.load(path, "new", volume)
    before = points_of(target, "Segment_2")
    added = segmentations.add_to(target, source)
    names = [target.GetSegmentation().GetNthSegment(i).GetName() for i in range(4)]
    assert names == ["left hippocampus", "brain-stem", "left hippocampus_1", "brain-stem_1"]
    assert np.allclose(points_of(target, "Segment_2"), before)
    assert nearest(points_of(target, added[0]), before) < 1e-3
    source.SetAndObserveTransformNodeID(linear(scene, np.eye(4)).GetID())
    with pytest.raises(ValueError, match="same transform"):
        segmentations.add_to(target, source)


def test_empty_labels_give_empty_segments(scene, add_volume, tmp_path):
    from MambaImagingLib.nodes import segmentations

    volume = add_volume(block(), GRIDS[0])
    node = segmentations.load(seg_nrrd(tmp_path, GRIDS[0], np.zeros((14, 18, 20), np.uint8)), "none", volume)
    assert node.GetSegmentation().GetNumberOfSegments() == 2
    assert list(segmentations.surfaces(node)) == ["Segment_2", "Segment_7"]


def test_surfaces_one_at_a_time(scene, add_volume, tmp_path):
    import vtk
    from MambaImagingLib.nodes import segmentations

    volume = add_volume(block(), GRIDS[1])
    node = segmentations.load(seg_nrrd(tmp_path, GRIDS[1], labels_like()), "result", volume)
    assert list(segmentations.surfaces(node)) == ["Segment_2", "Segment_7"]
    for identity in ("Segment_2", "Segment_7"):
        surface = vtk.vtkPolyData()
        node.GetClosedSurfaceRepresentation(identity, surface)
        assert surface.GetNumberOfPoints() > 100
        wanted = points_of(node, identity).mean(axis=0)
        assert np.linalg.norm(np.array(surface.GetCenter()) - wanted) < 1.5
    assert node.GetDisplayNode().GetPreferredDisplayRepresentationName3D() == "Closed surface"


def test_an_image_comes_back_by_affine_with_the_inputs_window(scene, add_volume, tmp_path):
    from MambaImagingLib.nodes import geometry, images

    from napari_mamba.volume import Volume

    for grid in GRIDS:
        volume = add_volume(block(), grid)
        volume.GetDisplayNode().AutoWindowLevelOff()
        volume.GetDisplayNode().SetWindowLevel(77, 111)
        answer = block(seed=3)
        path = io.write(Volume(answer[None], grid[:, [2, 1, 0, 3]]), tmp_path / "image.nrrd")
        node = images.load(path, "restored", volume, like_input=True)
        assert (node.GetDisplayNode().GetWindow(), node.GetDisplayNode().GetLevel()) == (77, 111)
        import slicer.util

        array, matrix = slicer.util.arrayFromVolume(node), geometry.ijk_to_ras(node)
        for kji in [(0, 0, 0), (13, 17, 19), (5, 2, 9)]:
            place = np.linalg.inv(matrix) @ grid @ [*kji[::-1], 1]
            i, j, k = np.rint(place[:3]).astype(int)
            assert np.abs(place[:3] - [i, j, k]).max() < 1e-3
            assert array[k, j, i] == answer[kji]


def test_probabilities_become_one_volume_a_class_with_its_name(scene, add_volume, tmp_path):
    import slicer.util
    from MambaImagingLib.nodes import images

    from napari_mamba.volume import Volume

    volume = add_volume(block(), GRIDS[0])
    values = np.random.default_rng(0).random((3, 14, 18, 20)).astype(np.float32)
    names = ("background", "left hippocampus", "CSF, groß")
    path = io.write(Volume(values, GRIDS[0][:, [2, 1, 0, 3]], names), tmp_path / "p.nrrd")
    nodes = images.load_probabilities(path, "p of", volume)
    assert [node.GetName() for node in nodes] == ["p of left hippocampus", "p of CSF, groß"]
    found = slicer.util.arrayFromVolume(nodes[0])
    assert np.array_equal(found, values[1]) or np.array_equal(found, values[1][::-1])
    assert scene.GetNumberOfNodesByClass("vtkMRMLSequenceNode") == 0


def test_tables_have_units_and_a_plot(scene):
    from MambaImagingLib.nodes import tables

    rows = [
        {"name": "left", "voxels": 10, "ml": 0.5, "mean_intensity": 3.5, "code": "SCT:1", "laterality": "left"},
        {"name": "right", "voxels": 0, "ml": 0.0, "mean_intensity": None},
    ]
    table = tables.class_table(rows, "volumes")
    assert (table.GetNumberOfRows(), table.GetNumberOfColumns()) == (2, 6)
    assert table.GetColumnUnitLabel("volume") == "ml"
    assert table.GetCellText(1, 1) == "0"
    chart = tables.bar_plot(table, "volume", "ml")
    assert chart.GetNumberOfPlotSeriesNodes() == 1
    assert chart.GetYAxisTitle() == "ml"
    scores = tables.score_table({"clean": 0.25, "motion": 0.75}, "scores")
    assert scores.GetCellText(1, 0) == "motion"


def test_parameters_are_saved_with_the_scene_whatever_they_name(scene, add_volume, tmp_path):
    import slicer
    from MambaImagingLib.nodes import scene as scenes
    from MambaImagingLib.panel.parameters import SEGMENTATION, parameters_of

    parameters = parameters_of(scene)
    assert parameters_of(scene).node is parameters.node
    volume = add_volume(block(), GRIDS[0])
    result = {"provenance": {"bundle": {"name": "b", "version": "1", "sha256": "f" * 64}}, "warnings": ["a doubt"]}
    scenes.keep_provenance(volume, result, {"case": "Zürich 脳"})
    parameters["bundle"] = "no-longer-there"
    parameters["probabilities"] = True
    parameters.set_input(0, volume)
    parameters.set_input(1, None)
    parameters.set_batch([volume])
    parameters.node.SetParameter("place", '"moon"')
    parameters.node.SetParameter("table", "{not json")
    path = tmp_path / "scene.mrml"
    scene.SetURL(str(path))
    assert scene.Commit()
    other = slicer.vtkMRMLScene()
    keep = [
        slicer.vtkSlicerVolumesLogic(),
        slicer.vtkSlicerSequencesLogic(),
        slicer.vtkSlicerSegmentationsModuleLogic(),
    ]
    for logic in keep:
        logic.SetMRMLScene(other)
    other.SetURL(str(path))
    other.Connect()
    back = parameters_of(other)
    assert back["bundle"] == "no-longer-there"
    assert back["probabilities"] is True
    assert back["place"] == "slicer", "a choice that is none counts as the default"
    assert back["table"] is True
    assert [node and node.GetName() for node in back.inputs()] == ["T1", None]
    assert [node.GetName() for node in back.batch()] == ["T1"]
    kept = scenes.provenance_of(back.batch()[0])
    assert (kept["bundle"]["sha256"], kept["case"]) == ("f" * 64, "Zürich 脳")
    assert back.batch()[0].GetAttribute("MambaImaging.Warnings") == '["a doubt"]'
    assert back.reference(SEGMENTATION) is None
    with pytest.raises(TypeError):
        back["bundle"] = 3
