"""What the module's self-test does inside Slicer; parts of it run without Slicer as well."""

from __future__ import annotations

from typing import Any

SAMPLE_SHAPE = (40, 51, 35)
BUNDLE = "hippocampus-mr"


def make_volume(name: str = "self-test", left_handed: bool = True) -> Any:
    """A volume node with a bright block, oblique and left-handed."""
    import numpy as np
    import slicer

    array = np.random.default_rng(0).normal(100, 10, SAMPLE_SHAPE).astype(np.float32)
    array[10:30, 15:35, 8:26] += 80
    turn = np.deg2rad(20)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    matrix[:3, 2] *= -1 if left_handed else 1
    matrix[:3, 3] = [5, -20, 30]
    return slicer.util.addVolumeFromArray(array, ijkToRAS=matrix, name=name)


def check_nodes() -> None:
    """A volume node's file holds its voxels where the node has them; raises `AssertionError` otherwise."""
    import tempfile
    from pathlib import Path

    import numpy as np

    from .nodes import geometry, images, volumes

    with tempfile.TemporaryDirectory() as folder:
        node = make_volume()
        (path,), resample, notes = volumes.export_case([node], Path(folder))
        assert (resample, notes) == (False, []), "one volume is on one grid"
        back = images.load(path, "back", node)
        place = np.linalg.inv(geometry.ijk_to_ras(back)) @ geometry.ijk_to_ras(node) @ [3, 4, 5, 1]
        i, j, k = np.rint(place[:3]).astype(int)
        import slicer

        values = [slicer.util.arrayFromVolume(one) for one in (node, back)]
        assert values[0][5, 4, 3] == values[1][k, j, i], "a voxel lies elsewhere in the file"


def check_run(logic: Any) -> str:
    """Run `BUNDLE` on a made-up volume where the place of `logic` is usable; returns a sentence."""
    from .nodes.volumes import Unusable

    try:
        logic.bundle(BUNDLE)
    except Unusable as error:
        return f"No run: {error}."
    node = make_volume()
    report = logic.run(BUNDLE, [node], device="cpu")
    assert (report.error, report.failed) == ("", []), report.sentence()
    main = report.placed[0].main
    assert main.IsA("vtkMRMLSegmentationNode"), "labels become a segmentation"
    assert main.GetParentTransformNode() is node.GetParentTransformNode(), "under the input's transform"
    return report.sentence()
