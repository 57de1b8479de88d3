"""What a bundle, a checkpoint or a configuration from a stranger may try, and that it comes to nothing.

Each class is a row of the table in SECURITY.md.
"""

from __future__ import annotations

import json
import pickle
import pickletools
import shutil
import stat
import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest
import torch

from napari_mamba import bundles
from napari_mamba.bundles import doors
from napari_mamba.bundles.importers import import_checkpoint
from napari_mamba.bundles.importers.monai.config import Config
from napari_mamba.bundles.importers.nnunet.plans import load_json
from napari_mamba.bundles.importers.pickles import _encode, _scalar, read_checkpoint, read_pickle
from napari_mamba.errors import BundleError, NapariMambaError
from napari_mamba.slides import files as bags


def refusal(function, *args, **options):
    with pytest.raises(BundleError) as caught:
        function(*args, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert "weights_only" not in text
    assert len(text) < 600
    return text


def refused_or_taken(function, *args):
    try:
        function(*args)
    except BundleError as error:
        text = str(error)
    else:
        text = ""
    assert len(text) < 600
    assert "weights_only" not in text
    assert "torch.load" not in text


@pytest.fixture
def copy(tiny_bundle, tmp_path):
    return shutil.copytree(tiny_bundle, tmp_path / "copy")


def rewrite(path, change):
    about = json.loads((path / "bundle.json").read_text())
    change(about)
    (path / "bundle.json").write_text(json.dumps(about))


class TestDescription:
    """bundle.json of any content is a bundle or one sentence."""

    @pytest.mark.parametrize("value", [None, [], {}, "x", 5, -1, 1e308, True, [[]], {"a": [1]}, "x" * 5000])
    @pytest.mark.parametrize(
        "field",
        ["name", "version", "task", "network", "channels", "preparation", "tile", "classes", "activation", "weights",
         "sha256", "references", "postprocessing", "eval_metrics", "changelog", "format_version"],
    )  # fmt: skip
    def test_any_value_of_any_field(self, copy, field, value):
        rewrite(copy, lambda about: about.__setitem__(field, value))
        refused_or_taken(lambda: bundles.load(copy).networks())

    @pytest.mark.parametrize(
        ("place", "value"),
        [
            (("preparation", 0, "step"), ["orient"]),
            (("preparation", 0, "step"), {}),
            (("tile", "size"), [0, 16, 16]),
            (("tile", "size"), [10**6] * 3),
            (("tile", "divisor"), [0, 0, 0]),
            (("classes", 1, "index"), 10**12),
            (("classes", 1, "color"), "#zzzzzz"),
            (("network", "arguments", "features_per_stage"), "no"),
            (("network", "arguments", "strides"), [[0, 0, 0], [2, 2, 2]]),
            (("network", "name"), "no such network"),
            (("network", "name"), "é" * 400),
            (("sha256", "weights.safetensors"), "00"),
        ],
    )
    def test_values_within_fields(self, copy, place, value):
        def change(about):
            for key in place[:-1]:
                about = about[key]
            about[place[-1]] = value

        rewrite(copy, change)
        refusal(lambda: bundles.load(copy).networks())

    def test_depth_size_and_numbers_have_limits(self):
        assert "nested" in refusal(doors.parsed, "[" * 100 + "]" * 100, "x")
        refusal(doors.parsed, "[" * 10**6, "x")
        refusal(doors.parsed, "[" + "1," * 300_000 + "1]", "x")
        refusal(doors.parsed, '{"a": NaN}', "x")
        refusal(doors.parsed, '{"a": 1e999}', "x")
        refusal(doors.parsed, "9" * 30, "x")
        refusal(doors.parsed, "9" * 10_000, "x")

    @pytest.mark.parametrize("text", ["\ud800", "a\0b", "\x1b[31mred"])
    def test_text_that_no_terminal_should_print(self, copy, text):
        rewrite(copy, lambda about: about.__setitem__("title", text))
        assert "characters that are none" in refusal(bundles.load, copy)

    def test_one_bad_bundle_does_not_hide_the_others(self, tmp_path, tiny_bundle, monkeypatch):
        shutil.copytree(tiny_bundle, tmp_path / "good")
        for number, text in enumerate(["[]", '{"format": "napari-mamba bundle", "preparation": [{"step": []}]}', "\0"]):
            (tmp_path / f"bad{number}").mkdir()
            (tmp_path / f"bad{number}" / "bundle.json").write_text(text)
        shutil.copytree(tiny_bundle, tmp_path / "typed")
        rewrite(tmp_path / "typed", lambda about: about["tile"].__setitem__("divisor", [0, 0, 0]))
        (tmp_path / "bad.zip").write_bytes(b"PK\x05\x06" + b"\xff" * 18)
        monkeypatch.setenv("NAPARI_MAMBA_BUNDLES", str(tmp_path))
        assert "tiny" in [bundle.name for bundle in bundles.available()]
        assert bundles.load("tiny").path == tmp_path / "good"


class TestNetwork:
    """A description of a few bytes cannot ask for gigabytes or minutes: the weights say how large the network is."""

    @pytest.mark.parametrize(
        "arguments",
        [
            {"features_per_stage": [4096, 8192]},
            {"n_conv_per_stage": [10**6, 1]},
            {"n_conv_per_stage_decoder": [10**6]},
            {"features_per_stage": [10**9, 10**9]},
            {"num_classes": 10**9},
        ],
    )
    def test_is_not_built_beyond_its_weights(self, copy, arguments):
        rewrite(copy, lambda about: about["network"]["arguments"].update(arguments))
        refusal(lambda: bundles.load(copy).networks())


class TestFiles:
    """Every file of a bundle is hashed; links, devices and names that lead out are refused."""

    @pytest.mark.parametrize("name", ["weights.safetensors", "README.md"])
    def test_a_changed_file_is_noticed(self, copy, name):
        path = copy / name
        path.write_bytes(path.read_bytes().replace(b"t", b"u", 1))
        assert "checksum" in refusal(lambda: (list(bundles.load(copy).state_dicts()), bundles.load(copy).card))

    def test_a_card_that_was_taken_away_is_noticed(self, copy):
        (copy / "README.md").unlink()
        assert "lacks its card" in refusal(lambda: bundles.load(copy).card)

    @pytest.mark.skipif(sys.platform == "win32", reason="needs devices")
    def test_a_device_in_place_of_a_file_does_not_run_for_ever(self, copy):
        (copy / "weights.safetensors").unlink()
        (copy / "weights.safetensors").symlink_to("/dev/zero")
        assert "lacks the weights" in refusal(bundles.load, copy)
        (copy / "bundle.json").unlink()
        (copy / "bundle.json").symlink_to("/dev/zero")
        refusal(bundles.load, copy)
        refusal(load_json, copy / "bundle.json")

    def make(self, path, entries):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in entries:
                archive.writestr(name, content)
        return path

    @pytest.mark.parametrize(
        "name", ["../evil.json", "/etc/evil.json", "a/../../evil.json", "C:\\evil.json", "..\\e.json"]
    )
    def test_names_that_lead_out_of_a_zip(self, tmp_path, name):
        path = self.make(tmp_path / "a.zip", [("plans.json", "{}"), (name, "{}")])
        assert "leads out" in refusal(import_checkpoint, path)
        assert "leads out" in refusal(bundles.load, path)

    def test_links_in_a_zip(self, tmp_path):
        entry = zipfile.ZipInfo("plans.json")
        entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        path = self.make(tmp_path / "a.zip", [(entry, "/etc/passwd"), ("dataset.json", "{}"), ("bundle.json", "{}")])
        assert "is a link" in refusal(import_checkpoint, path)
        assert "is a link" in refusal(bundles.load, path)

    def test_a_zip_that_unpacks_to_gigabytes(self, tmp_path):
        zeros = b"\0" * 2**28
        path = self.make(
            tmp_path / "a.zip", [("bundle.json", "{}"), ("plans.json", "{}"), ("fold_0/x.pth", zeros + b"1")]
        )
        assert path.stat().st_size < 2**19
        assert "GB" in refusal(import_checkpoint, path)
        assert "GB" in refusal(bundles.load, path)

    def test_a_damaged_directory(self, copy, tmp_path):
        whole = bundles.save(tmp_path / "b.zip", bundles.load(copy).spec, list(bundles.load(copy).state_dicts()))
        content = whole.read_bytes()
        rng = np.random.default_rng(3)
        for _ in range(60):
            damaged = bytearray(content)
            for place in rng.integers(len(content) - 600, len(content), 2):
                damaged[place] = rng.integers(0, 256)
            (tmp_path / "c.zip").write_bytes(damaged)
            refused_or_taken(lambda: bundles.load(tmp_path / "c.zip").card)
            refused_or_taken(lambda: list(bundles.load(tmp_path / "c.zip").state_dicts()))


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/never",)


class TestRecords:
    """A checkpoint's records are what was written, or it is refused."""

    @pytest.fixture
    def rezipped(self, tmp_path):
        torch.save({"a": torch.arange(4.0), "b": torch.ones(3)}, tmp_path / "whole.pth")

        def make(kind, change=lambda content: content):
            with zipfile.ZipFile(tmp_path / "whole.pth") as whole, zipfile.ZipFile(tmp_path / "a.pth", "w") as made:
                for record in whole.infolist():
                    content = whole.read(record)
                    made.writestr(record.filename, change(content) if "/data/0" in record.filename else content, kind)
            return tmp_path / "a.pth"

        return make

    def test_that_were_packed_are_unpacked(self, rezipped):
        assert read_checkpoint(rezipped(zipfile.ZIP_DEFLATED))["a"].tolist() == [0, 1, 2, 3]

    def test_that_unpack_to_more_than_weights(self, rezipped, monkeypatch):
        monkeypatch.setattr("napari_mamba.bundles.importers.zipped._UNPACKED", 1 << 20)
        assert "more than weights do" in refusal(
            read_checkpoint, rezipped(zipfile.ZIP_DEFLATED, lambda _: bytes(2 << 20))
        )

    def test_of_a_zip_that_says_it_lies_on_several_disks(self, tmp_path):
        torch.save({"features": torch.ones(3, 4)}, tmp_path / "a.pt")
        content = bytearray((tmp_path / "a.pt").read_bytes())
        content[content.rindex(b"PK\x06\x07") + 16] = 2
        (tmp_path / "a.pt").write_bytes(content)
        for read in (read_checkpoint, bags.read):
            with pytest.raises(NapariMambaError, match="is cut off or damaged"):
                read(tmp_path / "a.pt")

    def test_that_ask_for_a_long_name(self, tmp_path):
        (tmp_path / "a.pkl").write_bytes(b"c" + b"numpy._core.multi" * 60 + b"\nscalar\n.")
        assert "asks for numpy._core" in refusal(read_pickle, tmp_path / "a.pkl")

    def test_of_which_one_bit_is_wrong(self, tmp_path, rezipped):
        content = bytearray((path := rezipped(zipfile.ZIP_STORED)).read_bytes())
        place = content.find(np.arange(4, dtype=np.float32).tobytes())
        content[place + 5] ^= 1
        path.write_bytes(content)
        assert "checksum of 'whole/data/0' is not right" in refusal(read_checkpoint, path)

    def test_without_checksums_they_are_taken(self, tmp_path):
        torch.serialization.set_crc32_options(False)
        try:
            torch.save({"a": torch.arange(4.0)}, tmp_path / "a.pth")
        finally:
            torch.serialization.set_crc32_options(True)
        assert read_checkpoint(tmp_path / "a.pth")["a"].tolist() == [0, 1, 2, 3]


class TestPickles:
    """No name in a pickle runs, and none fills the memory."""

    def test_code_is_refused_by_name_without_dangerous_advice(self, tmp_path):
        torch.save({"state_dict": Evil()}, tmp_path / "a.pth")
        assert "system to be run" in refusal(read_checkpoint, tmp_path / "a.pth")
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(Evil()))
        assert "system to be run" in refusal(read_pickle, tmp_path / "a.pkl")

    @pytest.mark.parametrize("content", [b"", b"junk" * 99, b"\x80\x02}q\x00.", pickle.dumps([1], 0)])
    def test_what_pytorch_says_is_not_passed_on(self, tmp_path, content):
        (tmp_path / "a.pth").write_bytes(content)
        refused_or_taken(read_checkpoint, tmp_path / "a.pth")

    def test_a_pickle_cannot_change_a_function(self, tmp_path):
        before = (_encode.__defaults__, _scalar.__defaults__)
        # BUILD, with a state that sets attributes of what was found
        for module, name in ((b"_codecs", b"encode"), (b"numpy.core.multiarray", b"scalar")):
            state = b"N}U\x0c__defaults__U\x04evil\x85s\x86"
            content = b"\x80\x02c" + module + b"\n" + name + b"\n" + state + b"b."
            (tmp_path / "a.pkl").write_bytes(content)
            refusal(read_pickle, tmp_path / "a.pkl")
        assert (_encode.__defaults__, _scalar.__defaults__) == before

    def test_nine_bytes_do_not_take_gigabytes(self, tmp_path):
        content = b"\x80\x02Nr\xff\xff\xff\x0f."  # LONG_BINPUT at 268 million: the memo grows to it
        assert [opcode.name for opcode, *_ in pickletools.genops(content)][-2] == "LONG_BINPUT"
        (tmp_path / "a.pkl").write_bytes(content)
        refusal(read_pickle, tmp_path / "a.pkl")

    def test_lists_that_share_lists(self, tmp_path):
        shared = []
        for _ in range(30):
            shared = [shared] * 30
        (tmp_path / "a.pkl").write_bytes(pickle.dumps({"plans": shared}))
        read_pickle(tmp_path / "a.pkl")
        own: list = []
        own.append(own)
        (tmp_path / "b.pkl").write_bytes(pickle.dumps(own))
        refusal(read_pickle, tmp_path / "b.pkl")

    def test_tensors_larger_than_their_file(self, tmp_path):
        torch.save({"state_dict": {"w": torch.ones(1).expand(2**28)}}, tmp_path / "a.pth")
        assert (tmp_path / "a.pth").stat().st_size < 5000
        assert "larger than the file" in refusal(read_checkpoint, tmp_path / "a.pth")


