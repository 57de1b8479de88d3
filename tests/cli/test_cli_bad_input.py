"""Bad input: exit code 2, one line that says what and what to do, no traceback, and nothing written."""

from __future__ import annotations

import ctypes
import errno
import gzip
import os
import pickle
import shutil
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_mamba import io
from napari_mamba.cli import main


@pytest.fixture
def refused(command, tiny_bundle, folder):
    """Run a bundle on inputs that it has to refuse; returns the line."""

    def run(*inputs: object, bundle: object = tiny_bundle, output: object = "labels.nii.gz", options=()) -> str:
        before = sorted(folder.rglob("*"))
        done = command("run", bundle, *inputs, "-o", folder / str(output), *options)
        assert done.code == 2, done.err
        assert done.out == ""
        assert sorted(folder.rglob("*")) == before, "something was written"
        return done.error

    return run


def nifti(path: Path, data: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(data, np.eye(4)), path)
    return path


def test_a_dicom_segmentation_needs_a_dicom_series_which_is_told_before_the_run(refused, image, monkeypatch):
    from napari_mamba import engine

    monkeypatch.setattr(engine, "run_to_end", lambda *_, **__: pytest.fail("ran first"))
    assert "refers to a DICOM series; choose .nii.gz" in refused(image, output="labels.dcm")
    assert "DICOM is written for label maps alone" in refused(image, bundle="mr-denoise", output="clean.dcm")


def test_suffixes_of_what_encoders_write_are_not_offered_for_an_image(refused, image):
    line = refused(image, output="labels.doc")
    assert ".nii.gz" in line
    assert ".npz" not in line
    assert "no place for an image" in refused(image, output="labels.npz")


@pytest.mark.skipif(sys.platform == "win32", reason="links need a permission there")
def test_links_that_lead_in_a_circle(refused, tmp_path):
    one, other = tmp_path / "one.nii", tmp_path / "other.nii"
    one.symlink_to(other)
    other.symlink_to(one)
    assert "one.nii does not exist: check the name" in refused(one)


def test_an_image_is_no_place_for_what_a_bag_of_features_gives(refused, tmp_path):
    np.save(tmp_path / "bag.npy", np.zeros((3, 4), np.float32))
    assert "labels.nii.gz is an image's name, and the input is a bag" in refused(tmp_path / "bag.npy")


def test_a_terminal_that_lacks_a_letter(monkeypatch):
    written = BytesIO()
    monkeypatch.setattr(sys, "stderr", TextIOWrapper(written, encoding="ascii", write_through=True))
    assert main(["info", "schädel"]) == 2
    assert written.getvalue().decode().startswith(r"error: there is no bundle called 'sch\xe4del'")


def test_missing_file(refused, tmp_path):
    line = refused(tmp_path / "nothing.nii.gz")
    assert "nothing.nii.gz does not exist" in line
    assert "check the name" in line


def test_folder_without_images(refused, tmp_path):
    holder = tmp_path / "notes"
    holder.mkdir()
    assert "empty" in refused(holder)
    (holder / "notes.txt").write_text("no image")
    assert "neither DICOM slices nor an OME-Zarr store" in refused(holder)


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_truncated_nifti(refused, tmp_path, image, keep):
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(image.read_bytes()[:keep])
    assert "cut.nii.gz" in refused(cut)


