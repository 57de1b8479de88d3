"""The dock widget "Models": what is installed, its cards, importing, removing, and the folder it lies in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QUrl, Slot
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QHBoxLayout,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_mamba import bundles
from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.bundles.card import Page, html_of, show_card
from napari_mamba.ui.bundles.library import tasks_of
from napari_mamba.ui.bundles.opening import BundleOpener, open_menu
from napari_mamba.ui.run.host import host_of
from napari_mamba.ui.run.process.outcome import sentence
from napari_mamba.ui.widgets.docks import OwnDock
from napari_mamba.ui.widgets.theme import Notice, follow_theme, text_color, theme_of
from napari_mamba.ui.widgets.tips import tip

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mamba.bundles import Bundle

TASKS = {
    "segmentation": "Outline structures",
    "restoration": "Restore images",
    "fusion": "Fuse two images into one",
    "diffusion": "Sample an image by diffusion",
    "prediction": "Predict the next frames (in the dock Film)",
    "features": "Encode a slide's patches (by the command napari-mamba run)",
    "classification": "Tell images apart",
    "slide": "Score slides (in the dock Slides)",
    "dose": "Predict a dose (in the dock Radiotherapy)",
    "registration": "Register two images (in the dock Register)",
}


class BundlesPanel(QWidget):
    """A tree of the models by task, and what can be done with the chosen one.

    Parameters
    ----------
    napari_viewer : napari viewer
    """

    def __init__(self, napari_viewer: ViewerModel, parent: QWidget | None = None):
        super().__init__(parent)
        self.host = host_of(napari_viewer)
        self.session = self.host.session
        self.library = self.session.library
        self.opener = BundleOpener(self.library, self.host.engine, self)
        self.tree = QTreeWidget()
        self.tree.setHeaderHidden(True)
        self.tree.setRootIsDecorated(False)
        self.tree.setAccessibleName("Models")
        self.tree.setToolTip("The models by their tasks; choose one to read its card")
        self.about = Page()
        self.about.setAccessibleName("About this model")
        self.use = _button("Use", "Choose this model in the dock 'Run a model'", self._on_use)
        self.card = _button("Card", "How good it is, on which data, and where it fails", self._on_card)
        self.add = QPushButton("Import…")
        self.add.setToolTip("Take in a bundle, or a checkpoint of nnU-Net, MONAI or a file of weights")
        self.add.setMenu(open_menu(self.opener, self.add))
        self.remove = _button("Remove…", "Delete this model from your bundle folder", self._on_remove)
        self.folder = _button("Open folder", "Show your bundle folder", self._on_folder)
        self.notice = Notice(self.session.viewer)
        self.importing = self._import_row()
        self._lay_out()
        OwnDock(self)
        self._connect()
        self.draw()

    def _import_row(self) -> QWidget:
        """How far an import is, and a way to end it; hidden while there is none."""
        self.bar = QProgressBar()
        self.bar.setRange(0, 100)
        self.bar.setAccessibleName("Progress of the import")
        self.stop = _button("Cancel", "End the import; nothing of it stays", self.opener.cancel)
        shown = QWidget()
        beside = QHBoxLayout(shown)
        beside.setContentsMargins(0, 0, 0, 0)
        beside.addWidget(self.bar, 1)
        beside.addWidget(self.stop)
        shown.hide()
        return shown

    def _lay_out(self) -> None:
        row = QHBoxLayout()
        for button in (self.use, self.card, self.add, self.remove, self.folder):
            row.addWidget(button)
        layout = QVBoxLayout(self)
        layout.addWidget(self.tree, 2)
        layout.addWidget(self.about, 1)
        layout.addLayout(row)
        layout.addWidget(self.importing)
        layout.addWidget(self.notice)
        self.setMinimumWidth(380)

    def _connect(self) -> None:
        self.tree.currentItemChanged.connect(self._on_current)
        self.tree.itemActivated.connect(lambda *_: self._on_use())
        self.opener.opened.connect(self._on_opened)
        self.opener.failed.connect(lambda text: self.notice.say(sentence(text), "error"))
        self.opener.report.connect(lambda text: self.notice.say(text, "good"))
        self.opener.busy.connect(self._on_busy)
        self.opener.progress.connect(self._on_progress)
        self.opener.cancelling.connect(self._on_cancelling)
        self.library.changed.connect(self._on_library)
        follow_theme(self.session.viewer, self, self._describe)
        library, listener = self.library, self._on_library
        self.destroyed.connect(lambda *_: library.changed.disconnect(listener, missing_ok=True))

    @property
    def current(self) -> Bundle | None:
        """The bundle that is chosen in the tree."""
        item = self.tree.currentItem()
        return item.data(0, Qt.ItemDataRole.UserRole) if item is not None else None

    def draw(self, chosen: Bundle | None = None) -> None:
        """Show the library as it is, with `chosen` chosen, or what was before."""
        kept = chosen or self.current or self.session.bundle
        self.tree.blockSignals(True)
        self.tree.clear()
        for task in tasks_of(self.library.bundles):
            group = QTreeWidgetItem([TASKS.get(task, task)])
            group.setFlags(Qt.ItemFlag.ItemIsEnabled)
            bold = group.font(0)
            bold.setBold(True)
            group.setFont(0, bold)
            self.tree.addTopLevelItem(group)
            for bundle in self.library.bundles:
                if bundle.task != task:
                    continue
                item = QTreeWidgetItem([f"{bundle.name}  {bundle.version}"])
                item.setData(0, Qt.ItemDataRole.UserRole, bundle)
                item.setToolTip(0, tip(bundle.title or bundle.name))
                group.addChild(item)
                if kept is not None and bundle.path == kept.path:
                    self.tree.setCurrentItem(item)
            group.setExpanded(True)
        self.tree.blockSignals(False)
        self._on_current()

    def _on_library(self) -> None:
        self.draw()

    @Slot()
    def _on_current(self, *_: Any) -> None:
        bundle = self.current
        for button in (self.use, self.card):
            button.setEnabled(bundle is not None)
        self.remove.setEnabled(bundle is not None and self.library.removable(bundle))
        self._describe()

    def _describe(self) -> None:
        bundle = self.current
        color = text_color("link", theme_of(self.session.viewer))
        self.about.document().setDefaultStyleSheet(f"a {{ color: {color} }}")
        self.about.setHtml("" if bundle is None else html_of(about(bundle)))

    def _on_use(self) -> None:
        if self.current is not None:
            self.session.choose_bundle(self.current)
            self.notice.say(f"Chosen in the dock 'Run a model': {self.current.name}.", "good")

    def _on_card(self) -> None:
        show_card(self.current, self)

    def _on_opened(self, bundle: Bundle) -> None:
        self.session.choose_bundle(bundle)
        self.draw(bundle)

    def _on_busy(self, busy: bool) -> None:
        self.add.setEnabled(not busy)
        self.importing.setVisible(busy)
        self.stop.setEnabled(True)
        if busy:
            self.bar.setValue(0)
            self.notice.say("Looking into it…")

    def _on_progress(self, what: str, share: float) -> None:
        if self.opener.is_busy:  # the last may come after the end
            self.bar.setValue(int(100 * share))
            if self.stop.isEnabled():
                self.notice.say(f"{what}…")

    def _on_cancelling(self) -> None:
        self.stop.setEnabled(False)
        self.notice.say("Cancelling: the import ends with its next step…")

    def _on_remove(self) -> None:
        bundle = self.current
        if bundle is None:
            return
        asked = QMessageBox.question(self, "Remove a model", f"Delete {bundle.name} from the disk?\n\n{bundle.path}")
        if asked != QMessageBox.StandardButton.Yes:
            return
        try:
            self.library.remove(bundle)
            self.notice.say(f"Removed {bundle.name}.", "good")
        except NapariMambaError as error:
            self.notice.say(sentence(str(error)), "error")

    def _on_folder(self) -> None:
        folder = bundles.user_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self.notice.say(f"The folder cannot be made ({error.strerror}): {folder}", "error")
            return
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(folder)))
        self.notice.say(f"Your bundle folder is {folder}.")


def about(bundle: Bundle) -> str:
    """A bundle in a few lines of Markdown."""
    channels = ", ".join(f"{c.name} ({c.modality})" if c.modality else c.name for c in bundle.channels)
    classes = [c.name for c in bundle.classes if c.index != 0 or bundle.task in ("classification", "slide")]
    lines = [f"**{bundle.title or bundle.name}**", bundle.description, f"Takes: {channels}."]
    if classes:
        lines.append(
            f"Classes: {', '.join(classes[:12])}" + (f" and {len(classes) - 12} more." if classes[12:] else ".")
        )
    if bundle.licence:
        lines.append(f"Licence: {bundle.licence}.")
    lines += [
        f"Network: {bundle.network.name}. Lies in `{bundle.path}`.",
        "**For research only. Not for clinical use.**",
    ]
    return "\n\n".join(line for line in lines if line)


def _button(text: str, tip: str, slot: Any) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    button.clicked.connect(slot)
    return button
