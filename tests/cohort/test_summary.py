"""Outliers, and the page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from napari_mamba.cohort.row import Row
from napari_mamba.cohort.summary.outliers import outlier_scores, robust_z
from napari_mamba.cohort.summary.page import write_summary


class Facts:
    title, name, version = "A <b>bold</b> title", "tiny", "1"


def rows(volumes):
    return [Row(f"case{i}", "done", values={"left": v}, unit="ml") for i, v in enumerate(volumes)]


def test_robust_z_is_the_usual_one_for_normal_values(rng):
    values = rng.normal(50, 4, 20001)
    assert np.allclose(robust_z(values), (values - values.mean()) / values.std(), atol=0.15)


def test_one_value_far_away_is_far_away_however_far():
    assert abs(robust_z(np.array([1.0, 1.1, 0.9, 1.05, 0.95, 1e6]))[-1]) > 1e6
    assert robust_z(np.full(6, 3.0)).tolist() == [0.0] * 6
    assert robust_z(np.array([1.0] * 9 + [2.0]))[-1] == pytest.approx(0.9 / (1.2533 * 0.1), rel=0.2)


def test_only_what_can_be_compared_is():
    odd = Row("pixels", "done", values={"left": 900.0}, unit="1000 voxels")
    failed = Row("failed", "failed")
    scores = outlier_scores([*rows([1, 2, 3, 4, 5]), odd, failed])
    assert set(scores) == {f"case{i}" for i in range(5)}
    assert outlier_scores(rows([1, 2, 3, 4])) == {}


def test_failed_and_odd_cases_stand_first(tmp_path):
    listed = [*rows([10, 11, 9, 10.5, 9.5, 40]), Row("<script>alert(1)</script>", "failed", error="a & b")]
    text = write_summary(listed, tmp_path, Facts).read_text(encoding="utf-8")
    order = re.findall(r'<th scope=row data-value="([^"]*)"', text.replace("\n", ""))
    assert order[0].startswith("&lt;script&gt;")
    assert order[1] == "case5"
    assert "1 failed, 1 outliers" in text
    assert "<script>alert" not in text
    assert "a &amp; b" in text
    assert "A &lt;b&gt;bold" in text


def test_the_page_is_whole_and_asks_for_nothing_else(batch, scans, tmp_path):
    assert batch(scans).code == 0
    text = (tmp_path / "out" / "summary.html").read_text(encoding="utf-8")
    seen = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            seen.extend(value for key, value in attributes if key in ("src", "href"))

    Reader().feed(text)
    assert len(seen) == 3
    assert all(value.startswith("data:image/jpeg;base64,/9j/") for value in seen)
    assert "http" not in re.sub(r'http-equiv="[^"]*"', "", text).replace("data:image", "")
    assert "$" not in text.replace("${", "")
