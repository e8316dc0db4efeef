"""A report as one self-contained HTML page, or as Markdown with its figures next to it.

A `Report` is a list of sections, and a section is a list of blocks: texts, tables, drawings, faces. Both formats are written
from the same blocks. Everything that comes from files is escaped where it is written: here for Markdown, by Jinja for HTML.
"""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import mien
from mien.atomic import atomic_path
from mien.errors import OutputError, require
from mien.languages import language_in_use, translate
from mien.output.timeline import METADATA
from mien.report.style import DPI, figure_style
from mien.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = "page.html.j2"

FORMATS = (".html", ".md")
"""File endings of a report."""

LARGEST = 10_000_000
"""Size of a page, bytes, above which it is not written: mail programs refuse larger ones."""

FACE_SIDE = 112
"""Longest side of an embedded face, px; larger ones are reduced."""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Names with values, such as `("seed", "0")`."""

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """A table. The first column names the rows. Columns listed in `left` hold text; the others are numbers, aligned right."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Sequence[int] = (0,)


@dataclass(frozen=True)
class Drawing:
    """A figure of matplotlib. `alt` says in words what it shows."""

    name: str
    caption: str
    alt: str
    figure: Figure


@dataclass(frozen=True)
class Drawings:
    """Figures next to each other, where there is room."""

    items: Sequence[Drawing]


@dataclass(frozen=True)
class Face:
    """A picture of a face, uint8 (H, W) or (H, W, 3), with lines below it."""

    name: str
    lines: Sequence[str]
    alt: str
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class Faces:
    """Faces next to each other."""

    items: Sequence[Face]


@dataclass(frozen=True)
class Code:
    """Lines of a file."""

    lines: Sequence[str]


Block = Text | Bullets | Facts | Table | Drawings | Faces | Code


