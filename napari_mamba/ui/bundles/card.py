"""A bundle's model card in a window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QDialog, QTextBrowser, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle


def show_card(bundle: Bundle | None, parent: QWidget) -> QDialog | None:
    """Show the card of a bundle, or its description where it has none."""
    if bundle is None:
        return None
    dialog = QDialog(parent)
    dialog.setWindowTitle(f"{bundle.name}: model card")
    text = QTextBrowser(dialog)
    text.setAccessibleName("Model card")
    text.setOpenExternalLinks(True)
    text.setMarkdown(bundle.card or f"# {bundle.title}\n\n{bundle.description}")
    layout = QVBoxLayout(dialog)
    layout.addWidget(text)
    dialog.resize(720, 640)
    dialog.show()
    return dialog
