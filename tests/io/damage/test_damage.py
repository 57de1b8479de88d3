"""Damage is refused with its own reason, before memory is taken; nothing of a file's garbage is quoted at length."""

from __future__ import annotations

import bz2
import gzip
import json
import subprocess
import sys
import textwrap
import zlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import zarr

from napari_mamba import io
from napari_mamba.errors import InputError
from napari_mamba.io.common import guard as _guard
from napari_mamba.volume import Volume

DATA = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


def refusal(path):
    with pytest.raises(InputError) as caught:
        np.asarray(io.read(path).data)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) <= _guard.LONGEST + len(str(path))
    assert str(path) in text
    return text


def meta(path, data=b"", **fields):
    header = {"ObjectType": "Image", "NDims": 3, "BinaryData": True, "BinaryDataByteOrderMSB": False,
              "ElementSpacing": "1 1 1", "DimSize": "6 5 4", "ElementType": "MET_SHORT"} | fields  # fmt: skip
    header["ElementDataFile"] = header.pop("ElementDataFile", "LOCAL")
    path.write_bytes("".join(f"{key} = {value}\n" for key, value in header.items()).encode() + data)
    return path


def nrrd(path, data=b"", *lines, encoding="raw", sizes="6 5 4", kind="short"):
    head = ["NRRD0004", f"type: {kind}", f"dimension: {len(sizes.split())}", f"sizes: {sizes}", f"encoding: {encoding}",
            "endian: little", *lines]  # fmt: skip
    path.write_bytes("\n".join(head).encode() + b"\n\n" + data)
    return path


