"""The dialog "A computer elsewhere": its address, where its token lies, and the user's consent."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import (
    QCheckBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_mamba.errors import NapariMambaError
from napari_mamba.server.client.connection import Connection, checked_address, is_this_computer
from napari_mamba.server.client.known import VARIABLE, Server
from napari_mamba.ui.run.process.outcome import sentence
from napari_mamba.ui.widgets.background import Background
from napari_mamba.ui.widgets.forms import row_label
from napari_mamba.ui.widgets.theme import Notice, show_when_empty

HELP = (
    "On the other computer, start <code>napari-mamba serve</code>. Its token is read from a file, or from the variable "
    f"<code>{VARIABLE}</code>; it is not kept here."
)


class ElsewhereDialog(QDialog):
    """Asks for a server; `server` is what was named, with the consent given.

    Parameters
    ----------
    viewer : napari viewer
        Whose theme colours what is said.
    """

    def __init__(self, viewer: Any, parent: QWidget | None = None):
        super().__init__(parent)
        self.setWindowTitle("Run on a computer elsewhere")
        self.address = QLineEdit()
        show_when_empty(self.address, "https://host:8471", viewer)
        self.token_file = QLineEdit()
        show_when_empty(self.token_file, "only where the server asks for a token", viewer)
        browse = QPushButton("Choose…")
        browse.setToolTip("Choose the file whose first line is the token")
        browse.clicked.connect(self._browse)
        self.consent = QCheckBox("Send images there")
        self.about = QLabel()
        self.about.setWordWrap(True)
        self.notice = Notice(viewer)
        row = QHBoxLayout()
        row.addWidget(self.token_file, 1)
        row.addWidget(browse)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        for title, widget, field in (("Address", self.address, self.address), ("Token file", row, self.token_file)):
            label = row_label(title)
            label.setBuddy(field)
            field.setAccessibleName(title)
            form.addRow(label, widget)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self.test_button = buttons.addButton("Test", QDialogButtonBox.ButtonRole.ActionRole)
        self.test_button.setToolTip("Ask the server for its version and its models; no image is sent")
        self.use_button = buttons.addButton("Use", QDialogButtonBox.ButtonRole.AcceptRole)
        self.test_button.clicked.connect(self.test)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        text = QLabel(HELP)
        text.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.addWidget(text)
        layout.addLayout(form)
        for one in (self.about, self.consent, self.notice, buttons):
            layout.addWidget(one)
        self.setMinimumWidth(460)
        self._background = Background(self)
        self.address.textChanged.connect(self._draw)
        self.consent.toggled.connect(self._draw)
        self._draw()

    @property
    def server(self) -> Server:
        """What is named now.

        Raises
        ------
        InputError
            If the address is none.
        """
        return Server(checked_address(self.address.text()), self.token_file.text().strip(), self.consent.isChecked())

    def test(self) -> None:
        """Ask the server what it is, in the background, and say so."""
        try:
            server = self.server
        except NapariMambaError as error:
            self.notice.say(sentence(str(error)), "error")
            return
        self.notice.say("Asking…")
        self.test_button.setEnabled(False)
        self._background.ask(lambda: _ask(server), self._on_tested)

    def _on_tested(self, answer: tuple[str, str] | None) -> None:
        self.test_button.setEnabled(True)
        self.notice.say(*(answer or ("The server's answer cannot be read.", "error")))

    def _draw(self, *_: Any) -> None:
        try:
            address = checked_address(self.address.text())
        except NapariMambaError:
            address = ""
        local = bool(address) and is_this_computer(address)
        if local:
            said = "This address is this computer: nothing leaves it."
        else:
            where = address or "the server"
            said = f"The images of your runs are sent to {where} and computed there, and of a table's row what a model "
            said += "takes. The answer comes back; the server deletes both."
            if address.startswith("http:"):
                said += " <b>The connection is not encrypted:</b> others on the way can read the images and the token."
        self.about.setText(said)
        self.consent.setVisible(not local)
        self.use_button.setEnabled(bool(address) and (local or self.consent.isChecked()))

    def _browse(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "The file with the token")
        if path:
            self.token_file.setText(path)


def _ask(server: Server) -> tuple[str, str]:
    try:
        connection = Connection(server.address, server.token())
        health = connection.ask("GET", "/healthz")
        if not isinstance(health, dict) or health.get("service") != "napari-mamba":
            return "There is no server of napari-mamba at this address.", "error"
        models = connection.ask("GET", "/v1/models")
        devices = ", ".join(str(one["device"]) for one in connection.ask("GET", "/v1/devices"))
        return f"It answers: version {health.get('version')}, {len(models)} models, devices {devices}.", "good"
    except NapariMambaError as error:
        return sentence(str(error)), "error"
