"""Bundles: listed, imported from wherever they come, removed only where they are the user's own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from napari.components import ViewerModel
from PIL import Image
from qtpy.QtCore import Qt, QUrl
from qtpy.QtWidgets import QMessageBox, QWidget

from napari_mamba import bundles
from napari_mamba.errors import InputError
from napari_mamba.ui.bundles import panel
from napari_mamba.ui.bundles.imports import open_or_import
from napari_mamba.ui.bundles.library import Library, tasks_of
from napari_mamba.ui.bundles.opening import BundleOpener
from napari_mamba.ui.bundles.panel import BundlesPanel
from napari_mamba.ui.run.process.engine_process import EngineThread

TIMEOUT = 20_000


@pytest.fixture
def own(tmp_path, monkeypatch, make_bundle) -> Path:
    """The user's folder, with "tiny" in it."""
    monkeypatch.setenv("NAPARI_MAMBA_BUNDLES", str(tmp_path / "own"))
    make_bundle(tmp_path / "own")
    return tmp_path / "own"


def test_a_library_lists_what_is_installed_and_keeps_its_objects(own):
    library = Library()
    assert "tiny" in [bundle.name for bundle in library.bundles]
    assert tasks_of(library.bundles) == ["segmentation", "restoration", "classification", "dose", "registration"]
    before = library.bundles
    library.refresh()
    assert library.bundles is before, "what was chosen stays the same object"


def test_bundles_from_elsewhere_stay_until_they_are_gone(own, tmp_path, make_bundle):
    library, told = Library(), []
    library.changed.connect(lambda: told.append(len(library.bundles)))
    count = len(library.bundles)
    other = bundles.load(make_bundle(tmp_path / "elsewhere", ("T1", "FLAIR")))
    added = library.add(other)
    assert added in library.bundles
    assert len(library.bundles) == count + 1
    library.add(bundles.load(other.path))
    assert len(library.bundles) == count + 1, "the same place again"
    shutil.rmtree(other.path)
    library.refresh()
    assert len(library.bundles) == count
    assert len(told) >= 2


def test_only_the_users_own_are_removed(own):
    library = Library()
    shipped = next(bundle for bundle in library.bundles if bundle.path.parent != own)
    assert not library.removable(shipped)
    with pytest.raises(InputError, match="is not in your bundle folder"):
        library.remove(shipped)
    assert shipped.path.is_dir()
    mine = library.find("tiny")
    library.remove(mine)
    assert not mine.path.exists()
    assert library.find("tiny") is None


def test_another_folder_can_be_chosen_and_left_again(own, tmp_path, make_bundle, monkeypatch):
    make_bundle(tmp_path / "other", ("T1", "FLAIR"))
    library = Library()
    monkeypatch.delenv("NAPARI_MAMBA_BUNDLES")
    library.use_folder(tmp_path / "other")
    assert library.find("tiny-two") is not None
    assert bundles.user_folder() == tmp_path / "other", "imports go there, too"
    library.use_folder(None)
    assert library.find("tiny-two") is None


def test_open_takes_bundles_and_whatever_can_be_imported(own, tmp_path, make_bundle):
    path = make_bundle(tmp_path / "elsewhere")
    assert open_or_import(str(path)).path == path
    empty = tmp_path / "empty"
    empty.mkdir()
    assert open_or_import(str(empty)).error
    assert "no such" in open_or_import(str(tmp_path / "nowhere")).error
    bad = tmp_path / "weights.pth"
    bad.write_bytes(b"nothing")
    assert open_or_import(str(bad)).error


def test_a_monai_or_nnunet_folder_is_imported_from_the_same_button(own, tmp_path, monkeypatch):
    """The importers have tests of their own; here, that a folder which is no bundle reaches them."""
    from napari_mamba.bundles import importers

    seen = []

    def convert(place, on_progress):
        seen.append(place)
        on_progress("Reading the weights", 0.25)
        return own / "tiny"

    monkeypatch.setattr(importers, "import_checkpoint", convert)
    folder = tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    folder.mkdir()
    told = []
    opened = open_or_import(str(folder), lambda *one: told.append(one))
    assert seen == [folder]
    assert told == [("Reading the weights", 0.25)]
    assert opened.imported
    assert opened.path == own / "tiny"


