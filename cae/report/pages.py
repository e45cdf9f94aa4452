"""Text, tables and pictures as one HTML file that needs no other file, and no script.

Pictures are embedded, and a Content Security Policy (https://www.w3.org/TR/CSP3/) forbids scripts
and the network. The template escapes every text, because the names of files, classes and
experiments can come from untrusted files.
"""

import base64
import hashlib
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from cae.errors import DataError, UsageError
from cae.files import FIGURE_DPI, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent / "templates"
# Marks a file as one that may be overwritten.
GENERATOR = "experiments.py report"
PIXELS_PER_INCH = 96  # of CSS, whatever the screen
PHONE_WIDTH = 42  # characters that a row of a table may have on a phone of 390 pixels
DIGITS = 4  # significant ones, of the median of a column
MAX_DECIMALS = 6
NOTHING = "–"


# The blocks of a page: a text is a paragraph, a dict shows names with their values, a list pictures
# side by side where there is room; and the classes below.


class Lead(str):
    """A paragraph that stands out."""


class KeyFacts(dict):
    """Names with their values, shown large."""


class Code(str):
    """Lines in a fixed-width font: commands, JSON."""


@dataclass(frozen=True)
class Table:
    """Columns by their headings; the first one names the rows.

    Numbers get equal decimals and are aligned to the right; None and NaN are shown as a dash.
    """

    caption: str
    columns: dict[str, list[Any]]  # one value per row
    mark: str = ""  # a label for the first row
    numeric: tuple[str, ...] = ()  # columns of texts that are aligned as numbers are

    @classmethod
    def from_rows(cls, caption: str, headings: Sequence[str], rows: Iterable[tuple]) -> "Table":
        """A table by its rows."""
        rows = list(rows)
        return cls(caption, {name: [row[n] for row in rows] for n, name in enumerate(headings)})

    def is_numeric(self, heading: str) -> bool:
        """Whether a column is aligned to the right."""
        known = [value for value in self.columns[heading] if value is not None]
        return heading in self.numeric or (
            bool(known) and all(isinstance(value, int | float) for value in known)
        )

    @property
    def is_wide(self) -> bool:
        """Whether a phone shows each row as a list, because its columns do not fit."""
        return sum(self._widths.values()) + 2 * len(self.columns) > PHONE_WIDTH

    @property
    def classes(self) -> dict[str, str]:
        """How the template shows each column: `number`, `long` (a line of its own), or neither."""
        widths = self._widths
        return {
            heading: "number"
            if self.is_numeric(heading)
            else "long" * (widths[heading] > PHONE_WIDTH / 3)
            for heading in self.columns
        }

    @property
    def _widths(self) -> dict[str, int]:
        """The longest cell, or word of the heading, of each column."""
        rows = self.rows
        return {
            heading: max(map(len, (*heading.split(), *(row[heading] for row in rows))), default=0)
            for heading in self.columns
        }

    @property
    def rows(self) -> list[dict[str, str]]:
        """The cells by their headings, as they are shown."""
        cells = zip(*map(format_column, self.columns.values()), strict=True)
        return [dict(zip(self.columns, row, strict=True)) for row in cells]


@dataclass(frozen=True)
class Picture:
    """A picture inside the page, which has no other files."""

    source: str  # its data URL
    size: tuple[int, int]  # width and height in CSS pixels
    caption: str
    description: str  # what it shows, for people who do not see it


@dataclass(frozen=True)
class Folded:
    """Blocks that a click on their title opens; paper has only those that are open."""

    title: str
    blocks: list[Any]


@dataclass(frozen=True)
class Section:
    """A heading, its blocks, and sections below it."""

    title: str
    blocks: list[Any] = field(default_factory=list)
    sections: list["Section"] = field(default_factory=list)


@dataclass(frozen=True)
class Page:
    """A title, a line below it, the blocks that answer first, and sections."""

    title: str
    subtitle: str
    answer: list[Any]
    sections: list[Section]


def format_column(values: list[Any]) -> list[str]:
    """The texts of a column: its numbers with equal decimals, so that they compare at a glance."""
    sizes = [abs(value) for value in values if isinstance(value, float) and math.isfinite(value)]
    typical = median(filter(None, sizes)) if any(sizes) else 1.0
    decimals = max(0, min(MAX_DECIMALS, DIGITS - 1 - math.floor(math.log10(typical))))
    return [_format(value, decimals) for value in values]


def _format(value: Any, decimals: int) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    if isinstance(value, float):
        return f"{value:,.{decimals}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def draw(figure: "Figure", caption: str, description: str) -> Picture:
    """A figure as SVG; the same figure gives the same bytes."""
    from cae.figures.style import saving_svg

    content = io.BytesIO()
    with saving_svg():
        figure.savefig(content, format="svg", metadata={"Date": None})
    size = figure.get_size_inches()
    return _make_picture("svg+xml", content.getvalue(), size, caption, description)


def embed(path: Path, caption: str) -> Picture:
    """A PNG file that `write_figure` wrote, in the size in which the figure was drawn.

    Raises:
        DataError: The file cannot be read, or is not a complete PNG picture.
    """
    from PIL import Image

    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.verify()
            size = [pixels / FIGURE_DPI for pixels in image.size]
    except (OSError, SyntaxError) as error:  # Pillow raises a SyntaxError for a damaged picture
        raise DataError(path, "must be a complete PNG picture", error, "Delete it.") from error
    return _make_picture("png", content, size, caption, f"{caption}.")


def _make_picture(kind: str, content: bytes, inches: Sequence[float], *texts: str) -> Picture:
    width, height = (round(PIXELS_PER_INCH * side) for side in inches)
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Picture(source, (width, height), *texts)


def render(page: Page) -> str:
    """The page as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html.jinja").render(
        page=page,
        generator=GENERATOR,
        style=style,
        # The page may use no style but its own.
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
    )


def check_page_path(path: Path, flag: str = "--output") -> None:
    """Checks that writing a page where a flag says overwrites at most an earlier page.

    Raises:
        UsageError: Another file is there, or the folder does not exist.
    """
    if not path.parent.is_dir():
        raise UsageError(flag, "must be in an existing folder", path, "Create the folder.")
    try:
        with path.open("rb") as file:
            is_ours = f'content="{GENERATOR}"'.encode() in file.read(1024)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(flag, "must be a file", f"{path}: {error.strerror}") from error
    if not is_ours:
        required, remedy = "must be new, or an earlier page", "Choose another name."
        raise UsageError(flag, required, path, remedy)


def write_page(path: Path, page: Page) -> None:
    """Writes a page, in place of an earlier one only: see `check_page_path`."""
    check_page_path(path)
    write_text(path, render(page))
