"""DICOM as people have it, and other places with several images: what is asked, and what comes of the answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from napari.layers import Image, Labels, Layer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog

from napari_mamba import io
from napari_mamba.errors import ChoiceError, InputError
from napari_mamba.ui.files import readers, series_dialog
from napari_mamba.ui.files.readers import NOTHING, get_reader, read_layers
from napari_mamba.ui.files.series_choice import COLOUR, SLIDER, SeriesChoice, describe
from napari_mamba.ui.files.series_dialog import SeriesDialog
from napari_mamba.volume import Volume

AFFINE = np.diag([3.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]]


@pytest.fixture(autouse=True)
def _nothing_dropped(monkeypatch):
    monkeypatch.setattr(readers, "_DROPPED", readers._Dropped())


@pytest.fixture
def patient(tmp_path) -> Path:
    """A folder with a scan, its segmentation, a film, a colour picture and a file that is none."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "patient"
    folder.mkdir()
    io.write(Volume(rng.normal(size=(1, 6, 20, 24)).astype(np.float32), AFFINE), folder / "a_scan.nii.gz")
    mask = np.zeros((1, 6, 20, 24), np.uint8)
    mask[0, 1:4, 3:9, 4:10] = 1
    io.write(Volume(mask, AFFINE), folder / "b_mask.nii.gz")
    import nibabel

    film = rng.normal(size=(24, 20, 6, 3)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(film, AFFINE[:, [2, 1, 0, 3]]), folder / "c_film.nii.gz")
    from PIL import Image as Picture

    Picture.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(folder / "d_photo.png")
    (folder / "e_broken.nii.gz").write_bytes(b"no")
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def choice(patient) -> SeriesChoice:
    return SeriesChoice(io.list_series(patient))


def test_the_images_of_a_folder_are_listed_and_the_broken_one_says_why(choice):
    titles = [entry.title for entry in choice.entries]
    assert titles == ["a_scan.nii.gz", "b_mask.nii.gz", "c_film.nii.gz", "d_photo.png", "e_broken.nii.gz"]
    assert describe(choice.entries[0]) == "24 x 20 x 6 voxels of 1 x 1 x 3 mm"
    assert "3 volumes" in describe(choice.entries[2])
    assert describe(choice.entries[4]) == choice.entries[4].problem != ""
    assert choice.chosen == [0]
    choice.choose([1, 4])
    assert choice.chosen == [1]


def test_each_is_read_as_what_it_is(choice, patient):
    choice.choose([0, 1, 2, 3])
    scan, mask, film, photo = (Layer.create(*layer) for layer in choice.read())
    assert (type(scan), type(mask)) == (Image, Labels)
    assert film.data.shape[0] == 3
    assert film.ndim == 4
    assert photo.rgb
    import nibabel

    values = np.asarray(nibabel.load(patient / "c_film.nii.gz").dataobj)
    at = film.data_to_world((2, 1, 2, 3))
    index = np.linalg.inv(AFFINE[:, [2, 1, 0, 3]]) @ [-at[3], -at[2], -at[1], 1]
    i, j, k = np.round(index[:3]).astype(int)
    assert film.data[2, 1, 2, 3] == values[i, j, k, 2]


def test_one_volume_of_a_film_and_the_greys_of_a_picture(choice):
    choice.choose([2, 3])
    assert [value for _, value in choice.frame_choices(2)] == [SLIDER, 0, 1, 2]
    assert [value for _, value in choice.colour_choices(3)] == [COLOUR, "grey", "channels"]
    choice.frames[2] = 1
    choice.colours[3] = "grey"
    film, photo = (Layer.create(*layer) for layer in choice.read())
    assert film.ndim == 3
    assert not photo.rgb


def test_the_dialog_shows_what_is_there_and_hands_back_the_answers(qtbot, choice):
    dialog = SeriesDialog(choice)
    qtbot.addWidget(dialog)
    dialog.show()
    assert dialog.list.count() == 5
    assert dialog.open_button.text() == "Open"
    assert not dialog.picture.pixmap().isNull()
    assert not dialog.frame.isVisible()
    dialog.list.clearSelection()
    assert not dialog.open_button.isEnabled()
    dialog.list.item(2).setSelected(True)
    dialog.list.setCurrentRow(2)
    assert dialog.frame.isVisible()
    dialog.frame.setCurrentIndex(dialog.frame.findData(1))
    assert choice.frames == {2: 1}
    dialog.list.item(0).setSelected(True)
    assert dialog.open_button.text() == "Open 2 images"
    qtbot.mouseClick(dialog.open_button, Qt.MouseButton.LeftButton)
    assert dialog.result() == QDialog.DialogCode.Accepted


def test_a_patients_folder_asks_in_a_window(patient, monkeypatch):
    asked = []

    def answer(paths):
        asked.append(paths)
        return SeriesChoice(io.list_series(paths[0])).read()

    reader = get_reader(str(patient))
    assert reader is read_layers
    monkeypatch.setattr(series_dialog, "ask_series", answer)
    monkeypatch.setattr("qtpy.QtWidgets.QApplication.topLevelWidgets", staticmethod(lambda: [_Visible()]))
    assert len(read_layers(str(patient))) == 1
    assert asked == [[str(patient)]]
    monkeypatch.setattr(series_dialog, "ask_series", lambda paths: None)
    assert read_layers(str(patient)) == NOTHING, "cancelled"


class _Visible:
    def isVisible(self) -> bool:
        return True


def test_without_a_window_a_sentence_says_what_to_choose(patient, monkeypatch):
    monkeypatch.setattr("qtpy.QtWidgets.QApplication.topLevelWidgets", staticmethod(lambda: []))
    with pytest.raises(ChoiceError):
        read_layers(str(patient / "c_film.nii.gz"))


def test_a_folder_of_no_images_is_told_to_be_one(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"holds neither DICOM slices nor|holds no image"):
        get_reader(str(tmp_path))(str(tmp_path))


def test_the_dropped_files_of_one_series_are_one_layer(shared_dir):
    files = sorted(str(path) for path in (shared_dir / "data" / "dicom_mr").rglob("*") if path.is_file())
    files = [path for path in files if io.can_read(path)][:5]
    first, *rest = [read_layers(path) for path in files]
    assert np.asarray(first[0][0]).ndim == 3
    assert rest == [NOTHING] * 4
    again = read_layers(files[0])
    assert len(again[0]) == 3, "the same file once more is asked for once more"


def test_files_of_another_series_are_another_layer(tmp_path, monkeypatch):
    series = {"a": "1", "b": "2", "c": "2"}
    monkeypatch.setattr(readers, "_series_of", lambda path: series.get(path, ""))
    dropped = readers._Dropped()
    assert [dropped.again(path) for path in ("a", "b", "c", "b", "scan.nii", "c")] == [
        False, False, True, False, False, False,
    ]  # fmt: skip
    monkeypatch.setattr(readers, "monotonic", lambda: 1e9)
    assert not dropped.again("b"), "later, it is meant"
