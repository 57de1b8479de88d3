"""Draws which bundle is chosen: a list with those that fit the image first, and what the chosen one says of itself."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSignalBlocker, Qt, QTimer, Signal, Slot
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_mamba.ui.bundles.card import show_card
from napari_mamba.ui.bundles.opening import BundleOpener, open_menu
from napari_mamba.ui.widgets.forms import combo_box
from napari_mamba.ui.widgets.theme import follow_theme, text_color, theme_of

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.ui.run.host import RunHost

OPEN_TIP = "Open a bundle, or import a checkpoint of nnU-Net, MONAI or a file of weights"
DISCLAIMER = "For research only. Not for clinical use."


class ModelView(QWidget):
    """A list of the bundles at hand, a button that opens others, and a summary of the chosen one.

    Signals
    -------
    failed : str
        A bundle could not be opened: one sentence.
    """

    failed = Signal(str)

    def __init__(self, host: RunHost, parent: QWidget | None = None):
        super().__init__(parent)
        self.session = host.session
        self.combo = combo_box("The model to run. Models are bundles: a network with its weights, classes and card.")
        self.combo.setAccessibleName("Model")
        self.opener = BundleOpener(self.session.library, host.engine, self)
        self.opener.opened.connect(self.session.choose_bundle)
        self.opener.failed.connect(self.failed)
        self.more = QPushButton("Open…")
        self.more.setToolTip(OPEN_TIP)
        self.more.setStyleSheet("QPushButton::menu-indicator { image: none; width: 0 }")
        self._menu = open_menu(self.opener, self.more)
        self.more.setMenu(self._menu)
        self.more.clicked.connect(self.opener.cancel)  # while something is imported; at other times the menu opens
        self.opener.busy.connect(self._on_busy)
        self.opener.progress.connect(self._on_progress)
        self.opener.cancelling.connect(self._on_cancelling)
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        links = Qt.TextInteractionFlag.LinksAccessibleByMouse | Qt.TextInteractionFlag.LinksAccessibleByKeyboard
        self.summary.setTextInteractionFlags(links)
        self.summary.setAccessibleName("About this model")
        self.summary.linkActivated.connect(lambda _: show_card(self.bundle, self))
        follow_theme(self.session.viewer, self, self._summarise)

        row = QHBoxLayout()
        row.addWidget(self.combo, 1)
        row.addWidget(self.more)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self.summary)

        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.timeout.connect(self.draw)
        self.combo.currentIndexChanged.connect(self._on_chosen)
        self.session.bundle_changed.connect(self.draw)
        self.session.inputs.changed.connect(self._draw_later)
        self.session.library.changed.connect(self._draw_later)
        self.draw()

    @property
    def bundle(self) -> Bundle | None:
        """The chosen bundle."""
        return self.session.bundle

    def open(self, path: str) -> None:
        """Open or import what lies there, and choose it; or say what is wrong."""
        self.opener.open(path)

    def _draw_later(self, *_: Any) -> None:
        self._later.start(0)  # layers come in bursts

    def draw(self) -> None:
        """Show the session as it is."""
        blocker = QSignalBlocker(self.combo)
        self.combo.clear()
        fitting = True
        for bundle, suits in self.session.ranked():
            if fitting and not suits.fits and self.combo.count():
                self.combo.insertSeparator(self.combo.count())
            fitting = suits.fits
            self.combo.addItem(bundle.name, bundle)
            reasons = [*suits.refusals, *suits.warnings] or [bundle.title or bundle.name]
            self.combo.setItemData(self.combo.count() - 1, "\n".join(reasons), Qt.ItemDataRole.ToolTipRole)
            if bundle is self.bundle:
                self.combo.setCurrentIndex(self.combo.count() - 1)
        if self.bundle is None:
            self.combo.setCurrentIndex(-1)
        del blocker
        self._summarise()

    def disconnect_from_model(self) -> None:
        """The dock is closed; the session stays."""
        self.session.bundle_changed.disconnect(self.draw)
        self.session.inputs.changed.disconnect(self._draw_later)
        self.session.library.changed.disconnect(self._draw_later)

    def _summarise(self) -> None:
        self.summary.setText(summary(self.bundle, text_color("link", theme_of(self.session.viewer))))

    @Slot(bool)
    def _on_busy(self, busy: bool) -> None:
        self.more.setMenu(None if busy else self._menu)  # type: ignore[arg-type]  # Qt takes none
        self.more.setEnabled(True)
        self.more.setText("Cancel" if busy else "Open…")
        self.more.setToolTip("End what is being opened or imported" if busy else OPEN_TIP)

    def _on_progress(self, what: str, share: float) -> None:
        if self.opener.is_busy and self.more.isEnabled():  # the last may come after the end
            self.more.setText(f"Cancel {share:.0%}")
            self.more.setToolTip(f"{what}… Click to end it")

    def _on_cancelling(self) -> None:
        self.more.setEnabled(False)
        self.more.setText("Cancelling…")

    @Slot()
    def _on_chosen(self) -> None:
        self.session.choose_bundle(self.combo.currentData())


def summary(bundle: Bundle | None, link: str = "") -> str:
    """A few lines of rich text: what the bundle does, on what, and what it is not for; `link` colours its links."""
    if bundle is None:
        return "No model is installed. Open a bundle with the button above."
    lines = [f"<b>{escape(bundle.title or bundle.name)}</b>"]
    names = [c.name for c in bundle.classes if c.index != 0 or bundle.task == "classification"]
    if names:
        shown = ", ".join(escape(name) for name in names[:6]) + (f" and {len(names) - 6} more" if names[6:] else "")
        lines.append(f"{'Tells apart' if bundle.task == 'classification' else 'Outlines'}: {shown}")
    use = bundle.intended_use.replace("Not for clinical use.", "").replace("  ", " ").strip()  # said below, in bold
    if use:
        lines.append(escape(use))
    color = f' style="color: {link}"' if link else ""
    lines.append(f'<b>{DISCLAIMER}</b><br><a href="card"{color}>Model card</a>')
    return "<br>".join(lines)