@dataclass(frozen=True)
class Section:
    """A part of a report with a heading."""

    title: str
    blocks: Sequence[Block]

    @property
    def id(self) -> str:
        """The anchor of the section in the page."""
        return re.sub(r"[^a-z]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Report:
    """A report, ready to be written."""

    title: str
    lead: str  # the result in one sentence or two
    notes: Sequence[str] = ()  # what a reader must know before using the figures
    tiles: Sequence[tuple[str, str, str]] = ()  # the most important figures: name, value, and a detail such as the interval
    sections: Sequence[Section] = ()  # one without blocks is left out


def write_report(path: Path, report: Report) -> list[Path]:
    """Write a report; return the paths of its files, the report first.

    Args:
        path: `.html` for one page with everything in it, or `.md` for Markdown, with figures in the folder `<stem>-figures`.
        report: The report.

    Raises:
        OutputError: A file cannot be written, or the page would be larger than 10 MB.
        MissingExtraError: jinja2 is not installed.
    """
    if path.suffix == ".md":
        return _write_markdown(path, report)
    page = _html(report).encode()
    if len(page) > LARGEST:
        raise OutputError(
            f"{path}: would have {len(page) / 1e6:.0f} MB, and a page may have 10; leave --data out, report one run "
            "instead of a study, or write Markdown (--out report.md)"
        )
    with atomic_path(path) as tmp_path:
        tmp_path.write_bytes(page)
    return [path]


def drawn(figure: Figure, form: Literal["svg", "png"]) -> bytes:
    """Return a figure as SVG, transparent and with its letters as outlines, so that it looks the same everywhere; or as PNG."""
    matplotlib = require("matplotlib", "train")
    buffer = io.BytesIO()
    with figure_style(), matplotlib.rc_context({"svg.fonttype": "path"}):
        figure.savefig(buffer, format=form, dpi=DPI, transparent=form == "svg", metadata=METADATA[f".{form}"])
    return buffer.getvalue()


def _encoded(pixels: NDArray[np.uint8], form: str) -> bytes:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((FACE_SIDE, FACE_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, form, optimize=True, quality=88)
    return buffer.getvalue()


# HTML -------------------------------------------------------------------------------------------------------------------


def _html(report: Report) -> str:
    jinja2 = require("jinja2", "report")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, finalize=_finalize
    )
    environment.filters |= {"drawing": lambda each: _uri("svg+xml", drawn(each.figure, "svg")), "face": _face_uri}
    template = (resources.files(mien.report) / TEMPLATE).read_text(encoding="utf-8")
    sections = [section for section in report.sections if section.blocks]
    text: str = environment.from_string(template).render(
        report=report, sections=sections, version=mien.__version__, language=language_in_use().code, translate=translate
    )
    return text


def _finalize(value: Any) -> Any:
    """Return what Jinja writes for a text: in the language in use, without control characters, which HTML forbids."""
    return translate(printable(value)) if type(value) is str else value


def _face_uri(face: Face) -> str:
    form = "png" if max(face.pixels.shape[:2]) <= FACE_SIDE else "jpeg"
    return _uri(form, _encoded(face.pixels, form))


def _uri(form: str, data: bytes) -> str:
    return f"data:image/{form};base64,{base64.b64encode(data).decode()}"


# Markdown ---------------------------------------------------------------------------------------------------------------


def _write_markdown(path: Path, report: Report) -> list[Path]:
    folder = path.with_name(f"{path.stem}-figures")
    lines = [f"# {_escape(report.title)}", _escape(report.lead)]
    lines += [f"> {_escape(note)}" for note in report.notes]
    pictures: dict[Path, bytes] = {}
    for section in report.sections:
        if section.blocks:
            lines += [f"## {_escape(section.title)}", *(_markdown(block, folder, pictures) for block in section.blocks)]
    lines.append(translate("Written by mien {version}.", version=mien.__version__))
    for file, data in pictures.items():
        with atomic_path(file) as tmp_path:
            tmp_path.write_bytes(data)
    with atomic_path(path) as tmp_path:
        tmp_path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return [path, *pictures]


def _markdown(block: Block, folder: Path, pictures: dict[Path, bytes]) -> str:
    """Return a block as Markdown, and add its pictures to those to write."""

    def picture(name: str, alt: str, data: bytes) -> str:
        pictures[folder / f"{name}.png"] = data
        return f"![{_escape(alt)}]({quote(os.fsencode(folder.name))}/{name}.png)"

    match block:
        case Text():
            return _escape(block.text)
        case Bullets():
            return "\n".join(f"- {_escape(item)}" for item in block.items)
        case Facts():
            return "\n".join(f"- {_escape(name)}: {_escape(value)}" for name, value in block.items)
        case Table():
            rule = ["---" if number in block.left else "---:" for number in range(len(block.head))]
            cells = [block.head, rule, *block.rows]
            rows = [" | ".join(row if row is rule else map(_escape, row)) for row in cells]
            return f"{_escape(block.caption)}\n\n" + "\n".join(f"| {row} |" for row in rows)
        case Drawings():
            return "\n\n".join(
                f"{picture(each.name, each.alt, drawn(each.figure, 'png'))}\n\n*{_escape(each.caption)}*"
                for each in block.items
            )
        case Faces():
            return "\n".join(
                f"- {picture(each.name, each.alt, _encoded(each.pixels, 'png'))} {_escape(', '.join(each.lines))}"
                for each in block.items
            )
        case Code():
            text = "\n".join(map(printable, block.lines))
            fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
            return f"{fence}yaml\n{text}\n{fence}"


def _escape(text: str) -> str:
    r"""Return a text in the language in use, in which no character formats Markdown, and no HTML is left.

    >>> _escape("<b>a_b|c")
    '\\<b\\>a\\_b\\|c'
    """
    return re.sub(r"([\\`*_{}\[\]<>#|~$&^]|^[-+=])", r"\\\1", translate(printable(text)))
