"""A bundle's model card in a window."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices, QImage
from qtpy.QtWidgets import QDialog, QTextBrowser, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle


STYLE = "td, th { padding: 2px 8px } table { margin: 6px 0 } pre, code { white-space: pre-wrap }"


PICTURES = {".png": "PNG", ".jpg": "JPG", ".jpeg": "JPG"}
_LARGEST_PICTURE, _LONGEST_SIDE = 8 << 20, 4096  # bytes of the file, pixels


class Page(QTextBrowser):
    """A stranger's text: its pictures are files of its own folder, its links lead to the web, and to nothing else.

    Qt would read any file that a picture names (a device, a folder on another computer, which is told who asks), and
    start any program that a link names.
    """

    def __init__(self, parent: QWidget | None = None, folder: Path | None = None):
        super().__init__(parent)
        self._folder = folder
        self.setOpenLinks(False)
        self.anchorClicked.connect(self._follow)

    def loadResource(self, kind: int, name: QUrl | str) -> Any:
        """A picture of the bundle's own folder; nothing for anything else."""
        return picture(self._folder, QUrl(name)) or QImage()

    def _follow(self, url: QUrl) -> None:
        if not url.scheme() and not url.host() and not url.path() and url.hasFragment():
            self.scrollToAnchor(url.fragment())
        elif url.scheme() in ("http", "https", "mailto"):
            QDesktopServices.openUrl(url)


def picture(folder: Path | None, url: QUrl) -> QImage | None:
    """The picture that `url` names in `folder`; None where it is of another place or kind, or too large."""
    name = url.path()
    if folder is None or url.scheme() or url.host() or name.startswith("/") or any(sign in name for sign in "\\:"):
        return None  # before the disk is asked: on Windows a name may be of another computer
    path = folder / name
    form = PICTURES.get(path.suffix.lower())
    try:
        inside = path.resolve().is_relative_to(folder.resolve()) and path.is_file()
        if form is None or not inside or path.stat().st_size > _LARGEST_PICTURE:
            return None
        content = path.read_bytes()
    except (OSError, ValueError, RuntimeError):
        return None
    return image if (image := _decoded(content, form)) is not None and not image.isNull() else None


def _decoded(content: bytes, form: str) -> QImage | None:
    """The pixels, unless the header tells of more than a card has use for."""
    from qtpy.QtCore import QBuffer, QByteArray, QIODevice
    from qtpy.QtGui import QImageReader

    held = QByteArray(content)
    buffer = QBuffer(held)
    buffer.open(QIODevice.OpenModeFlag.ReadOnly)
    reader = QImageReader(buffer, QByteArray(form.encode()))
    size = reader.size()
    return reader.read() if 0 < max(size.width(), size.height()) <= _LONGEST_SIDE else None


def card_html(bundle: Bundle) -> str:
    """The card as HTML, or the description of a bundle without one."""
    return html_of(bundle.card or f"# {bundle.title}\n\n{bundle.description}")


def html_of(markdown: str) -> str:
    """Markdown with tables as HTML; HTML in it is shown as text.

    Qt's own reader of Markdown loses the cells of tables, and all that comes after them.
    """
    from markdown_it import MarkdownIt  # comes with rich

    return MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown).replace("&lt;br&gt;", "<br>")


def show_card(bundle: Bundle | None, parent: QWidget) -> QDialog | None:
    """Show the card of a bundle, or its description where it has none."""
    if bundle is None:
        return None
    dialog = QDialog(parent)
    dialog.setWindowTitle(f"{bundle.name}: model card")
    text = Page(dialog, bundle.path if bundle.path.is_dir() else None)
    text.setAccessibleName("Model card")
    text.document().setDefaultStyleSheet(STYLE)
    text.setHtml(card_html(bundle))
    layout = QVBoxLayout(dialog)
    layout.addWidget(text)
    dialog.resize(720, 640)
    dialog.show()
    return dialog