class TestConfigurations:
    """Configurations are data: expressions do not run, references and aliases do not multiply."""

    def config(self, tmp_path, text, suffix=".json"):
        (tmp_path / f"a{suffix}").write_text(text)
        return Config(tmp_path / f"a{suffix}")

    def test_expressions_do_not_run(self, tmp_path):
        config = self.config(tmp_path, "{\"a\": \"$__import__('os').system('touch /tmp/never')\"}")
        assert "would have to be run" in refusal(config.get, "a")

    def test_references_that_multiply(self, tmp_path):
        entries = {f"a{n}": [f"@a{n + 1}"] * 10 for n in range(12)} | {"a12": 1}
        config = self.config(tmp_path, json.dumps(entries))
        assert "more than a configuration says" in refusal(config.get, "a0")

    def test_aliases_that_multiply(self, tmp_path):
        pytest.importorskip("yaml")
        lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
        assert "nested" in refusal(self.config, tmp_path, "\n".join(lines), ".yaml")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the address space")
def test_none_of_these_takes_memory(tmp_path, copy):
    """In a process that may take 1 GiB more than PyTorch has."""
    rewrite(copy, lambda about: about["network"]["arguments"].update(features_per_stage=[4096, 8192]))
    torch.save({"state_dict": {"w": torch.ones(1).expand(2**29)}}, tmp_path / "a.pth")
    script = """
        import resource, sys
        from napari_mamba import bundles
        from napari_mamba.bundles.importers import import_checkpoint
        from napari_mamba.errors import BundleError, NapariMambaError
        import torch, napari_mamba.models
        have = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (have + 2**30, have + 2**30))
        for what in (lambda: bundles.load(sys.argv[1]).networks(), lambda: import_checkpoint(sys.argv[2])):
            try:
                what()
            except BundleError as error:
                print("memory" if "memory" in str(error) else "refused")
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(copy), str(tmp_path / "a.pth")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refused"] * 2
