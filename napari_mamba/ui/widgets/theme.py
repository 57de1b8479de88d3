"""Colours of text that says something: readable in each of napari's themes, wherever it is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QLineEdit, QWidget

if TYPE_CHECKING:
    from napari.components import ViewerModel

LIGHT_TEXT = {
    "error": "#b3261e",
    "warning": "#7a4a00",
    "good": "#1b5e20",
    "link": "#0b57a4",
    "placeholder": "#4e4b48",
    "hint": "",
}
"""On the light theme's background."""
DARK_TEXT = {
    "error": "#ff8a80",
    "warning": "#f0b040",
    "good": "#81c784",
    "link": "#7db8ff",
    "placeholder": "#b9bdc2",
    "hint": "",
}
"""On the dark theme's, and on those of other dark ones."""


def text_color(kind: str, theme: str) -> str:
    """The colour of "error", "warning", "good" or "link" in a theme; empty for what is plain text."""
    return (DARK_TEXT if is_dark(theme) else LIGHT_TEXT).get(kind, "")


def is_dark(theme: str) -> bool:
    """Whether a theme has light text on a dark background."""
    from napari.utils.theme import get_theme

    red, green, blue = get_theme(theme).background.as_rgb_tuple()[:3]
    return 0.299 * red + 0.587 * green + 0.114 * blue < 128


def theme_of(viewer: ViewerModel) -> str:
    """The viewer's theme; "dark" where it has none yet."""
    return str(getattr(viewer, "theme", "dark") or "dark")


class Notice(QLabel):
    """A wrapped, selectable line of text that is coloured by its kind and follows the viewer's theme.

    Parameters
    ----------
    viewer : napari viewer
    """

    def __init__(self, viewer: ViewerModel, parent: QWidget | None = None):
        super().__init__(parent)
        self._viewer = viewer
        self.kind = "hint"
        self.setWordWrap(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setTextFormat(Qt.TextFormat.PlainText)
        follow_theme(viewer, self, self._color)
        self.hide()

    def say(self, text: str, kind: str = "hint") -> None:
        """Show a text, or nothing; a sentence begins with a capital, a path stays as it is."""
        self.kind = kind
        self.setText(text[:1].upper() + text[1:] if text.partition(" ")[0].rstrip(":,").isalpha() else text)
        self._color()
        self.setVisible(bool(text))

    def fail(self, text: str) -> None:
        """Show an error."""
        self.say(text, "error")

    def _color(self) -> None:
        color = text_color(self.kind, theme_of(self._viewer))
        self.setStyleSheet(f"color: {color}" if color else "")


def show_when_empty(edit: QLineEdit, text: str, viewer: ViewerModel) -> None:
    """Say in an empty field what counts then: fainter than what is typed, and still readable in each theme.

    Parameters
    ----------
    edit : QLineEdit
    text : str
    viewer : napari viewer
        Whose theme it follows.
    """
    edit.setPlaceholderText(text)

    def color() -> None:
        edit.setStyleSheet(f"QLineEdit {{ placeholder-text-color: {text_color('placeholder', theme_of(viewer))} }}")

    follow_theme(viewer, edit, color)
    color()


def follow_theme(viewer: ViewerModel, widget: QWidget, callback: Any) -> None:
    """Call `callback` when the viewer's theme changes, for as long as the widget is there."""
    event = getattr(viewer.events, "theme", None)
    if event is None:
        return

    def changed(_: Any = None) -> None:
        callback()

    event.connect(changed)
    widget.destroyed.connect(lambda: event.disconnect(changed))
