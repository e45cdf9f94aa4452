"""Text, tables and pictures become one HTML file that needs nothing else, and does nothing.

No scripts, no network: pictures lie inside, and a Content Security Policy
(https://www.w3.org/TR/CSP3/) forbids the rest. The template escapes every text, because names of
files, classes and experiments can come from a stranger.
"""

import base64
import hashlib
import io
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar

from cae.errors import DataError, UsageError
from cae.files import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


TEMPLATES = Path(__file__).parent / "templates"
# Says of a file that it may be written again.
GENERATOR = "experiments.py report"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_END = b"IEND\xaeB`\x82"
PIXELS_PER_INCH = 96  # of CSS, whatever the screen
DIGITS = 4  # significant ones, of the median of a column
MAX_DECIMALS = 6
NOTHING = "–"


@dataclass(frozen=True)
class Text:
    """A paragraph; one that leads says what to remember."""

    kind: ClassVar = "text"
    text: str
    leads: bool = False


@dataclass(frozen=True)
class Facts:
    """Names with their values, in order; those that lead are shown large."""

    kind: ClassVar = "facts"
    facts: dict[str, str]
    leads: bool = False


@dataclass(frozen=True)
class Table:
    """Columns by their headings; the first one names the rows.

    Attributes:
        caption: What it shows.
        columns: One value a row: texts, or numbers, which get equal decimals and stand to the
            right. None and NaN: there is none.
        mark: What to say of the first row, if it leads.
        numeric: Headings of columns of texts that stand to the right as numbers do.
    """

    kind: ClassVar = "table"
    caption: str
    columns: dict[str, list[Any]]
    mark: str = ""
    numeric: tuple[str, ...] = ()

    def is_numeric(self, heading: str) -> bool:
        """Whether a column stands to the right."""
        known = [value for value in self.columns[heading] if value is not None]
        return heading in self.numeric or (
            bool(known) and all(isinstance(value, int | float) for value in known)
        )

    @property
    def rows(self) -> list[dict[str, str]]:
        """The cells by their headings, as they are shown."""
        cells = zip(*map(format_column, self.columns.values()), strict=True)
        return [dict(zip(self.columns, row, strict=True)) for row in cells]


@dataclass(frozen=True)
class Picture:
    """A picture with its caption.

    Attributes:
        source: Its data URL.
        width: In CSS pixels.
        height: In CSS pixels.
        caption: The line below it.
        description: What somebody is told who does not see it.
    """

    kind: ClassVar = "picture"
    source: str
    width: int
    height: int
    caption: str
    description: str


@dataclass(frozen=True)
class Gallery:
    """Pictures beside each other where there is room."""

    kind: ClassVar = "gallery"
    pictures: list[Picture]


@dataclass(frozen=True)
class Code:
    """Lines as they are: commands, JSON."""

    kind: ClassVar = "code"
    text: str


@dataclass(frozen=True)
class Folded:
    """Blocks that are shown when their title is clicked, and printed when they are open."""

    kind: ClassVar = "folded"
    title: str
    blocks: list[Any]


@dataclass(frozen=True)
class Section:
    """A heading, what stands below it, and further sections."""

    title: str
    blocks: list[Any] = field(default_factory=list)
    sections: list["Section"] = field(default_factory=list)


@dataclass(frozen=True)
class Page:
    """A title, a line below it, and sections."""

    title: str
    subtitle: str
    sections: list[Section]


def format_column(values: list[Any]) -> list[str]:
    """Texts of one column: its numbers with equal decimals, so that they compare at a glance."""
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
    from matplotlib import rc_context

    content = io.BytesIO()
    with rc_context({"svg.hashsalt": GENERATOR}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    width, height = (round(PIXELS_PER_INCH * inches) for inches in figure.get_size_inches())
    return Picture(
        _data_url("image/svg+xml", content.getvalue()), width, height, caption, description
    )


def embed(path: Path, dpi: int, caption: str, description: str) -> Picture:
    """A PNG picture from its file, in the size that it was drawn in.

    Raises:
        DataError: It is none, or damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(path, "must be readable", error.strerror, "Check it.") from error
    if not (content.startswith(PNG_SIGNATURE) and content.endswith(PNG_END)):
        raise DataError(path, "must be a whole PNG picture", "another file", "Delete it.")
    size = struct.unpack_from(">II", content, 16)  # the first chunk, IHDR, begins with them
    width, height = (round(pixels * PIXELS_PER_INCH / dpi) for pixels in size)
    return Picture(_data_url("image/png", content), width, height, caption, description)


def _data_url(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


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
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html.jinja").render(
        page=page,
        generator=GENERATOR,
        style=style,
        # Of all style, the page may use only its own.
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
    )


def check_page_path(path: Path) -> None:
    """Checks that a page can be written there without a loss.

    Raises:
        UsageError: Something else is there, or no folder to write to.
    """
    if not path.parent.is_dir():
        raise UsageError(
            "--output", "must lie in an existing folder", path, "Make the folder first."
        )
    if not path.exists():
        return
    try:
        with path.open("rb") as file:
            is_ours = f'content="{GENERATOR}"'.encode() in file.read(1024)
    except OSError as error:
        raise UsageError("--output", "must be a file", f"{path}: {error.strerror}") from error
    if not is_ours:
        raise UsageError(
            "--output", "must be new, or an earlier report", path, "Give another name."
        )


def write_page(path: Path, page: Page) -> None:
    """Writes a page whole or not at all, in place of an earlier one.

    Raises:
        UsageError: See `check_page_path`; or the disk is full.
    """
    check_page_path(path)
    try:
        with replace_file(path) as file:
            file.write(render(page).encode())
    except OSError as error:
        raise UsageError(
            path, "must be writable", error.strerror, "Free space, or give another --output."
        ) from error
