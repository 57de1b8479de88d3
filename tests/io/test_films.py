"""Films: read frame by frame from what programs write, and labels over time written and read back by others."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_mamba.errors import ChoiceError, InputError, OutputError
from napari_mamba.io.moving.film import Film, check_film, of_array
from napari_mamba.io.moving.opening import open_film
from napari_mamba.io.moving.writing import write_over_time
from napari_mamba.volume import Volume

AFFINE = np.array([[0.0, 0, -2, 5], [0, 1.5, 0, 6], [3, 0, 0, 7], [0, 0, 0, 1]])


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (6, 20, 24, 3), dtype=np.uint8)


def pixels(film: Film, t: int) -> np.ndarray:
    return film.frame(t).data[:, 0].transpose(1, 2, 0)


def test_colour_frames_of_tiff_pictures_and_video(tmp_path, rgb):
    tifffile.imwrite(tmp_path / "clip.tif", rgb, photometric="rgb")
    folder = tmp_path / "frames"
    folder.mkdir()
    for t, frame in enumerate(rgb):
        Image.fromarray(frame).save(folder / f"f{t + 8}.png")  # f10 comes after f9
    for place in (tmp_path / "clip.tif", folder):
        film = open_film([place], "channels")
        assert film.count == 6
        assert film.frame(3).channel_names == ("red", "green", "blue")
        np.testing.assert_array_equal(pixels(film, 3), rgb[3])
        assert open_film([place], "grey").frame(1).channels == 1
    with pytest.raises(ChoiceError, match="in colour"):
        open_film([tmp_path / "clip.tif"])


def test_times_of_tiff_and_nifti(tmp_path, rgb):
    grey = rgb[..., 0]
    meta = {"axes": "TYX", "finterval": 0.04}
    tifffile.imwrite(tmp_path / "t.tif", grey, imagej=True, metadata=meta)
    film = open_film([tmp_path / "t.tif"])
    assert film.times.tolist() == [0, 40, 80, 120, 160, 200]
    np.testing.assert_array_equal(film.frame(2).data[0, 0], grey[2])
    image = nibabel.Nifti1Image(grey.transpose(2, 1, 0)[:, :, None], np.eye(4))
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 2.5
    nibabel.save(image, tmp_path / "t.nii.gz")
    film = open_film([tmp_path / "t.nii.gz"])
    assert (film.times[1], film.time_unit) == (2500.0, "sec")
    np.testing.assert_array_equal(film.frame(5).data[0, 0], grey[5])
    tifffile.imwrite(tmp_path / "pages.tif", grey)
    assert "taken as frames" in open_film([tmp_path / "pages.tif"]).notes[0]


def test_dicom_of_many_frames_in_colour(tmp_path, rgb):
    pydicom = pytest.importorskip("pydicom")
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.3.1", "1.2.3"
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    tags = pydicom.dataset.FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    tags.SOPClassUID, tags.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    tags.SeriesInstanceUID, tags.StudyInstanceUID, tags.Modality, tags.FrameTime = "1.2", "1.1", "US", "40"
    tags.Rows, tags.Columns, tags.NumberOfFrames, tags.SamplesPerPixel, tags.PlanarConfiguration = 20, 24, 6, 3, 0
    tags.BitsAllocated = tags.BitsStored = 8
    tags.HighBit, tags.PixelRepresentation, tags.PhotometricInterpretation = 7, 0, "RGB"
    tags.PixelData = rgb.tobytes()
    tags.save_as(tmp_path / "us.dcm", enforce_file_format=True)
    film = open_film([tmp_path / "us.dcm"], "channels")
    np.testing.assert_array_equal(pixels(film, 4), rgb[4])
    assert film.times.tolist() == [0, 40, 80, 120, 160, 200]


def test_video(tmp_path, rgb):
    iio = pytest.importorskip("imageio.v3")
    pytest.importorskip("imageio_ffmpeg")
    flat = np.broadcast_to(np.arange(6, dtype=np.uint8)[:, None, None, None] * 40, (6, 64, 64, 3)).copy()
    iio.imwrite(tmp_path / "v.mp4", flat, fps=25, plugin="FFMPEG")
    film = open_film([tmp_path / "v.mp4"], "channels")
    assert film.count == 6
    assert film.times.tolist() == [0, 40, 80, 120, 160, 200]
    for t in (3, 5, 1):  # back, too
        assert abs(float(film.frame(t).data.mean()) - 40 * t) < 6


def test_frames_of_different_size_and_too_few_are_refused(tmp_path, rgb):
    Image.fromarray(rgb[0]).save(tmp_path / "a.png")
    Image.fromarray(rgb[0, :10]).save(tmp_path / "b.png")
    film = open_film([tmp_path / "a.png", tmp_path / "b.png"], "channels")
    film.frame(0)
    with pytest.raises(InputError, match="frame 2 has 1x10x24 voxels in 3 channels and the first one 1x20x24"):
        film.frame(1)
    still = Volume(np.zeros((1, 1, 4, 4)))
    with pytest.raises(InputError, match="two frames or more"):
        check_film(of_array(still.data[None], still))
    with pytest.raises(InputError, match="out of order"):
        check_film(Film(2, lambda t: still, np.array([1.0, 1.0])))


def test_labels_over_time_keep_the_time_axis(tmp_path):
    labels = np.random.default_rng(0).integers(0, 4, (5, 3, 8, 9), dtype=np.uint8)
    times = 40.0 * np.arange(5) + 12
    how = {"affine": AFFINE, "times": times, "time_unit": "msec"}
    written = nibabel.load(write_over_time(labels, tmp_path / "l.nii.gz", **how))
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels.transpose(3, 2, 1, 0))
    assert written.header.get_xyzt_units() == ("mm", "msec")
    assert (written.header["pixdim"][4], written.header["toffset"]) == (40, 12)
    with tifffile.TiffFile(write_over_time(labels, tmp_path / "l.tif", **how)) as file:
        assert file.series[0].axes == "TZYX"
        assert file.imagej_metadata["finterval"] == pytest.approx(0.04)
        np.testing.assert_array_equal(file.asarray(), labels)
    colours = np.zeros((2, 3, 1, 8, 9), np.float32)
    assert tifffile.imread(write_over_time(colours, tmp_path / "c.tif", affine=AFFINE)).shape == (2, 3, 8, 9)
    with pytest.raises(OutputError, match="no suffix of a format for results over time"):
        write_over_time(labels, tmp_path / "l.nrrd", **how)
