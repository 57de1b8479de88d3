"""A bundle's model card in a window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QDialog, QTextBrowser, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle


STYLE = "td, th { padding: 2px 8px } table { margin: 6px 0 } pre, code { white-space: pre-wrap }"


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
    text = QTextBrowser(dialog)
    text.setAccessibleName("Model card")
    text.setOpenExternalLinks(True)
    text.setSearchPaths([str(bundle.path)])  # of its pictures
    text.document().setDefaultStyleSheet(STYLE)
    text.setHtml(card_html(bundle))
    layout = QVBoxLayout(dialog)
    layout.addWidget(text)
    dialog.resize(720, 640)
    dialog.show()
    return dialog
