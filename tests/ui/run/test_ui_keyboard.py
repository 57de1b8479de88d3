"""Everything can be reached by Tab in the order in which it is read, and has a name for a screen reader."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QAbstractButton, QApplication, QComboBox, QLabel, QLineEdit, QTableView, QWidget


def tab_order(qtbot, widget) -> list[QWidget]:
    """What has the focus, Tab by Tab, from the first part of the widget until it comes round."""
    widget.resize(420, 1400)
    widget.show()
    widget.activateWindow()
    qtbot.waitExposed(widget)
    first = widget.model.combo
    first.setFocus()
    qtbot.waitUntil(lambda: first.hasFocus(), timeout=20_000)
    seen: list[QWidget] = []
    while QApplication.focusWidget() not in seen[:-1]:
        focused = QApplication.focusWidget()
        if focused not in seen:  # a text's links are each a stop of their own
            seen.append(focused)
        qtbot.keyClick(focused, Qt.Key.Key_Tab)
        assert len(seen) < 60
    return seen


def top(widget, part: QWidget) -> tuple[int, int]:
    at = part.mapTo(widget, QPoint(0, 0))
    return at.y() // 12, at.x()


def test_tab_goes_through_everything_in_reading_order(qtbot, widget):
    widget.options.folded.expand(animate=False)
    qtbot.wait(50)
    order = tab_order(qtbot, widget)
    wanted = [
        widget.model.combo,
        widget.model.more,
        widget.model.summary,
        *widget.channels.combos,
        widget.options.device,
        widget.options.folded.toggleButton(),
        widget.run_button,
    ]
    assert [one for one in order if one in wanted] == wanted
    inside = [part for part in order if widget.isAncestorOf(part)]
    assert [top(widget, part) for part in inside] == sorted(top(widget, part) for part in inside)


def test_nothing_that_can_be_used_is_left_out(qtbot, widget):
    widget.options.folded.expand(animate=False)
    qtbot.wait(50)
    order = tab_order(qtbot, widget)
    for kind in (QAbstractButton, QComboBox, QLineEdit):
        for part in widget.findChildren(kind):
            inner = part.parent() is not None and isinstance(part.parent(), QComboBox | QLineEdit)
            if part.isVisible() and part.isEnabled() and not inner:
                assert part in order, part.accessibleName() or part.objectName()


def test_everything_has_a_name_and_says_what_it_does(widget):
    for kind in (QComboBox, QLineEdit):
        for part in widget.findChildren(kind):
            if isinstance(part.parent(), QComboBox):
                continue
            assert part.accessibleName(), part
            assert part.toolTip(), part.accessibleName()
    for button in widget.findChildren(QAbstractButton):
        if not isinstance(button.parent(), QLineEdit | QTableView):  # those are Qt's own
            assert button.text() or button.accessibleName()
            assert button.toolTip(), button.text()


def test_a_name_beside_a_list_is_that_lists(widget):
    buddies = [label.buddy() for label in widget.findChildren(QLabel) if label.buddy() is not None]
    assert widget.options.device in buddies
    assert widget.channels.combos[0] in buddies


@pytest.mark.parametrize("channels", [2, 1])
def test_the_order_holds_after_another_model(qtbot, widget, channels):
    widget.session.choose_bundle(widget.session.library.find("tiny-two"))
    if channels == 1:
        widget.session.choose_bundle(widget.session.library.find("tiny"))
    order = tab_order(qtbot, widget)
    inside = [part for part in order if widget.isAncestorOf(part)]
    assert [part for part in inside if part in widget.channels.combos] == widget.channels.combos
    assert [top(widget, part) for part in inside] == sorted(top(widget, part) for part in inside)
    assert widget.options.precision not in order, "it is folded away"