@pytest.fixture
def shown(qtbot, own, in_this_process):
    widget = BundlesPanel(ViewerModel())
    qtbot.addWidget(widget)
    yield widget
    widget.host.close()


def choose(shown: BundlesPanel, name: str) -> None:
    for i in range(shown.tree.topLevelItemCount()):
        group = shown.tree.topLevelItem(i)
        for j in range(group.childCount()):
            if group.child(j).text(0).split()[0] == name:
                shown.tree.setCurrentItem(group.child(j))
                return
    raise AssertionError(name)


def test_the_panel_shows_each_and_what_can_be_done_with_it(shown):
    choose(shown, "hippocampus-mr")
    assert "Not for clinical use" in shown.about.toPlainText()
    assert shown.use.isEnabled()
    assert not shown.remove.isEnabled(), "it came with the program"
    shown.use.click()
    assert shown.session.bundle.name == "hippocampus-mr"
    choose(shown, "tiny")
    assert shown.remove.isEnabled()
    assert "Anterior, Posterior" in shown.about.toPlainText()


def test_removing_asks_first(shown, own, monkeypatch):
    choose(shown, "tiny")
    answers = iter([QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes])
    monkeypatch.setattr(panel.QMessageBox, "question", lambda *_: next(answers))
    shown.remove.click()
    assert (own / "tiny").is_dir()
    shown.remove.click()
    assert not (own / "tiny").exists()
    assert shown.notice.text() == "Removed tiny."
    with pytest.raises(AssertionError):
        choose(shown, "tiny")


def test_what_is_opened_in_the_panel_is_chosen(qtbot, shown, tmp_path, make_bundle):
    path = make_bundle(tmp_path / "elsewhere", ("T1", "FLAIR"))
    with qtbot.waitSignal(shown.opener.opened, timeout=TIMEOUT):
        shown.opener.open(str(path))
    assert shown.session.bundle.path == path
    assert shown.current.path == path
    with qtbot.waitSignal(shown.opener.failed, timeout=TIMEOUT):
        shown.opener.open(str(tmp_path))
    assert shown.notice.kind == "error"
    assert shown.add.isEnabled()


def test_a_place_for_bundles_that_is_not_there_is_made(shown, own, monkeypatch):
    opened = []
    monkeypatch.setattr(panel.QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()))
    shutil.rmtree(own)
    shown.folder.click()
    assert opened == [str(own)]
    assert own.is_dir()


def test_a_card_is_shown_whole_with_its_tables(qtbot):
    from qtpy.QtWidgets import QTextBrowser, QWidget

    from napari_mamba.ui.bundles.card import show_card

    parent = QWidget()
    qtbot.addWidget(parent)
    for bundle in bundles.available():
        text = re.sub(r"!\[[^]]*\]\([^)]*\)", "", bundle.card).replace("|", " ")  # pictures are no words
        words = [word for word in text.split() if word.isalnum() and len(word) > 4]
        shown = show_card(bundle, parent).findChild(QTextBrowser).toPlainText()
        lacking = {word for word in words if word not in shown}
        assert not lacking, (bundle.name, sorted(lacking)[:5])


