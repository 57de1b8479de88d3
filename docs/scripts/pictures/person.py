"""Somebody at the window: reads menus and buttons, clicks what can be clicked, and takes pictures of the screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
from PIL import Image
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QImage
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton, QApplication, QComboBox, QMenu, QScrollArea, QTabBar, QWidget

from benchmarks.ui import driving

SIZE = (1280, 800)
FRAME = (800, 500)
LIMIT_S = 900
PATIENCE_S = 60
"""A person who finds a button greyed out waits for so long."""


class NotThere(SystemExit):
    """What the text tells a reader to click is not in the window, or cannot be clicked."""


class Person:
    """One window, and what is done in it as a reader of the documentation would.

    Parameters
    ----------
    folder : Path
        Where pictures go.
    theme : str
        "dark" or "light".
    """

    def __init__(self, folder: Path, theme: str = "dark"):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.frames: list[tuple[Image.Image, int]] = []
        self.filming = False
        self.viewer = napari.Viewer(show=True)
        self.viewer.theme = theme
        self.window.move(0, 0)
        self.window.resize(*SIZE)
        driving.settle(2)

    @property
    def window(self) -> Any:
        """napari's main window."""
        return self.viewer.window._qt_window

    # ---- clicking

    def menu(self, *titles: str, shown: str = "") -> None:
        """Go through the menu bar to an entry and choose it; `shown` names a picture with the menus open."""
        menu: Any = self.window.menuBar()
        opened: list[QMenu] = []
        for depth, title in enumerate(titles):
            entries = [entry for entry in menu.actions() if _plain(entry.text()).startswith(title)]
            if not entries or not (entries[0].isVisible() and entries[0].isEnabled()):
                there = ", ".join(_plain(entry.text()) for entry in menu.actions())
                raise NotThere(
                    f"no entry {title!r} to choose in {' > '.join(titles[:depth]) or 'the menu bar'}: {there}"
                )
            entry = entries[0]
            if entry.menu() is None:
                self._look(opened, entry, shown)
                entry.trigger()
            else:
                place = menu.mapToGlobal(
                    menu.actionGeometry(entry).bottomLeft() if depth == 0 else _beside(menu, entry)
                )
                menu = entry.menu()
                menu.aboutToShow.emit()
                if shown or self.filming:
                    menu.popup(place)
                    driving.settle(0.2)
                    opened.append(menu)
        driving.settle(0.3)
        self.film()

    def _look(self, opened: list[QMenu], entry: Any, shown: str) -> None:
        if opened:
            opened[-1].setActiveAction(entry)
            driving.settle(0.3)
            self.film(900)
            if shown:
                self.picture(shown)
            for menu in reversed(opened):
                menu.close()

    def button(self, text: str, within: QWidget | None = None) -> QAbstractButton:
        """The button that can be seen with a text."""
        found = [one for one in (within or self.window).findChildren(QAbstractButton) if _plain(one.text()) == text]
        for one in found:
            self.reveal(one)
            if one.isVisible() and not one.visibleRegion().isEmpty():
                return one
        raise NotThere(f"no button {text!r} is shown" + (": it is folded away" if found else ""))

    def click(self, what: str | QWidget, within: QWidget | None = None) -> None:
        """Click a button, by its text or itself; it is scrolled into view, as a person would."""
        button = self.button(what, within) if isinstance(what, str) else what
        try:
            driving.wait(button.isEnabled, PATIENCE_S)
        except SystemExit as late:
            self.picture("problem")
            raise NotThere(f"{button.text()!r} cannot be clicked: it is greyed out") from late
        self.reveal(button)
        QTest.mouseClick(
            button, Qt.MouseButton.LeftButton, pos=QPoint(min(12, button.width() // 2), button.height() // 2)
        )
        driving.settle(0.3)
        self.film()

    def reveal(self, widget: QWidget) -> None:
        """Scroll until a widget can be seen."""
        parent = widget.parentWidget()
        while parent is not None:
            if isinstance(parent, QScrollArea):
                parent.ensureWidgetVisible(widget)
            parent = parent.parentWidget()
        driving.settle(0.1)

    def choose(self, combo: QComboBox, text: str) -> None:
        """Choose an entry of a list."""
        index = next((i for i in range(combo.count()) if combo.itemText(i).startswith(text)), -1)
        if index < 0:
            raise NotThere(f"{text!r} is not in the list {[combo.itemText(i) for i in range(combo.count())]}")
        self.reveal(combo)
        combo.setCurrentIndex(index)
        combo.activated.emit(index)
        driving.settle(0.3)
        self.film()

    def tab(self, text: str) -> None:
        """Click a tab."""
        for bar in self.window.findChildren(QTabBar):
            for i in range(bar.count()):
                if bar.isVisible() and _plain(bar.tabText(i)).startswith(text):
                    QTest.mouseClick(bar, Qt.MouseButton.LeftButton, pos=bar.tabRect(i).center())
                    driving.settle(0.5)
                    self.film()
                    return
        raise NotThere(f"no tab {text!r} is shown")

    def wait(self, until: Callable[[], Any], every_s: float = 1.0) -> None:
        """Wait for the program, with frames meanwhile when it is filmed."""
        if self.filming:
            while not until():
                driving.settle(every_s)
                self.film(250)
        driving.wait(until, LIMIT_S)

    # ---- the plugin

    def dock(self) -> Any:
        """The widget of the dock "Run a model", as soon as it is ready."""
        from napari_mamba.ui.run.dock import RunDock

        docks = [one for one in self.viewer.window.dock_widgets.values() if isinstance(one, RunDock)]
        if not docks:
            raise NotThere("the dock did not open")
        return driving.ready(docks[0])

    def run(self) -> Any:
        """Click Run, and wait for the layers; returns the widget of the dock."""
        dock = self.dock()
        driving.wait(dock.run_button.isEnabled)
        self.click(dock.run_button)
        self.wait(lambda: not (dock.session.queue.busy or dock.host.runner.running or dock.host.adding))
        driving.settle(1)
        if dock.message.kind == "error":
            raise NotThere(f"the run failed: {dock.message.text()}")
        self.film(1500)
        return dock

    # ---- pictures

    def screen(self) -> Image.Image:
        """The screen as it is."""
        QApplication.processEvents()
        shot = QApplication.primaryScreen().grabWindow(0, 0, 0, *SIZE).toImage()
        shot = shot.convertToFormat(QImage.Format.Format_RGB888)
        rows = bytes(shot.constBits())
        return Image.frombytes("RGB", (shot.width(), shot.height()), rows, "raw", "RGB", shot.bytesPerLine())

    def picture(self, name: str, box: tuple[int, int, int, int] | None = None) -> None:
        """Save the screen, or a part of it."""
        shot = self.screen()
        path = self.folder / f"{name}.png"
        (shot.crop(box) if box else shot).save(path, optimize=True)
        print(path, f"{path.stat().st_size / 1000:.0f} kB", flush=True)

    def film(self, milliseconds: int = 500) -> None:
        """Keep the screen as a frame, while it is filmed."""
        if self.filming:
            self.frames.append((self.screen().resize(FRAME, Image.Resampling.LANCZOS), milliseconds))

    def save_film(self, path: Path, colours: int = 256) -> None:
        """Write the frames as an animated GIF that repeats, with one palette."""
        kept: list[tuple[Image.Image, int]] = []
        for shot, milliseconds in self.frames:
            if kept and kept[-1][0].tobytes() == shot.tobytes():
                kept[-1] = (shot, min(kept[-1][1] + milliseconds, 2000))
            else:
                kept.append((shot, milliseconds))
        strip = Image.new("RGB", (FRAME[0], FRAME[1] * len(kept)))
        for i, (shot, _) in enumerate(kept):
            strip.paste(shot, (0, i * FRAME[1]))
        palette = strip.quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)  # keeps rare colours
        pictures = [shot.quantize(palette=palette, dither=Image.Dither.NONE) for shot, _ in kept]
        times = [milliseconds for _, milliseconds in kept]
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=times, loop=0, optimize=False)
        print(path, f"{len(pictures)} frames, {path.stat().st_size / 1e6:.2f} MB", flush=True)

    def leave(self) -> None:
        """Close the window."""
        self.viewer.close()
        driving.settle(0.2)


def _plain(text: str) -> str:
    return text.replace("&", "")


def _beside(menu: QMenu, entry: Any) -> QPoint:
    return menu.actionGeometry(entry).topRight()
