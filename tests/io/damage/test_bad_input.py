"""What users get wrong and what disks do: one sentence, no noise, nothing half-written."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from napari_mamba import io
from napari_mamba.errors import InputError, NapariMambaError, OutputError
from napari_mamba.volume import Volume

SUFFIXES = [".nii", ".nii.gz", ".nrrd", ".seg.nrrd", ".mha", ".mhd", ".tif", ".ome.tif", ".zarr"]


@pytest.fixture
def small() -> Volume:
    return Volume(np.zeros((1, 3, 4, 5), np.uint8))


def sentence(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


class TestReading:
    @pytest.mark.parametrize("name", ["no.nii.gz", "no.nrrd", "no.dcm", "no.tif", "no.zarr", "no", "no/such/folder"])
    def test_missing(self, tmp_path, name):
        with pytest.raises(InputError, match="does not exist") as caught:
            io.read(tmp_path / name)
        assert name in sentence(caught)

    def test_an_empty_folder(self, tmp_path):
        with pytest.raises(InputError, match="is empty"):
            io.read(tmp_path)

    def test_a_folder_that_is_no_series(self, tmp_path):
        (tmp_path / "notes.txt").write_text("hello")
        with pytest.raises(InputError, match="neither DICOM slices nor an OME-Zarr store"):
            io.read(tmp_path)
        assert not io.can_read(tmp_path)

    def test_an_unknown_suffix(self, tmp_path):
        (tmp_path / "a.docx").write_bytes(b"x" * 200)
        with pytest.raises(InputError, match=r"no format known here: convert it to one of \.nii"):
            io.read(tmp_path / "a.docx")

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".tif", ".dcm", ".png"])
    def test_nothing_in_it(self, tmp_path, capfd, suffix):
        path = tmp_path / f"a{suffix}"
        path.touch()
        with pytest.raises(InputError) as caught:
            io.read(path)
        assert str(path) in sentence(caught)
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".tif", ".dcm"])
    def test_a_folder_named_like_a_file(self, tmp_path, suffix):
        (tmp_path / f"a{suffix}").mkdir()
        with pytest.raises(InputError, match="is empty"):
            io.read(tmp_path / f"a{suffix}")

    def test_no_permission(self, tmp_path, monkeypatch, small):
        path = io.write(small, tmp_path / "a.nii")

        def refuse(*_args, **_options):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr("builtins.open", refuse)  # chmod does not stop root, who runs tests in containers
        with pytest.raises(InputError, match="may not be read by you"):
            io.read(path)

    def test_an_address(self):
        with pytest.raises(InputError, match="download it first"):
            io.read("https://example.org/a.nii.gz")

    def test_options_that_choose_nothing_are_not_swallowed(self, tmp_path, small):
        path = io.write(small, tmp_path / "a.nii")
        with pytest.raises(InputError, match="series=3"):
            io.read(path, series=3)
        with pytest.raises(InputError, match="level=1"):
            io.read(path, level=1)

    def test_no_path_at_all(self):
        with pytest.raises(InputError, match="no file was given"):
            io.read([])

    @pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".tif", ".ome.tif"])
    def test_random_damage_is_an_input_error_or_an_image(self, tmp_path, capfd, rng, small, suffix):
        whole = io.write(small.with_data(rng.integers(0, 9, (1, 3, 4, 5))), tmp_path / f"a{suffix}").read_bytes()
        messages = []
        for _ in range(60):
            content = bytearray(whole)
            for place in rng.integers(0, min(len(content), 400), 3):
                content[place] = rng.integers(0, 256)
            (tmp_path / f"b{suffix}").write_bytes(content)
            try:
                np.asarray(io.read(tmp_path / f"b{suffix}").data)
            except InputError as error:
                messages.append(str(error))
        assert messages
        assert not any("\n" in message for message in messages)
        assert capfd.readouterr() == ("", "")


class TestChannels:
    def test_are_stacked_in_order_and_named(self, tmp_path, oblique_affine):
        paths = []
        for value, name in enumerate(["t2", "flair", "t1"]):
            volume = Volume(np.full((1, 3, 4, 5), value, np.int16), oblique_affine)
            paths.append(io.write(volume, tmp_path / f"{name}.nii.gz"))
        volume = io.read(paths)
        assert volume.data[:, 0, 0, 0].tolist() == [0, 1, 2]
        assert volume.channel_names == ("t2", "flair", "t1")
        np.testing.assert_allclose(volume.affine, oblique_affine, atol=1e-5)

    def test_of_different_formats_but_one_place(self, tmp_path, oblique_affine):
        volume = Volume(np.zeros((1, 30, 40, 50), np.int16), oblique_affine)
        paths = [io.write(volume, tmp_path / f"a{suffix}") for suffix in SUFFIXES]
        assert io.read(paths).channels == len(SUFFIXES)

    def test_of_different_sizes(self, tmp_path, small):
        first = io.write(small, tmp_path / "a.nii")
        second = io.write(Volume(np.zeros((1, 3, 4, 6), np.uint8)), tmp_path / "b.nii")
        with pytest.raises(InputError, match=r"b\.nii has 3×4×6 voxels .*a\.nii 3×4×5"):
            io.read([first, second])

    @pytest.mark.parametrize(("shift", "same"), [(0.0005, True), (0.002, False)])
    def test_apart_by_more_than_a_thousandth_of_a_millimetre(self, tmp_path, small, shift, same):
        affine = np.eye(4)
        affine[2, 3] = shift
        paths = [io.write(small, tmp_path / "a.nrrd"), io.write(Volume(small.data, affine), tmp_path / "b.nrrd")]
        if same:
            assert io.read(paths).channels == 2
            return
        with pytest.raises(InputError, match=r"b\.nrrd lies up to 0\.002 mm away from .*a\.nrrd"):
            io.read(paths)

    def test_turned_by_so_little_that_only_the_far_corner_tells(self, tmp_path):
        data, affine = np.zeros((1, 2, 2, 400), np.uint8), np.eye(4)
        affine[0, 2] = 1e-5
        paths = [io.write(Volume(data), tmp_path / "a.nrrd"), io.write(Volume(data, affine), tmp_path / "b.nrrd")]
        with pytest.raises(InputError, match=r"0\.00399 mm away"):
            io.read(paths)


class TestWriting:
    def test_an_unknown_suffix(self, tmp_path, small):
        with pytest.raises(OutputError, match=r"choose one of \.nii"):
            io.write(small, tmp_path / "a.docx")

    def test_dicom_is_written_for_labels_of_a_dicom_series_alone(self, tmp_path, small, classes):
        for given in ((), classes):
            with pytest.raises(OutputError, match=r"a\.dcm cannot be written: .* choose \.nii\.gz") as caught:
                io.write(small, tmp_path / "a.dcm", classes=given)
            assert str(tmp_path / "a.dcm") in sentence(caught)
            assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("suffix", [".png", ".dicom", ".nhdr"])
    def test_a_suffix_that_is_only_read(self, tmp_path, small, suffix):
        with pytest.raises(OutputError, match="no suffix of a format to write"):
            io.write(small, tmp_path / f"a{suffix}")

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_a_folder_that_is_missing(self, tmp_path, small, suffix):
        with pytest.raises(OutputError, match="no does not exist, create it first"):
            io.write(small, tmp_path / "no" / f"a{suffix}")
        assert not (tmp_path / "no").exists()

    def test_a_folder_where_the_file_should_be(self, tmp_path, small):
        (tmp_path / "a.nii").mkdir()
        with pytest.raises(OutputError, match="a folder of that name"):
            io.write(small, tmp_path / "a.nii")

    @pytest.mark.parametrize(
        ("number", "says"),
        [(errno.ENOSPC, "no space is left"), (errno.EACCES, "may not write"), (errno.EROFS, "read-only")],
    )
    def test_what_the_disk_answers(self, tmp_path, monkeypatch, small, number, says):
        def fail(*_args, **_options):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("napari_mamba.io.formats.nifti.write", fail)
        with pytest.raises(OutputError, match=says) as caught:
            io.write(small, tmp_path / "a.nii")
        sentence(caught)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder where not even root may write: /proc")
    def test_a_folder_where_nobody_may_write(self, small):
        with pytest.raises(OutputError, match="cannot be written"):
            io.write(small, "/proc/self/a.nii")

    @pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes, which Windows does not have")
    def test_a_disk_that_fills_up_leaves_the_old_file_and_nothing_else(self, tmp_path):
        """With the system's own limit on file sizes, so that C++ writers meet it too."""
        script = """
            import resource, signal, sys
            import numpy as np
            from napari_mamba import io
            from napari_mamba.errors import OutputError
            from napari_mamba.volume import Volume

            noise = Volume(np.random.default_rng(0).integers(0, 2**15, (1, 30, 40, 50)).astype(np.int16))
            for path in sys.argv[1:]:
                io.write(Volume(np.zeros((1, 2, 2, 2), np.uint8)), path)
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
            for path in sys.argv[1:]:
                try:
                    io.write(noise, path)
                except OutputError as error:
                    print(error)
        """
        paths = [tmp_path / suffix[1:].replace(".", "-") / f"a{suffix}" for suffix in SUFFIXES]
        for path in paths:
            path.parent.mkdir()
        command = [sys.executable, "-c", textwrap.dedent(script), *map(str, paths)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        for path, line in zip(paths, done.stdout.splitlines(), strict=True):
            assert line.startswith(f"{path} cannot be written: ")
            assert np.asarray(io.read(path).data).shape == (1, 2, 2, 2)
            voxels = {"a.zraw"} if path.suffix == ".mhd" else set()
            assert {file.name for file in path.parent.iterdir()} == {path.name} | voxels

    def test_an_interruption_leaves_nothing(self, tmp_path, monkeypatch, small):
        def interrupted(volume, path, classes):
            path.write_bytes(b"half")
            raise KeyboardInterrupt

        monkeypatch.setattr("napari_mamba.io.formats.nifti.write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            io.write(small, tmp_path / "a.nii")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_a_file_is_replaced(self, tmp_path, small, suffix):
        io.write(small, tmp_path / f"a{suffix}")
        io.write(small.with_data(small.data + 3), tmp_path / f"a{suffix}")
        assert (np.asarray(io.read(tmp_path / f"a{suffix}").data) == 3).all()

    def test_every_format_written_can_be_read(self):
        assert set(io.WRITE_SUFFIXES) <= set(io.SUFFIXES)

    def test_it_can_say_what_it_reads(self, tmp_path, small):
        for suffix in SUFFIXES:
            assert io.can_read(io.write(small, tmp_path / f"a{suffix}"))
        assert not io.can_read(tmp_path / "a.docx")
        assert not io.can_read(tmp_path / "missing")


class TestLabels:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    @pytest.mark.parametrize(("largest", "dtype"), [(255, np.uint8), (256, np.uint16), (70000, np.uint32)])
    def test_take_the_smallest_type(self, tmp_path, classes, suffix, largest, dtype):
        volume = Volume(np.full((1, 2, 3, 4), largest, np.int64))
        back = io.read(io.write(volume, tmp_path / f"a{suffix}", classes=classes))
        assert back.data.dtype == dtype
        np.testing.assert_array_equal(np.asarray(back.data), volume.data)

    def test_have_room_for_a_class_that_is_not_there(self, tmp_path, classes):
        many = [*classes, type(classes[0])(1000, "rare", "#123456")]
        path = io.write(Volume(np.zeros((1, 2, 3, 4), np.int64)), tmp_path / "a.nii", classes=many)
        assert io.read(path).data.dtype == np.uint16

    @pytest.mark.parametrize(
        ("data", "says"),
        [
            (np.full((1, 2, 2, 2), 0.5), "no whole numbers"),
            (np.full((1, 2, 2, 2), np.nan), "no whole numbers"),
            (np.full((1, 2, 2, 2), -1), "negative"),
            (np.zeros((2, 2, 2, 2), np.uint8), "one channel"),
            (np.zeros((1, 2, 2, 2), complex), "complex128"),
        ],
    )
    def test_that_are_none(self, tmp_path, classes, data, says):
        with pytest.raises(NapariMambaError, match=says):
            io.write(Volume(data), tmp_path / "a.nii", classes=classes)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("dtype", "stored"), [(bool, "uint8"), ("float16", "float32"), ("int64", "uint8"), ("int16", "int16")]
    )
    def test_other_images_keep_what_readers_know(self, tmp_path, dtype, stored):
        path = io.write(Volume(np.ones((1, 2, 2, 2), dtype)), tmp_path / "a.nii")
        assert io.read(path).data.dtype == stored


def test_importing_costs_no_library_that_reads_files():
    heavy = ["torch", "SimpleITK", "zarr", "tifffile", "pydicom", "scipy"]
    script = f"import sys, napari_mamba.io; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"