class TestMetaImage:
    def compressed(self, path, damage=None, at=0.5, split=False):
        stream = bytearray(zlib.compress(DATA.tobytes()))
        if damage == "byte":
            stream[int(len(stream) * at)] ^= 0xFF
        elif damage == "cut":
            del stream[int(len(stream) * at) :]
        fields = {"CompressedData": True, "CompressedDataSize": len(stream)}
        if split:
            (path.parent / "a.zraw").write_bytes(stream)
            return meta(path, ElementDataFile="a.zraw", **fields)
        return meta(path, bytes(stream), **fields)

    @pytest.mark.parametrize("split", [False, True])
    @pytest.mark.parametrize("at", [0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
    @pytest.mark.parametrize("damage", ["byte", "cut"])
    def test_one_byte_of_the_zlib_stream(self, tmp_path, damage, at, split):
        path = tmp_path / ("a.mhd" if split else "a.mha")
        np.testing.assert_array_equal(io.read(self.compressed(path, split=split)).data[0], DATA)
        assert "damaged" in (text := refusal(self.compressed(path, damage, at, split))) or "truncated" in text

    def test_a_spacing_of_0(self, tmp_path):
        assert "voxel size of 0" in refusal(meta(tmp_path / "a.mha", DATA.tobytes(), ElementSpacing="1 1 0"))

    def test_the_raw_file_is_gone(self, tmp_path):
        assert "'gone.raw', which is not beside it" in refusal(meta(tmp_path / "a.mhd", ElementDataFile="gone.raw"))

    @pytest.mark.parametrize("name", ["../a.raw", "/etc/passwd", "/dev/zero"])
    def test_voxels_elsewhere(self, tmp_path, name):
        (tmp_path / "a.raw").write_bytes(DATA.tobytes())
        (tmp_path / "in").mkdir()
        assert "outside its folder" in refusal(meta(tmp_path / "in" / "a.mhd", ElementDataFile=name))

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"ElementNumberOfChannels": 10**6}, "truncated"),
            ({"DimSize": "6 5 4000000000"}, "truncated"),
            ({"DimSize": "6 5 4000000", "CompressedData": True}, "fill the memory|truncated|damaged"),
            ({"DimSize": "6 5 -4"}, "empty or damaged"),
            ({"DimSize": "6 5"}, "no volume"),
            ({"NDims": 2000000000}, "no volume"),
            ({"ElementType": "MET_OTHER"}, "type 'MET_OTHER'"),
            ({"TransformMatrix": "1 0"}, "9 are needed"),
            ({"TransformMatrix": " ".join(["0"] * 9)}, "affine"),
            ({"Offset": "nan 0 0"}, "Offset|offset"),
            ({"ElementDataFile": "%99999999d.raw 0 1 1"}, "pattern"),
            ({"ElementDataFile": "%03d.raw 0 999999999999 1"}, "pattern"),
            ({"BinaryData": False}, "something else than numbers|truncated"),
        ],
    )
    def test_headers(self, tmp_path, fields, says):
        import re

        assert re.search(says, refusal(meta(tmp_path / "a.mha", DATA.tobytes(), **fields)))

    @pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int32, np.float32, np.float64])
    @pytest.mark.parametrize("compressed", [False, True])
    def test_is_read_as_itk_reads_it(self, tmp_path, rng, kind, compressed):
        image = sitk.GetImageFromArray(rng.integers(0, 99, (4, 5, 6)).astype(kind))
        image.SetSpacing((0.5, 2, 3))
        image.SetOrigin((1, -2, 3.5))
        image.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, -1))
        for name in ("a.mha", "a.mhd", "a.nrrd"):
            sitk.WriteImage(image, str(tmp_path / name), compressed)
            volume = io.read(tmp_path / name)
            np.testing.assert_array_equal(volume.data[0], sitk.GetArrayFromImage(image))
            assert volume.data.dtype == kind
            for place in [(0, 0, 0), (5, 4, 3), (2, 0, 1)]:
                expected = np.array(image.TransformIndexToPhysicalPoint(place)) * [-1, -1, 1]
                np.testing.assert_allclose((volume.affine @ [*place[::-1], 1])[:3], expected, atol=1e-9)

    def test_a_list_and_a_pattern_of_files(self, tmp_path):
        for number, plane in enumerate(DATA):
            (tmp_path / f"s{number:03}.raw").write_bytes(plane.tobytes())
        names = "\n".join(f"s{number:03}.raw" for number in range(4))
        listed = meta(tmp_path / "a.mhd", ElementDataFile=f"LIST\n{names}")
        np.testing.assert_array_equal(io.read(listed).data[0], DATA)
        np.testing.assert_array_equal(
            io.read(meta(tmp_path / "b.mhd", ElementDataFile="s%03d.raw 0 3 1")).data[0], DATA
        )


