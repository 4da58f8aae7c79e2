"""Tables: for the terminal through Rich, as Markdown, and as CSV.

Example:
    >>> table = Table(("network", "rmse"), "lr")
    >>> table.add("small", 0.51234)
    >>> table.add("large", 0.4)
    >>> print(table.markdown())
    | network | rmse |
    | --- | ---: |
    | small | 0.5123 |
    | large | 0.4000 |
"""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

WIDTH = 100
"""Columns of a table that is printed to a file or pipe."""


class Row(NamedTuple):
    """A row's cells, and its style: plain, ``bold`` or ``dim``."""

    cells: tuple[str | float | None, ...]
    style: str


@dataclass
class Table:
    """Rows of text and numbers, in sections that a line sets apart.

    Attributes:
        columns: Their names.
        align: A letter for each column: ``l`` or ``r``.
        title: The line above it.
        form: Writes a number.
        sections: The rows. A number that is None or NaN is blank.
    """

    columns: Sequence[str]
    align: str
    title: str = ""
    form: Callable[[float], str] = "{:.4f}".format
    sections: list[list[Row]] = field(default_factory=list)

    def section(self) -> None:
        """Start another section."""
        self.sections.append([])

    def add(self, *cells: str | float | None, style: str = "") -> None:
        """Add a row to the last section."""
        if not self.sections:
            self.section()
        self.sections[-1].append(Row(cells, style))

    def write(self, cell: str | float | None) -> str:
        """Return a cell as text."""
        if isinstance(cell, str):
            return cell
        return "" if cell is None or math.isnan(cell) else self.form(cell)

    def markdown(self) -> str:
        """Return it as Markdown, without its title."""
        rule = ["---:" if side == "r" else "---" for side in self.align]
        rows = [[self.write(cell).replace("|", "\\|") for cell in row.cells] for rows in self.sections for row in rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in (self.columns, rule, *rows))

    def __rich__(self) -> RichTable:
        """Return it as Rich prints it."""
        between = 1 if len(self.columns) < 10 else 0  # nine metrics fit a terminal of 80
        title = Text(self.title) if self.title else None
        table = RichTable(title=title, box=box.SIMPLE_HEAD, padding=(0, between, 0, 0), show_edge=False)
        for name, side in zip(self.columns, self.align, strict=True):
            right = side == "r"
            header = Text(name.replace("_", "_\n") if right else name)
            table.add_column(header, justify="right" if right else "left", no_wrap=right, overflow="fold")
        for rows in self.sections:
            for row in rows:
                table.add_row(*map(Text, map(self.write, row.cells)), style=row.style or None)
            table.add_section()
        return table

    def text(self, width: int | None = WIDTH) -> str:
        """Return it as the terminal shows it, in ``width`` columns (None: the terminal's), without colors."""
        text = io.StringIO()
        Console(file=text, width=width).print(self)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def print(self) -> None:
        """Print it."""
        Console(width=None if sys.stdout.isatty() else WIDTH).print(self)


def to_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as CSV, numbers to full precision; a value that a row lacks is empty.

    Example:
        >>> to_csv([{"epoch": 0, "loss": 0.5}, {"epoch": 1, "lr": 0.1}])
        'epoch,loss,lr\\n0,0.5,\\n1,,0.1\\n'
    """
    rows, text = list(rows), io.StringIO()
    columns = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def interval_in_words(low: float, high: float, form: str = ".4f") -> str:
    """Return the ends of an interval; empty where there is none.

    Example:
        >>> interval_in_words(0.25, 0.5), interval_in_words(math.nan, math.nan)
        ('[0.2500, 0.5000]', '')
    """
    return "" if math.isnan(low) else f"[{low:{form}}, {high:{form}}]"


def count_in_words(images: int, expected: int) -> str:
    """Return how many images were evaluated, and of how many where those are not all.

    Example:
        >>> count_in_words(96, 96), count_in_words(16, 96)
        ('96 images', '16 of 96 images')
    """
    return f"{images} images" if images == expected else f"{images} of {expected} images"
