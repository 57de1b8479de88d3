"""Text that says something can be read in each theme, and follows it."""

from __future__ import annotations

import pytest
from napari.components import ViewerModel
from napari.utils.theme import get_theme
from qtpy.QtGui import QColor

from napari_mamba.ui.run.views.model_view import summary
from napari_mamba.ui.widgets.theme import DARK_TEXT, LIGHT_TEXT, Notice, is_dark, text_color


def luminance(color: str) -> float:
    """WCAG 2.2, relative luminance."""
    channels = [part / 255 for part in QColor(color).getRgb()[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_the_measure_is_that_of_wcag():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["error", "warning", "good", "link", "placeholder"])
def test_every_coloured_text_has_a_contrast_of_four_and_a_half(theme, kind):
    color = text_color(kind, theme)
    for surface in ("background", "foreground", *(["primary"] if kind == "placeholder" else [])):
        on = get_theme(theme).__getattribute__(surface).as_hex("long")
        assert contrast(color, on) >= 4.5, (theme, kind, surface)


def test_a_theme_is_told_by_its_background():
    assert is_dark("dark")
    assert not is_dark("light")
    assert set(DARK_TEXT) == set(LIGHT_TEXT)


def test_a_notice_follows_the_theme(qtbot):
    viewer = ViewerModel()
    viewer.theme = "dark"
    notice = Notice(viewer)
    qtbot.addWidget(notice)
    notice.say("No.", "error")
    assert DARK_TEXT["error"] in notice.styleSheet()
    viewer.theme = "light"
    assert LIGHT_TEXT["error"] in notice.styleSheet()
    notice.say("")
    assert notice.isHidden()


def test_the_link_of_the_summary_has_the_themes_colour(tiny):
    assert LIGHT_TEXT["link"] in summary(tiny, text_color("link", "light"))