def test_nifti_with_fewer_voxels_than_its_header_says(refused, tmp_path, image):
    whole = gzip.decompress(image.read_bytes())
    cut = tmp_path / "cut.nii"
    cut.write_bytes(whole[: len(whole) // 2])
    assert "cut.nii" in refused(cut)


def test_no_image_at_all(refused, tmp_path):
    for name in ("text.nii.gz", "text.nrrd", "text.mha", "text.dcm", "text.tif", "text.docx"):
        text = tmp_path / name
        text.write_text("this is a letter, not an image")
        assert name in refused(text)


def test_zero_size(refused, tmp_path):
    empty = nifti(tmp_path / "empty.nii", np.zeros((4, 5, 6), np.float32))
    header = bytearray(empty.read_bytes())
    header[42:44] = (0).to_bytes(2, "little")  # dim[1]
    empty.write_bytes(header)
    assert "empty.nii" in refused(empty)


@pytest.mark.parametrize("value", [0, 7])
def test_constant(refused, tmp_path, value):
    line = refused(nifti(tmp_path / "flat.nii.gz", np.full((8, 8, 8), value, np.int16)))
    assert "nothing to see" in line
    assert ("all zeros" if value == 0 else "7 everywhere") in line


def test_nan_is_refused_or_replaced_when_asked(refused, command, tiny_bundle, tmp_path, folder, rng):
    data = rng.normal(100, 10, (16, 16, 16)).astype(np.float32)
    data[3, 4, 5] = np.nan
    path = nifti(tmp_path / "nan.nii.gz", data)
    assert "1 value of the image is NaN or infinite" in refused(path)
    done = command("run", tiny_bundle, path, "-o", folder / "labels.nii.gz", "--replace-nonfinite", 0)
    assert done.code == 0
    assert "replaced by 0" in done.err


def test_wrong_number_of_channels(refused, tiny_bundle_2, image, tmp_path):
    line = refused(image, bundle=tiny_bundle_2)
    assert "takes 2 channels (T1, FLAIR)" in line
    twin = shutil.copy(image, tmp_path / "twin.nii.gz")
    assert "takes 1 channel (T1)" in refused(image, twin)


def test_channels_on_different_grids(refused, tiny_bundle_2, image, tmp_path, rng):
    other = nifti(tmp_path / "other.nii.gz", rng.normal(0, 1, (24, 20, 12)).astype(np.float32))
    assert "resample one onto the other" in refused(image, other, bundle=tiny_bundle_2)


def test_4d_and_colour_are_not_guessed(refused, command, tiny_bundle, tmp_path, folder, rng):
    series = nifti(tmp_path / "bold.nii.gz", rng.normal(100, 10, (16, 16, 16, 3)).astype(np.float32))
    assert "holds 3 volumes" in refused(series)
    assert command("run", tiny_bundle, series, "-o", folder / "labels.nii.gz", "--frame", 1).code == 0
    (folder / "labels.nii.gz").unlink()
    assert "--frame first" in refused(series, options=("--frame", "first"))
    import SimpleITK as sitk

    colours = rng.integers(0, 255, (1, 16, 16, 3)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(colours[0], isVector=True), str(tmp_path / "photo.png"))
    assert "colour" in refused(tmp_path / "photo.png")


def test_bundles_that_are_none(refused, image, tmp_path, tiny_bundle):
    assert "no bundle called 'no-such'" in refused(image, bundle="no-such")
    assert "no such bundle" in refused(image, bundle=tmp_path / "nowhere")
    junk = tmp_path / "junk.zip"
    junk.write_bytes(b"PK\x03\x04 not really")
    assert "junk.zip" in refused(image, bundle=junk)
    damaged = shutil.copytree(tiny_bundle, tmp_path / "damaged")
    weights = damaged / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert "damaged" in refused(image, bundle=damaged)


def test_import_refuses_what_is_no_checkpoint(command, tmp_path, folder):
    """Also a pickle that would run code: the marker file it makes must not appear."""

    class Bomb:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'exploded'}",))

    results = tmp_path / "nnUNetTrainerUMambaEnc__nnUNetPlans__3d_fullres"
    (results / "fold_0").mkdir(parents=True)
    for source in (tmp_path / "nowhere", results):
        done = command("import", source, "-o", folder / "bundle")
        assert done.code == 2
        assert str(source) in done.error
    for name in ("plans.json", "dataset.json"):
        (results / name).write_text("{}")
    for content in (pickle.dumps(Bomb()), b"not a checkpoint"):
        (results / "fold_0/checkpoint_final.pth").write_bytes(content)
        done = command("import", results, "-o", folder / "bundle")
        assert done.code == 2
        assert "checkpoint_final.pth" in done.error
    assert not (tmp_path / "exploded").exists()
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--device", "tpu"), "no device 'tpu'"),
        (("--precision", "int8"), "no precision 'int8'"),
        (("--tile", "big"), "--tile big"),
        (("--tile", "0"), "at least 1"),
        (("--tile", "7,16,16"), "tile"),
        (("--overlap", "1.5"), "0 to 0.9"),
        (("--axis", "w"), "along z, y, x or all"),
        (("--slice-profile", "lanczos"), "one of gaussian, box, sinc, unknown, not 'lanczos'"),
        (("--strength", "151"), "to 150%, not 151%"),
        (("--strength", "half"), "--strength half is no percentage"),
        (("--series", "2"), "series"),
        (("--colour", "blue"), "take a colour image as grey"),
        (("--tint", "blue"), "No such option"),
    ],
)
def test_options_that_cannot_be(refused, image, options, said):
    assert said in refused(image, options=options)