class TestNrrd:
    @pytest.mark.parametrize(("encoding", "pack"), [("bzip2", bz2.compress), ("gzip", gzip.compress)])
    @pytest.mark.parametrize("at", [0.2, 0.5, 0.9])
    def test_compressed(self, tmp_path, encoding, pack, at):
        packed = bytearray(pack(DATA.tobytes()))
        np.testing.assert_array_equal(
            io.read(nrrd(tmp_path / "a.nrrd", bytes(packed), encoding=encoding)).data[0], DATA
        )
        packed[int(len(packed) * at)] ^= 0xFF
        refusal(nrrd(tmp_path / "b.nrrd", bytes(packed), encoding=encoding))
        refusal(nrrd(tmp_path / "c.nrrd", bytes(packed[: int(len(packed) * at)]), encoding=encoding))

    def test_text_and_a_detached_header(self, tmp_path):
        text = " ".join(map(str, DATA.ravel())).encode()
        np.testing.assert_array_equal(io.read(nrrd(tmp_path / "a.nrrd", text, encoding="text")).data[0], DATA)
        (tmp_path / "b.raw").write_bytes(b"four" + DATA.tobytes())
        for lines in (["data file: b.raw", "byte skip: 4"], ["data file: b.raw", "byte skip: -1"]):
            np.testing.assert_array_equal(io.read(nrrd(tmp_path / "b.nhdr", b"", *lines)).data[0], DATA)

    def test_a_fourth_axis_of_1_without_kinds(self, tmp_path):
        directions = "space directions: (2,0,0) (0,3,0) (0,0,4) none"
        path = nrrd(tmp_path / "a.nrrd", DATA.tobytes(), "space: LPS", directions, sizes="6 5 4 1")
        assert (io.read(path).shape, io.read(path).spacing.tolist()) == ((4, 5, 6), [4, 3, 2])

    @pytest.mark.parametrize(
        ("lines", "changes", "says"),
        [
            (["spacings: 1 1 0"], {}, "voxel size of 0"),
            (["spacings: 1 1"], {}, "2 spacings for 3 axes"),
            (["spacings: a b c"], {}, "no numbers"),
            (["space directions: (1,0,0) (0,1,0)"], {}, "do not fit"),
            (["space directions: (x,0,0) (0,1,0) (0,0,1)"], {}, "no numbers"),
            (["kinds: domain domain"], {}, "2 kinds for 3 axes"),
            ([], {"sizes": "6 5 4000000000"}, "truncated"),
            ([], {"sizes": "6 5 -4"}, "empty or damaged"),
            ([], {"sizes": " ".join(["1"] * 40)}, "no volume"),
            ([], {"sizes": "6 5 4000000", "encoding": "gzip"}, "fill the memory|truncated|damaged"),
            ([], {"encoding": "lzma"}, "stored as 'lzma'"),
            ([], {"kind": "block"}, "type 'block'"),
            (["data file: ../x.raw"], {}, "outside its folder"),
            (["data file: gone.raw"], {}, "which is not beside it"),
        ],
    )
    def test_headers(self, tmp_path, lines, changes, says):
        import re

        assert re.search(says, refusal(nrrd(tmp_path / "a.nrrd", DATA.tobytes(), *lines, **changes)))

    def test_time_is_chosen(self, tmp_path):
        array = np.stack([DATA, DATA + 1], -1)
        path = nrrd(tmp_path / "a.nrrd", array.tobytes(), "kinds: time domain domain domain", sizes="2 6 5 4")
        np.testing.assert_array_equal(io.read(path, frame=1).data[0], DATA + 1)


