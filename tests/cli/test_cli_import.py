"""`napari-mamba import` of weights alone: what the options say reaches the bundle, and what is said wrong is told."""

import json
import sys
from functools import partial
from io import StringIO

import pytest
import torch

from napari_mamba import bundles, models
from napari_mamba.bundles.importers.words import parse_arguments, parse_names, parse_objects, parse_tile
from napari_mamba.cli import importing
from napari_mamba.errors import InputError

FOUR = [1, 1, 1, 1]


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    network = models.create("vm_unet_v2", depths=FOUR, num_classes=2, deep_supervision=False)
    torch.save({"model": network.state_dict()}, tmp_path / "best.pth")
    return tmp_path / "best.pth"


def test_options_reach_the_bundle(command, weights, tmp_path):
    steps = [{"step": "normalise", "schemes": ["zscore"]}]
    (tmp_path / "steps.json").write_text(json.dumps(steps))
    done = command(
        "import", weights, "-o", tmp_path / "out", "--network", "vm_unet_v2", "--argument", "deep_supervision=false",
        "--channels", "red, green,blue", "--classes", "background,polyp", "--tile", "64,96",
        "--preparation", tmp_path / "steps.json", "--activation", "softmax", "--name", "polyps",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "background, polyp" in done.out
    bundle = bundles.load(tmp_path / "out")
    assert (bundle.name, bundle.tile.size, bundle.activation) == ("polyps", (64, 96), "softmax")
    assert bundle.network.arguments["deep_supervision"] is False
    assert list(bundle.preparation) == steps


def test_a_preset_and_a_class_of_ones_own(command, weights, tmp_path):
    done = command(
        "import", weights, "-o", tmp_path / "out", "--preset", "lesion", "--argument", "deep_supervision=false"
    )
    assert done.code == 2
    assert "give classes" in done.err
    done = command(
        "import", weights, "-o", tmp_path / "out", "--preset", "lesion", "--classes", "a,b", "--argument",
        "deep_supervision=false",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert bundles.load(tmp_path / "out").tile.size == (256, 256)


def test_presets_are_listed(command):
    done = command("import", "--presets")
    assert done.code == 0
    assert "brats2023" in done.out
    assert "github.com/ge-xing/SegMamba" in done.out


def test_words_of_the_command_line():
    assert parse_arguments(["a=1", "b=[2, 3]", "c=text", "d=false", "e=x=y"]) == {
        "a": 1,
        "b": [2, 3],
        "c": "text",
        "d": False,
        "e": "x=y",
    }
    assert parse_arguments(None) is parse_names(None) is parse_tile(None) is parse_objects("columns", None) is None
    assert parse_objects("preparation", "[]") == []


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_arguments, ["a"]),
        (parse_arguments, ["=1"]),
        (parse_names, "a,,b"),
        (parse_tile, "64"),
        (parse_tile, "64,0"),
        (partial(parse_objects, "preparation"), "nowhere.json"),
        (partial(parse_objects, "columns"), "[1]"),
        (partial(parse_objects, "preparation"), "[{"),
    ],
)
def test_wrong_words_are_told(parse, text):
    with pytest.raises(InputError) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


class _Terminal(StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_how_far_an_import_is(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", _Terminal())
    with importing.shown() as tell:
        tell("Reading the weights", 0.4)
        tell("Writing the bundle", 0.9)
    assert "Writing the bundle" in sys.stderr.getvalue()
    assert "90%" in sys.stderr.getvalue()


def test_a_log_gets_a_line_now_and_then_and_a_quick_import_none(command, weights, tmp_path, monkeypatch):
    arguments = "--preset", "lesion", "--classes", "a,b", "--argument", "deep_supervision=false"
    monkeypatch.setattr(importing, "SECONDS_BETWEEN_LINES", 1e9)
    assert "%" not in command("import", weights, "-o", tmp_path / "quick", *arguments).err
    monkeypatch.setattr(importing, "SECONDS_BETWEEN_LINES", -1)
    lines = command("import", weights, "-o", tmp_path / "slow", *arguments).err.splitlines()
    assert lines[0].startswith("Reading the weights, ")
    shares = [int(line.rsplit(", ", 1)[1].rstrip("%")) for line in lines if line.endswith("%")]
    assert shares == sorted(shares)
    assert shares[-1] == 100