def test_outputs_that_cannot_be(refused, command, tiny_bundle, image, folder):
    assert "choose one of .nii" in refused(image, output="labels.doc")
    assert "does not exist, create it first" in refused(image, output="deeper/labels.nii.gz")
    assert "the name is too long" in refused(image, output="a" * 252 + ".nii")
    assert "a name cannot be used" in refused("a" * 256 + ".nii")
    assert "two outputs" in refused(image, options=("--uncertainty", folder / "labels.nii.gz"))
    assert "choose one of .png" in refused(image, options=("--overlay", folder / "overlay.jpg"))
    assert "choose one of .json" in refused(image, options=("--report", folder / "report.txt"))
    assert "gives no residual" in refused(image, options=("--residual", folder / "residual.nii"))
    before = image.read_bytes()
    own = command("run", tiny_bundle, image, "-o", image, "--overwrite")
    assert own.code == 2
    assert "is the input itself" in own.error
    assert image.read_bytes() == before
    nowhere = command("run", tiny_bundle, image)
    assert nowhere.code == 2
    assert "-o FILE" in nowhere.error


def test_full_disk(command, tiny_bundle, image, folder, monkeypatch):
    """The disk fills while the labels are written: the old file stays, no new one appears."""
    target = folder / "labels.nii.gz"
    target.write_bytes(b"from before")

    def full(*arguments, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("napari_mamba.io.common.atomic.os.replace", full)
        done = command("run", tiny_bundle, image, "-o", target, "--overwrite")
    assert done.code == 2
    assert "no space is left" in done.error
    assert [path.name for path in folder.iterdir()] == ["labels.nii.gz"]
    assert target.read_bytes() == b"from before"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
@pytest.mark.parametrize("name", ["labels.nii.gz", "labels.nrrd", "labels.mha", "labels.tif", "labels.zarr"])
def test_writing_that_stops_in_the_middle(command, tiny_bundle, image, folder, name):
    """A real failure of the system's write call, by a limit on the size of files."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = {"labels.nrrd": 1500}.get(name, 300)  # behind the header: in the voxels, where NrrdIO says nothing
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        done = command("run", tiny_bundle, image, "-o", folder / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert done.code == 2, done.err
    assert name in done.error
    assert "cannot be written" in done.error
    assert not list(folder.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="folders have other permissions on Windows")
@pytest.mark.skipif(
    sys.platform != "linux" and getattr(os, "geteuid", int)() == 0, reason="root may write everywhere but on Linux"
)
def test_no_write_permission(finish, tiny_bundle, image, folder):
    folder.chmod(0o555)
    done = finish(
        *("run", tiny_bundle, image, "-o", folder / "labels.nii.gz"),
        preexec_fn=_without_override if os.geteuid() == 0 else None,
    )
    folder.chmod(0o755)
    assert done.code == 2, done.err
    assert "cannot be written" in done.error
    assert "choose a folder where you may write" in done.error
    assert not list(folder.iterdir())


def _without_override() -> None:
    """Take from root what lets it write where permissions forbid it (CAP_DAC_OVERRIDE); holds from the next exec."""
    PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1
    if ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0):
        raise OSError("this root may not drop capabilities")


def test_a_plain_process_says_the_same(finish, tiny_bundle, tmp_path):
    done = finish("run", tiny_bundle, tmp_path / "nothing.nii.gz", "-o", tmp_path / "labels.nii.gz")
    assert (done.code, done.out) == (2, "")
    assert "does not exist" in done.error
    assert not list(tmp_path.iterdir())


def test_reading_is_left_to_io(image):
    """The inputs above are broken in the way each test says, not in another: the whole one is read."""
    assert io.read(image).shape == (12, 20, 24)
