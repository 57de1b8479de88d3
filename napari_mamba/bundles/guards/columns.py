"""The field "columns" of `bundle.json`: what of a table's row a network takes beside the image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from napari_mamba.bundles.description.fields import Fields
from napari_mamba.errors import BundleError, InputError
from napari_mamba.io.common.guard import quoted

_MOST_COLUMNS, _MOST_VALUES = 256, 1024


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes
    ----------
    name : str
        Its heading.
    values : tuple of str
        Of a category, in the network's order; empty for a number.
    mean, std : float
        Of a number over the people of the training, by which it is standardised.
    """

    name: str
    values: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0


def columns_of(items: Sequence[Fields]) -> tuple[Column, ...]:
    """The field, read; raises `BundleError` where a part of it is missing or of the wrong type."""
    return tuple(
        Column(one.text("name"), one.texts("values", ()), float(one.number("mean", 0.0)), float(one.number("std", 1.0)))
        for one in items
    )


def check_columns(spec: Any) -> None:
    """Raise `BundleError` where a bundle's columns are not those of its network."""
    columns, arguments = spec.columns, spec.network.arguments
    wanted = ("categories" in arguments or "num_continuous" in arguments) and "generator" in arguments
    if wanted and not columns:
        raise BundleError(
            f"bundle {spec.name}: its network takes a row of a table beside the image: say which columns, categories "
            "with their values first, then numbers (the field 'columns')"
        )
    if columns and not wanted:
        raise BundleError(f"bundle {spec.name}: its network takes no row of a table: leave the field 'columns' out")
    if not columns:
        return
    if spec.task != "classification" or len(columns) > _MOST_COLUMNS:
        raise BundleError(f"bundle {spec.name}: a classification takes a row of at most {_MOST_COLUMNS} columns")
    names = [_plain(one.name) for one in columns]
    if not all(names) or len(set(names)) < len(names):
        raise BundleError(f"bundle {spec.name}: each column has a name of its own")
    for one in columns:
        known = [_plain(value) for value in one.values]
        if len(set(known)) < len(known) or len(known) > _MOST_VALUES or not one.std > 0 or not math.isfinite(one.mean):
            raise BundleError(
                f"bundle {spec.name}: the column {quoted(one.name)} has different values, or a mean and a std above 0"
            )
    sizes = [len(one.values) for one in columns if one.values]
    numbers = len(columns) - len(sizes)
    if sizes != list(arguments.get("categories", ())) or numbers != arguments.get("num_continuous", 0):
        raise BundleError(
            f"bundle {spec.name}: lists categories of {sizes} values and {numbers} numbers, its network has others"
        )


def encoded(bundle: Any, row: Mapping[str, str] | None) -> tuple[list[int], list[float]]:
    """A row as the bundle's network takes it: which value each category has, and the standardised numbers.

    Parameters
    ----------
    bundle : BundleSpec
        With `columns`.
    row : mapping of str to str, optional
        Cells by the headings of their columns, which may be more than the bundle takes.

    Raises
    ------
    InputError
        If there is no row, or a cell is missing or says what the network does not know.
    """
    names = ", ".join(one.name for one in bundle.columns)
    if row is None:
        raise InputError(
            f"{bundle.name} takes a row of a table beside the image, with the columns {names}: name the table (CSV) "
            "among the options"
        )
    cells = {_plain(heading): str(cell).strip() for heading, cell in row.items()}
    categories: list[int] = []
    numbers: list[float] = []
    for one in bundle.columns:
        if not (cell := cells.get(_plain(one.name), "")):
            raise InputError(f"the row of the table says nothing of {quoted(one.name)}: {bundle.name} takes {names}")
        if one.values:
            categories.append(_category(one, cell, bundle.name))
        else:
            numbers.append((_number(one, cell) - one.mean) / one.std)
    return categories, numbers


def taken(bundle: Any, row: Mapping[str, str]) -> dict[str, str]:
    """The cells that a bundle takes, and no others: a table may say more of a person than the network asks.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> taken(SimpleNamespace(columns=(Column("Age"),)), {"name": "Doe", "age": "71"})
    {'age': '71'}
    """
    wanted = {_plain(one.name) for one in bundle.columns}
    return {heading: cell for heading, cell in row.items() if _plain(heading) in wanted}


def _category(column: Column, cell: str, name: str) -> int:
    known = [_plain(value) for value in column.values]
    if _plain(cell) in known:
        return known.index(_plain(cell))
    try:  # spreadsheets write 1 as 1.0
        whole = f"{float(cell):g}"
    except ValueError:
        whole = ""
    if whole in known:
        return known.index(whole)
    raise InputError(
        f"the table says {quoted(column.name)} is {quoted(cell)}, which {name} does not know: it knows "
        f"{', '.join(column.values[:20])}"
    )


def _number(column: Column, cell: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"the table says {quoted(column.name)} is {quoted(cell)}: give one number")
    return number


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