@pytest.mark.parametrize(
    "place",
    [
        "/dev/zero",
        "//127.0.0.1/share/a.png",
        "../a.png",
        "linked.png",
        "a.svg",
        r"\\127.0.0.1\share\a.png",
        "C:/a.png",
        "large.png",
        "http://127.0.0.1/a.png",
    ],
)
def test_a_card_shows_pictures_of_its_own_folder_alone(tmp_path, place):
    from napari_mamba.ui.bundles.card import picture

    folder = tmp_path / "bundle"
    folder.mkdir()
    for path in (tmp_path / "a.png", folder / "a.png"):
        Image.new("RGB", (3, 2)).save(path)
    Image.new("1", (5000, 2)).save(folder / "large.png")
    (folder / "linked.png").symlink_to(tmp_path / "a.png")
    (folder / "a.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    assert picture(folder, QUrl("a.png")).width() == 3
    assert picture(folder, QUrl(place)) is None
    assert picture(None, QUrl("a.png")) is None


def test_a_card_reads_no_other_place_and_starts_nothing(qtbot, monkeypatch):
    from napari_mamba.ui.bundles import card

    opened, asked = [], []
    monkeypatch.setattr(card.QDesktopServices, "openUrl", lambda url: opened.append(url.toString()))
    monkeypatch.setattr(card, "picture", lambda _, url: asked.append(url.toString()))
    page = card.Page()
    qtbot.addWidget(page)
    page.setHtml(card.html_of("![x](/dev/zero) ![y](//127.0.0.1/share/a.png)"))
    page.grab()
    assert set(asked) == {"/dev/zero", "//127.0.0.1/share/a.png"}, "Qt asks nobody but us"
    for link in ("evil.exe", "/bin/sh", "file:///bin/sh", "search-ms:query=x", "smb://host/a", "//host/a", "#top"):
        page.anchorClicked.emit(QUrl(link))
    assert opened == []
    page.anchorClicked.emit(QUrl("https://example.org"))
    assert opened == ["https://example.org"]


def test_html_in_a_card_is_only_text(qtbot):
    from napari_mamba.ui.bundles.card import html_of

    assert "<script" not in html_of("Hello <script>alert(1)</script>")


@pytest.fixture
def weights(tmp_path) -> Path:
    """A lesion network's weights alone, as its authors save them."""
    import torch

    from napari_mamba import models

    torch.manual_seed(0)
    network = models.create("vm_unet_v2", depths=[1] * 4, num_classes=1, deep_supervision=False)
    torch.save(network.state_dict(), tmp_path / "best.pth")
    return tmp_path / "best.pth"


def test_what_weights_do_not_say_is_asked_for(own, weights, qtbot):
    """The window imports what the command does: a dialog has the command's options."""
    opener, ends = BundleOpener(Library(), EngineThread(), QWidget()), []
    opener.opened.connect(lambda bundle: ends.append(bundle))
    opener.failed.connect(ends.append)

    def answer(fill) -> None:
        qtbot.waitUntil(lambda: opener.asking is not None and opener.asking.isVisible(), timeout=TIMEOUT)
        fill(opener.asking)

    opener.open(str(weights))
    answer(lambda dialog: dialog.reject())
    qtbot.waitUntil(lambda: bool(ends), timeout=TIMEOUT)
    assert "is VM-UNetV2; say its deep_supervision" in ends.pop()

    def of_the_network(dialog) -> None:
        dialog.preset.setCurrentIndex(0)
        assert dialog.texts["arguments"].text() == "deep_supervision="
        assert dialog.notice.text() == "Still to be said: deep_supervision."
        qtbot.keyClicks(dialog.texts["arguments"], "false")
        qtbot.mouseClick(dialog.use_button, Qt.MouseButton.LeftButton)

    def as_published(dialog) -> None:
        assert [dialog.preset.itemData(i) for i in range(dialog.preset.count())] == ["", "lesion"]
        dialog.preset.setCurrentIndex(0)
        assert not dialog.use_button.isEnabled()
        assert dialog.notice.text() == "Still to be said: tile, channels, preparation, classes."
        qtbot.keyClicks(dialog.texts["tile"], "12,")
        assert "a tile here is two or three" in dialog.notice.text().replace("A tile", "a tile")
        dialog.texts["tile"].clear()
        dialog.preset.setCurrentIndex(1)
        qtbot.keyClicks(dialog.texts["tile"], "64,64")
        qtbot.keyClicks(dialog.texts["classes"], "spot")
        qtbot.mouseClick(dialog.use_button, Qt.MouseButton.LeftButton)

    opener.open(str(weights))
    answer(of_the_network)
    qtbot.waitUntil(lambda: opener.asking is None or not opener.asking.unsaid.arguments, timeout=TIMEOUT)
    answer(as_published)
    qtbot.waitUntil(lambda: bool(ends), timeout=TIMEOUT)
    (bundle,) = ends
    assert (bundle.tile.size, bundle.activation) == ((64, 64), "sigmoid")
    assert [one.name for one in bundle.classes] == ["spot"]
    assert bundle.preparation[-1]["step"] == "resize"
