"""DICOM dropped into the window: which files are read when, and that nothing is decoded twice.

| what happens | what is read |
| --- | --- |
| the files of a series are dropped | all headers and pixels once, at the first; of the others one tag |
| a folder of several series | all headers; of the series that is pointed at, the pixels of its middle slice |
| one of them is opened | all headers again, and the pixels of that series |
| a file of many frames | its header, and its pixels once, however many moments it holds |
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from napari.layers import Layer

from napari_mamba import io
from napari_mamba.io.formats.dicom import pixels
from napari_mamba.ui.files import readers
from napari_mamba.ui.files.readers import NOTHING, get_reader, read_layers
from napari_mamba.ui.files.series_choice import SLIDER, SeriesChoice

pydicom = pytest.importorskip("pydicom")
ROWS, COLUMNS = 12, 10


@pytest.fixture(autouse=True)
def decoded(monkeypatch) -> list[str]:
    """The names of the files whose pixels were decoded, in that order; nothing was dropped before."""
    monkeypatch.setattr(readers, "_DROPPED", readers._Dropped())
    names: list[str] = []
    stored = pixels.stored

    def counted(path):
        names.append(Path(path).name)
        return stored(path)

    monkeypatch.setattr(pixels, "stored", counted)
    return names


def header(sop, series, number):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    tags = Dataset()
    tags.file_meta = FileMetaDataset()
    tags.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    tags.SOPClassUID = tags.file_meta.MediaStorageSOPClassUID = sop
    tags.SOPInstanceUID = tags.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    tags.StudyInstanceUID, tags.SeriesInstanceUID = "1.2.3", f"1.2.3.{number}"
    tags.SeriesNumber, tags.SeriesDescription, tags.Modality = number, series, "MR"
    tags.Rows, tags.Columns, tags.SamplesPerPixel, tags.PhotometricInterpretation = ROWS, COLUMNS, 1, "MONOCHROME2"
    tags.BitsAllocated, tags.BitsStored, tags.HighBit, tags.PixelRepresentation = 16, 12, 11, 0
    return tags


def write_series(folder: Path, series: str, number: int, slices: int) -> list[Path]:
    """A series of one file a slice; the values of slice z are z, but for a corner."""
    folder.mkdir(exist_ok=True)
    paths = []
    for z in range(slices):
        tags = header("1.2.840.10008.5.1.4.1.1.4", series, number)
        tags.InstanceNumber = z + 1
        tags.PixelSpacing, tags.SliceThickness = [0.5, 0.5], 4
        tags.ImagePositionPatient, tags.ImageOrientationPatient = [0, 0, 4 * z], [1, 0, 0, 0, 1, 0]
        plane = np.random.default_rng(z).integers(100, 4000, (ROWS, COLUMNS)).astype(np.uint16)
        plane[0, 0] = z
        tags.PixelData = plane.tobytes()
        paths.append(folder / f"{number}_{z:03}.dcm")
        tags.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_frames(path: Path, slices: int, times: int) -> np.ndarray:
    """An enhanced MR file of `times` volumes; returns its values (times, slices, rows, columns)."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    def item(**values):
        made = Dataset()
        for name, value in values.items():
            setattr(made, name, value)
        return made

    tags = header("1.2.840.10008.5.1.4.1.1.4.1", "perfusion", 9)
    tags.NumberOfFrames = slices * times
    shared = item(
        PixelMeasuresSequence=Sequence([item(PixelSpacing=[0.5, 0.5], SliceThickness=4)]),
        PlaneOrientationSequence=Sequence([item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]),
    )
    tags.SharedFunctionalGroupsSequence = Sequence([shared])
    tags.PerFrameFunctionalGroupsSequence = Sequence(
        [
            item(
                PlanePositionSequence=Sequence([item(ImagePositionPatient=[0, 0, 4 * z])]),
                FrameContentSequence=Sequence([item(TemporalPositionIndex=t + 1)]),
            )
            for t in range(times)
            for z in range(slices)
        ]
    )
    values = np.random.default_rng(5).integers(0, 4000, (times, slices, ROWS, COLUMNS)).astype(np.uint16)
    tags.PixelData = values.tobytes()
    tags.save_as(path, enforce_file_format=True)
    return values


def test_dropped_slices_are_read_once_and_decoded_once(tmp_path, decoded):
    paths = write_series(tmp_path / "one", "T1", 1, 6)
    first, *rest = [read_layers(str(path)) for path in paths]
    assert rest == [NOTHING] * 5
    assert sorted(decoded) == [path.name for path in paths]
    layer = Layer.create(*first[0])
    assert sorted(int(layer.data[z].min()) for z in range(6)) == list(range(6))
    assert [round(float(side), 3) for side in layer.scale] == [4, 0.5, 0.5]


def test_a_folder_of_several_series_reads_pixels_of_what_is_looked_at_alone(tmp_path, decoded):
    folder = tmp_path / "patient"
    for number, (name, slices) in enumerate((("T1", 6), ("FLAIR", 5), ("DWI", 4)), start=1):
        write_series(folder, name, number, slices)
    assert get_reader(str(folder)) is read_layers
    choice = SeriesChoice(io.list_series(folder))
    assert [entry.description for entry in choice.entries] == ["T1", "FLAIR", "DWI"]
    assert decoded == [], "the list is made of headers"
    choice.entries[1].preview()
    assert decoded == ["2_002.dcm"]
    choice.choose([1, 2])
    decoded.clear()
    layers = choice.read()
    assert [np.asarray(data).shape[0] for data, _, _ in layers] == [5, 4]
    assert sorted(decoded) == sorted([f"2_{z:03}.dcm" for z in range(5)] + [f"3_{z:03}.dcm" for z in range(4)])


def test_files_of_many_frames_that_are_dropped_together_are_a_layer_each(tmp_path):
    """Each holds a volume of its own, though they share a series: none may be taken for a slice of the first."""
    values = [write_frames(tmp_path / f"{name}.dcm", slices=4, times=1) for name in "ab"]
    tags = pydicom.dcmread(tmp_path / "b.dcm")
    tags.PixelData = (values[1] + 1).tobytes()
    tags.save_as(tmp_path / "b.dcm", enforce_file_format=True)
    layers = [Layer.create(*read_layers(str(tmp_path / f"{name}.dcm"))[0]) for name in "ab"]
    assert [layer.data.shape for layer in layers] == [(4, ROWS, COLUMNS)] * 2
    np.testing.assert_array_equal(np.sort(layers[1].data, axis=None), np.sort(values[0] + 1, axis=None))
    assert [round(float(side), 3) for side in layers[0].scale] == [4, 0.5, 0.5]


def test_a_file_of_many_frames_is_decoded_once_for_all_its_volumes(tmp_path, decoded):
    values = write_frames(tmp_path / "perfusion.dcm", slices=4, times=3)
    (entry,) = (choice := SeriesChoice(io.list_series(tmp_path / "perfusion.dcm"))).entries
    assert entry.frames == 3
    assert decoded == []
    choice.frames[0] = SLIDER
    ((data, _, _),) = choice.read()
    assert decoded == ["perfusion.dcm"]
    assert data.shape == (3, 4, ROWS, COLUMNS)
    for moment in range(3):
        assert sorted(np.asarray(data[moment]).ravel()) == sorted(values[moment].ravel())
    decoded.clear()
    one = io.read(tmp_path / "perfusion.dcm", frame=1)
    assert decoded == ["perfusion.dcm"]
    assert sorted(one.data.ravel()) == sorted(values[1].ravel())