def test_a_tiff_of_two_files_the_second_of_which_is_missing(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", DATA[:2].astype(np.uint16), ome=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        xml = file.ome_metadata.replace('SizeZ="2"', 'SizeZ="4"')
    second = (
        '<TiffData IFD="0" FirstZ="2" PlaneCount="2"><UUID FileName="b.ome.tif">urn:uuid:2</UUID></TiffData></Pixels>'
    )
    xml = xml.replace("</Pixels>", second)
    tifffile.imwrite(tmp_path / "a.ome.tif", DATA[:2].astype(np.uint16), metadata=None, description=xml.encode())
    assert "'b.ome.tif' is missing" in refusal(tmp_path / "a.ome.tif")


class TestTiff:
    """What a night of mutated files found: tifffile follows these for minutes."""

    def test_pages_that_lead_in_a_circle(self, tmp_path):
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(DATA[0], photometric="minisblack", metadata=None)
            file.write(DATA[1], photometric="minisblack", metadata=None)
        content = bytearray((tmp_path / "a.tif").read_bytes())
        first = int.from_bytes(content[4:8], "little")
        after = first + 2 + 12 * int.from_bytes(content[first : first + 2], "little")
        second = int.from_bytes(content[after : after + 4], "little")
        after = second + 2 + 12 * int.from_bytes(content[second : second + 2], "little")
        content[after : after + 4] = first.to_bytes(4, "little")
        (tmp_path / "a.tif").write_bytes(content)
        assert "in a circle" in refusal(tmp_path / "a.tif")

    @pytest.mark.parametrize(
        ("compression", "says"), [(None, "announces"), ("zlib", "strips or tiles|fill the memory")]
    )
    def test_more_rows_than_it_holds(self, tmp_path, compression, says):
        import re

        tifffile.imwrite(tmp_path / "a.tif", DATA[0], compression=compression, rowsperstrip=1, metadata=None)
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
            file.pages[0].tags["ImageLength"].overwrite(2**24)
        assert re.search(says, refusal(tmp_path / "a.tif"))


class TestZarr:
    @pytest.mark.parametrize("codec", ["blosc", "zstd", "gzip", "none"])
    @pytest.mark.parametrize("share", [0.0, 0.1, 0.34, 0.9])
    def test_a_chunk_cut_short(self, tmp_path, rng, codec, share):
        path = self.store(tmp_path, rng, codec)
        chunk = max((path / "0").rglob("[0-9]*"), key=lambda file: file.stat().st_size if file.is_file() else -1)
        chunk.write_bytes(chunk.read_bytes()[: int(chunk.stat().st_size * share)])
        assert "damaged" in refusal(path)

    def store(self, tmp_path, rng, codec):
        import numcodecs

        compressor = {"blosc": numcodecs.Blosc(), "zstd": numcodecs.Zstd(), "gzip": numcodecs.GZip(), "none": None}[
            codec
        ]
        group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
        array = group.create_array("0", shape=(1, 20, 30, 40), dtype=np.int16, compressors=compressor)
        array[...] = rng.integers(0, 99, (1, 20, 30, 40))
        axes = [{"name": name, "type": "space"} for name in "czyx"]
        step = {"type": "scale", "scale": [1, 1, 1, 1]}
        group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": [step]}]}]
        np.asarray(io.read(tmp_path / "a.zarr").data)
        return tmp_path / "a.zarr"

    @pytest.mark.parametrize("at", [0, 1, 3, 7, 11, 15])
    def test_a_header_of_blosc_that_is_damaged(self, tmp_path, rng, at):
        path = self.store(tmp_path, rng, "blosc")
        chunk = next(file for file in (path / "0").rglob("[0-9]*") if file.is_file())
        content = bytearray(chunk.read_bytes())
        content[at] = 0 if at == 3 else 0x7F  # versions, size of a value, the highest byte of each length
        chunk.write_bytes(content)
        assert "damaged" in refusal(path)

    def test_a_header_of_blosc_that_is_damaged_in_zarr_3(self, tmp_path, rng):
        made = zarr.create_array(
            str(tmp_path / "a.zarr"), shape=(8, 9, 10), dtype="int16", compressors=zarr.codecs.BloscCodec()
        )
        made[...] = rng.integers(0, 99, (8, 9, 10))
        np.asarray(io.read(tmp_path / "a.zarr").data)
        chunk = next(file for file in (tmp_path / "a.zarr" / "c").rglob("*") if file.is_file())
        chunk.write_bytes(b"\x07" + chunk.read_bytes()[1:])
        assert "damaged" in refusal(tmp_path / "a.zarr")

    @pytest.mark.parametrize("size", [10**9, 2**40, 10**19])
    def test_an_axis_that_nothing_has(self, tmp_path, rng, size):
        path = self.store(tmp_path, rng, "none")
        about = json.loads((path / "0" / ".zarray").read_text())
        (path / "0" / ".zarray").write_text(json.dumps(about | {"shape": [size, 20, 30, 40]}))
        refusal(path)

    def test_millions_of_chunks_that_are_not_there(self, tmp_path, rng):
        path = self.store(tmp_path, rng, "none")
        about = json.loads((path / "0" / ".zarray").read_text())
        about |= {"shape": [1, 2_000_000, 30, 40], "chunks": [1, 1, 30, 40]}
        (path / "0" / ".zarray").write_text(json.dumps(about))
        refusal(path)


class TestBombs:
    """A small file that announces or unpacks to gigabytes is refused without taking them."""

    def test_nifti(self, tmp_path):
        image = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
        nib.save(image, tmp_path / "a.nii")
        content = bytearray((tmp_path / "a.nii").read_bytes())
        content[42:48] = np.array([1200] * 3, "<i2").tobytes()
        (tmp_path / "b.nii.gz").write_bytes(gzip.compress(bytes(content)))
        assert "fill the memory" in refusal(tmp_path / "b.nii.gz")

    def test_mgh(self, tmp_path):
        nib.save(nib.MGHImage(np.zeros((4, 4, 4), np.float32), np.eye(4)), tmp_path / "a.mgh")
        content = bytearray((tmp_path / "a.mgh").read_bytes())
        content[4:16] = np.array([2000] * 3, ">i4").tobytes()
        (tmp_path / "b.mgh").write_bytes(content)
        assert "truncated" in refusal(tmp_path / "b.mgh")
        (tmp_path / "c.mgz").write_bytes(gzip.compress(bytes(content)))
        assert "fill the memory" in refusal(tmp_path / "c.mgz")

    def test_png(self, tmp_path):
        from PIL import Image

        Image.new("L", (20, 20)).save(tmp_path / "a.png")
        content = bytearray((tmp_path / "a.png").read_bytes())
        content[16:24] = np.array([20000, 20000], ">u4").tobytes()  # of IHDR, whose checksum follows
        content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
        (tmp_path / "a.png").write_bytes(content)
        assert "more pixels" in refusal(tmp_path / "a.png")

    def test_entities_in_ome_xml(self, tmp_path):
        bomb = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "ccc">]><OME xmlns="x"><Image>&b;</Image></OME>'
        tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((4, 5), np.uint8), metadata=None, description=bomb)
        refusal(tmp_path / "a.ome.tif")

    @pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the address space")
    def test_memory_stays_small(self, tmp_path):
        """In a process that may take 1 GiB more than it has."""
        meta(tmp_path / "a.mha", DATA.tobytes(), ElementNumberOfChannels=10**6)
        meta(tmp_path / "b.mha", zlib.compress(b"\0" * 10**6), DimSize="6 5 400000000", CompressedData=True)
        nrrd(tmp_path / "c.nrrd", gzip.compress(b"\0" * 10**6), sizes="60000 50000 4", encoding="gzip")
        script = """
            import resource, sys
            from napari_mamba import io
            from napari_mamba.errors import InputError
            import numpy, PIL.Image, nibabel
            have = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (have + 2**30, have + 2**30))
            for path in sys.argv[1:]:
                try:
                    io.read(path)
                except InputError as error:
                    print("memory" if "does not fit in memory" in str(error) else "refused")
        """
        command = [sys.executable, "-c", textwrap.dedent(script), *map(str, sorted(tmp_path.iterdir()))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["refused"] * 3


def test_a_device_or_a_pipe_is_refused_at_once(tmp_path):
    import os

    if not hasattr(os, "mkfifo"):
        pytest.skip("needs named pipes")
    os.mkfifo(tmp_path / "a.nii")
    assert "not a file" in refusal(tmp_path / "a.nii")


def test_sentences_are_short_and_printable():
    text = _guard.shortened("x: " + "\x00\n garbage" * 99 + " copy it anew")
    assert len(text) <= _guard.LONGEST
    assert text.isprintable()
    assert text.endswith("copy it anew")
    text = _guard.shortened("/data/x.dcm is of " + repr("\x00\x90\\" * 99 + "a/b") + ": copy it anew")  # no path
    assert len(text) <= _guard.LONGEST + len("/data/x.dcm")


@pytest.mark.parametrize("name", ["~scan.nii.gz", "~", "~root"])
def test_a_name_that_begins_with_a_tilde_is_a_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    target = f"{name}.nii" if not name.endswith(".gz") else name
    io.write(Volume(DATA[np.newaxis]), target)
    assert (tmp_path / target).is_file()
    np.testing.assert_array_equal(io.read(target).data[0], DATA)


def test_a_tilde_before_a_slash_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    io.write(Volume(DATA[np.newaxis]), "~/a.nii")
    assert (tmp_path / "a.nii").is_file()
