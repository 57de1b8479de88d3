"""Volumes per class and scores of a classification: table nodes with units, and bar plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .scene import add_node


def class_table(rows: Sequence[Mapping[str, Any]], name: str, in_pixels: bool = False) -> Any:
    """A table node of the classes' volumes; classes without a voxel are listed with 0.

    Parameters
    ----------
    rows : sequence of mapping
        The `table` of a result event.
    name : str
    in_pixels : bool
        The input has no voxel size: volumes are thousands of voxels.
    """
    unit = "1000 voxels" if in_pixels else "ml"
    table = add_node("vtkMRMLTableNode", name)
    _text_column(table, "class", [row["name"] for row in rows])
    _number_column(table, "voxels", [row["voxels"] for row in rows], whole=True)
    _number_column(table, "volume", [row["ml"] for row in rows])
    _number_column(table, "mean intensity", [_or_nan(row.get("mean_intensity")) for row in rows])
    _text_column(table, "code", [row.get("code") or "" for row in rows])
    _text_column(table, "side", [row.get("laterality") or "" for row in rows])
    table.SetColumnUnitLabel("volume", unit)
    table.SetColumnTitle("volume", f"volume ({unit})")
    return table


def score_table(scores: Mapping[str, float], name: str) -> Any:
    """A table node of a classification: a class and its probability a row."""
    table = add_node("vtkMRMLTableNode", name)
    _text_column(table, "class", list(scores))
    _number_column(table, "probability", list(scores.values()))
    table.SetColumnTitle("probability", "probability (0 to 1)")
    return table


def frames_table(along: str, unit: str, values: Sequence[str], ml: Mapping[str, Sequence[float]], name: str) -> Any:
    """A table node of a sequence: a row a frame, the frame's index value and the volume of each class in ml."""
    table = add_node("vtkMRMLTableNode", name)
    numbers = [_number(value) for value in values]
    _number_column(table, along, [row if value is None else value for row, value in enumerate(numbers)])
    table.SetColumnUnitLabel(along, unit)
    for column, curve in ml.items():
        _number_column(table, column, curve)
        table.SetColumnUnitLabel(column, "ml")
        table.SetColumnTitle(column, f"{column} (ml)")
    return table


def beat_table(rows: Sequence[tuple[str, float, str]], name: str) -> Any:
    """A table node of the numbers of a beat: name, value, unit."""
    table = add_node("vtkMRMLTableNode", name)
    _text_column(table, "name", [row[0] for row in rows])
    _number_column(table, "value", [row[1] for row in rows])
    _text_column(table, "unit", [row[2] for row in rows])
    return table


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def number_table(columns: Mapping[str, Sequence[float]], name: str) -> Any:
    """A table node of numbers, a column each."""
    table = add_node("vtkMRMLTableNode", name)
    for column, values in columns.items():
        _number_column(table, column, values)
    return table


def line_plot(table: Any, along: str, columns: Sequence[str], unit: str = "") -> Any:
    """A chart node with a line for each of some columns over the column `along`."""
    chart = add_node("vtkMRMLPlotChartNode", f"{table.GetName()} chart")
    for column in columns:
        series = add_node("vtkMRMLPlotSeriesNode", f"{table.GetName()} {column}")
        series.SetName(column if len(columns) > 1 else series.GetName())
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetPlotType(series.PlotTypeScatter)
        series.SetXColumnName(along)
        series.SetYColumnName(column)
        series.SetMarkerStyle(series.MarkerStyleNone)
        series.SetUniqueColor()
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
    chart.SetTitle(table.GetName())
    chart.SetXAxisTitle(along)
    chart.SetYAxisTitle(unit or (columns[0] if len(columns) == 1 else ""))
    chart.SetLegendVisibility(len(columns) > 1)
    return chart


def bar_plot(table: Any, column: str, title: str) -> Any:
    """A chart node with one bar a class."""
    series = add_node("vtkMRMLPlotSeriesNode", f"{table.GetName()} {column}")
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetPlotType(series.PlotTypeBar)
    series.SetLabelColumnName("class")
    series.SetYColumnName(column)
    series.SetUniqueColor()
    chart = add_node("vtkMRMLPlotChartNode", f"{table.GetName()} chart")
    chart.AddAndObservePlotSeriesNodeID(series.GetID())
    chart.SetTitle(table.GetName())
    chart.SetYAxisTitle(title)
    chart.SetLegendVisibility(False)
    return chart


def _text_column(table: Any, name: str, values: Sequence[str]) -> None:
    import vtk

    column = vtk.vtkStringArray()
    column.SetName(name)
    for value in values:
        column.InsertNextValue(str(value))
    table.AddColumn(column)


def _number_column(table: Any, name: str, values: Sequence[float], whole: bool = False) -> None:
    import vtk

    column = vtk.vtkIntArray() if whole else vtk.vtkDoubleArray()
    column.SetName(name)
    for value in values:
        column.InsertNextValue(int(value) if whole else float(value))
    table.AddColumn(column)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else float(value)
