"""From nodes to nodes through the real command: geometry, transforms, channels, region, sequence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer_core", reason="needs Slicer's MRML: pip install slicer-core")
from made_scene import GRIDS, bent, block, labels_like, linear, nearest, points_of


def labelled_points(node):
    found = node.GetSegmentation()
    identities = [found.GetNthSegmentID(number) for number in range(found.GetNumberOfSegments())]
    return [points_of(node, identity) for identity in identities]


def test_several_cases_of_every_kind_in_one_process(logic, scene, add_volume):
    """Left- and right-handed, under nothing, a turn and a bend: the segments move as the volume does."""
    turn = np.array([[0, -1, 0, 40.0], [1, 0, 0, 5], [0, 0, 1, -7], [0, 0, 0, 1]])
    above = [None, linear(scene, turn), bent(scene)]
    nodes = [add_volume(block(), grid, f"v{g}{a}", t) for g, grid in enumerate(GRIDS) for a, t in enumerate(above)]
    report = logic.run("tiny", nodes, mode="list", device="cpu")
    assert not report.failed, report.sentence()
    assert len(report.placed) == 6
    assert any("non-linear" in note for note in report.notes)
    from MambaImagingLib.nodes import geometry

    for first in (0, 3):
        straight = [placed.main for placed in report.placed[first : first + 3]]
        plain = labelled_points(straight[0])
        assert sum(map(len, plain)) > 500, "the network labelled something"
        for node, volume in zip(straight[1:], nodes[first + 1 : first + 3], strict=True):
            assert node.GetParentTransformNode() is volume.GetParentTransformNode()
            general = geometry.between(volume, None)
            for found, own in zip(labelled_points(node), plain, strict=True):
                wanted = np.array([general.TransformPoint(point) for point in own])
                assert len(found) == len(wanted)
                assert not len(wanted) or nearest(found, wanted) < 1e-3
    for placed, volume in zip(report.placed, nodes, strict=True):
        assert placed.main.GetName() == f"{volume.GetName()} tiny"
        rows = placed.nodes[1]
        counted = [int(rows.GetTable().GetValueByName(n, "voxels").ToInt()) for n in range(rows.GetNumberOfRows())]
        assert counted == [len(points) for points in labelled_points(placed.main)]


def test_a_region_cuts_the_answer_where_the_roi_is(logic, scene, add_volume):
    turn = np.array([[0, -1, 0, 40.0], [1, 0, 0, 5], [0, 0, 1, -7], [0, 0, 0, 1]])
    volume = add_volume(block(), np.diag([1.0, 1, 2, 1]), "T1", linear(scene, turn))
    whole = logic.run("tiny", [volume], device="cpu").placed[0].main
    middle = np.array([40 - 9, 5 + 10, -7 + 14.0])
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
    roi.SetCenter(*middle)
    roi.SetSize(9, 7, 11)
    part = logic.run("tiny", [volume], device="cpu", region=roi).placed[0].main
    points = np.concatenate(labelled_points(part))
    assert 50 < len(points) < sum(map(len, labelled_points(whole)))
    half = np.array([9, 7, 11]) / 2 + 1e-3
    assert (np.abs(points - middle) <= half).all()


def test_a_sequence_becomes_a_sequence(logic, scene, add_volume):
    import slicer

    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "cine")
    sequence.SetIndexName("time")
    sequence.SetIndexUnit("s")
    for number in range(3):
        frame = add_volume(block(seed=number), GRIDS[0], f"f{number}")
        sequence.SetDataNodeAtValue(frame, str(number * 0.5))
        scene.RemoveNode(frame)
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    proxy = browser.GetProxyNode(sequence)
    report = logic.run("tiny", [proxy], mode="sequence", device="cpu", plot=True)
    assert not report.failed, report.sentence()
    made = report.sequence
    assert [made.GetNthIndexValue(n) for n in range(3)] == ["0", "0.5", "1"] or [
        float(made.GetNthIndexValue(n)) for n in range(3)
    ] == [0, 0.5, 1]
    assert browser.IsSynchronizedSequenceNode(made)
    shown = browser.GetProxyNode(made)
    assert shown.IsA("vtkMRMLSegmentationNode")
    assert "tiny" in made.GetAttribute("MambaImaging.Bundle")
    first = labelled_points(shown)
    table, chart = report.nodes[-2:]
    assert (table.GetNumberOfRows(), table.GetNumberOfColumns()) == (3, 3), "one table: a row a frame"
    assert [float(table.GetCellText(row, 0)) for row in range(3)] == [0, 0.5, 1]
    assert (table.GetColumnUnitLabel("time"), table.GetColumnUnitLabel("anterior")) == ("s", "ml")
    ml = [np.prod(np.linalg.norm(GRIDS[0][:3, :3], axis=0)) / 1000 * len(points) for points in first]
    assert np.allclose([float(table.GetCellText(0, column)) for column in (1, 2)], ml, rtol=1e-4)
    assert chart.GetNumberOfPlotSeriesNodes() == 2
    assert "tiny" in table.GetAttribute("MambaImaging.Bundle")
    browser.SetSelectedItemNumber(2)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    assert [len(points) for points in labelled_points(shown)] != [len(points) for points in first]
    with pytest.raises(ValueError, match="no frame of a sequence"):
        logic.run("tiny", [add_volume(block(), GRIDS[0], "alone")], mode="sequence")


def test_a_beating_heart_has_the_numbers_that_the_package_gives():
    """Against napari_mamba.heart, which counts voxels of labels itself."""
    from MambaImagingLib.compute import beats

    from napari_mamba import bundles
    from napari_mamba.heart.beat import measure_beat

    heart = next(one for one in bundles.available() if one.name == "heart-mr")
    codes = {label.index: label.code for label in heart.classes}
    labels = np.zeros((5, 4, 30, 30), int)
    for phase, half in enumerate((10, 8, 5, 7, 9)):
        labels[phase, :, 15 - half - 2 : 15 + half + 2, 15 - half - 2 : 15 + half + 2] = 2
        labels[phase, :, 15 - half : 15 + half, 15 - half : 15 + half] = 1
    spacing = (8.0, 1.5, 1.5)
    wanted = measure_beat(labels, spacing).summary()
    ml = np.prod(spacing) / 1000
    tables = [
        [{"name": str(index), "code": codes[index], "ml": (frame == index).sum() * ml} for index in (1, 2)]
        for frame in labels
    ]
    found = {f"{name} {unit}": value for name, value, unit in beats.beat(tables)}
    for name, key in (
        ("end-diastolic volume ml", "end_diastolic_volume_ml"), ("end-systolic volume ml", "end_systolic_volume_ml"),
        ("stroke volume ml", "stroke_volume_ml"), ("ejection fraction %", "ejection_fraction_percent"),
        ("wall mass g", "wall_mass_g"),
    ):  # fmt: skip
        assert found[name] == pytest.approx(wanted[key])
    assert beats.beat([[{"name": "liver", "code": "SCT:1", "ml": 3.0}]] * 2) == []


def test_channels_on_other_grids_and_extra_outputs(logic, scene, add_volume, tiny_bundle_2, environment, python):
    from MambaImagingLib.compute import places

    logic.place = places.LocalPlace(python, {**environment, "NAPARI_MAMBA_BUNDLES": str(tiny_bundle_2.parent)})
    first = add_volume(block(), GRIDS[0], "T1")
    coarse = GRIDS[0] @ np.diag([2.0, 1.5, 0.5, 1])
    second = add_volume(block((28, 12, 10), seed=1), coarse, "FLAIR")
    report = logic.run("tiny-2", [first, second], device="cpu", probabilities=True, uncertainty=True, plot=True)
    assert not report.error, report.sentence()
    names = [node.GetName() for node in report.nodes]
    assert names[:2] == ["T1 tiny-2", "T1 tiny-2 uncertainty"]
    assert names[2:4] == ["T1 tiny-2 probability of anterior", "T1 tiny-2 probability of posterior"]
    options = report.nodes[1].GetAttribute("MambaImaging.Provenance")
    assert '"shape": [2, 14, 18, 20]' in options
    for node in report.nodes[1:4]:
        assert node.GetImageData().GetDimensions() == (20, 18, 14)
    with pytest.raises(ValueError, match="FLAIR"):
        logic.run("tiny-2", [first])


def test_an_input_that_is_gone_and_a_case_that_fails(logic, scene, add_volume):
    good, flat = add_volume(block(), GRIDS[1], "good"), add_volume(np.ones((5, 6, 7), np.int16), GRIDS[1], "flat")
    gone = add_volume(block(), GRIDS[1], "gone")
    reports = []
    logic.start("tiny", [good, flat, gone], on_end=reports.append, mode="list", device="cpu")
    scene.RemoveNode(gone)
    logic.wait()
    (report,) = reports
    assert len(report.placed) == 1
    assert "flat: the channel T1 is 1 everywhere" in report.sentence()
    assert "no longer in the scene" in report.sentence()


def test_segments_go_into_a_chosen_segmentation(logic, scene, add_volume):
    volume = add_volume(block(), GRIDS[0])
    mine = logic.run("tiny", [volume], device="cpu").placed[0].main
    before = mine.GetSegmentation().GetNumberOfSegments()
    report = logic.run("tiny", [volume], device="cpu", segmentation=mine, surfaces=True)
    assert report.placed[0].main is mine
    assert mine.GetSegmentation().GetNumberOfSegments() == 2 * before
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1


def test_a_restored_image_and_a_classification(logic, scene, add_volume):
    """Shipped bundles: window and level of the input, a residual, scores with a plot."""
    import slicer.util

    volume = add_volume(block((24, 40, 40)), GRIDS[1])
    volume.GetDisplayNode().AutoWindowLevelOff()
    volume.GetDisplayNode().SetWindowLevel(77, 111)
    report = logic.run("mr-denoise", [volume], device="cpu", residual=True, mirror=False)
    assert not report.error, report.sentence()
    image, residual = report.nodes[:2]
    assert (image.GetDisplayNode().GetWindow(), image.GetDisplayNode().GetLevel()) == (77, 111)
    values = [slicer.util.arrayFromVolume(node).astype(float) for node in (volume, image, residual)]
    assert np.abs(values[0] - values[1]).max() > 1, "something was changed"
    assert np.allclose(values[0] - values[1], values[2], atol=1e-2)
    report = logic.run("mr-quality", [volume], device="cpu", plot=True, mirror=False)
    assert not report.error, report.sentence()
    table, chart = report.nodes
    scores = {table.GetCellText(row, 0): float(table.GetCellText(row, 1)) for row in range(table.GetNumberOfRows())}
    assert {"motion", "noise", "blur"} <= set(scores)
    assert all(0 <= score <= 1 for score in scores.values())
    assert table.GetColumnTitle("probability") == "probability (0 to 1)"
    assert chart.IsA("vtkMRMLPlotChartNode")


def test_empty_classes_are_listed_as_empty(logic, scene, add_volume):
    """A region of two voxels holds not all classes."""
    volume = add_volume(block(), np.eye(4))
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "R")
    roi.SetCenter(9.5, 9, 7)
    roi.SetSize(1.2, 0.5, 0.5)
    report = logic.run("tiny", [volume], device="cpu", region=roi)
    table = report.nodes[1]
    voxels = {table.GetCellText(row, 0): int(table.GetCellText(row, 1)) for row in range(table.GetNumberOfRows())}
    empty = [name for name, count in voxels.items() if not count]
    assert empty
    assert f"No voxel was found of: {', '.join(empty)}." in report.sentence()


def shipped():
    """Names of the bundles of labels that ship, by what their files say."""
    found = Path(__file__).resolve().parents[2].glob("napari_mamba/bundles/shipped/*/bundle.json")
    names = [path.parent.name for path in sorted(found) if json.loads(path.read_text())["task"] == "segmentation"]
    assert "brain-structures-mr" in names
    return names


@pytest.mark.parametrize("name", shipped())
def test_codes_of_a_shipped_bundle_arrive_in_the_scene(scene, add_volume, tmp_path, name):
    """Labels as the command writes them: every segment has its type, none is "Tissue", sides are there."""
    import slicer
    from MambaImagingLib.nodes import segmentations

    from napari_mamba import bundles, io
    from napari_mamba.volume import Volume

    bundle = next(one for one in bundles.available() if one.name == name)
    labels = np.zeros((1, 4, 5, 40), np.uint8)
    for place, label in enumerate(bundle.classes[1:]):
        labels[0, :, :, place] = label.index
    path = io.write(Volume(labels), tmp_path / "labels.seg.nrrd", classes=bundle.classes)
    node = segmentations.load(path, "labels", add_volume(labels_like((4, 5, 40)), np.eye(4)))
    found = node.GetSegmentation()
    assert found.GetNumberOfSegments() == len(bundle.classes) - 1
    for number, label in enumerate(bundle.classes[1:]):
        entry = slicer.vtkSlicerTerminologyEntry()
        text = found.GetNthSegment(number).GetTerminology()
        slicer.vtkSlicerTerminologiesModuleLogic.DeserializeTerminologyEntry(text, entry)
        kind, side = entry.GetTypeObject(), entry.GetTypeModifierObject()
        assert f"{kind.GetCodingSchemeDesignator()}:{kind.GetCodeValue()}" == label.code != ""
        assert kind.GetCodeMeaning() == label.meaning not in ("", "Tissue")
        assert (side.GetCodeMeaning() or "") == label.laterality.capitalize()
        assert label.laterality or label.name.split()[0] not in ("left", "right")
