"""`mien page`: the page as static files that recognise faces in the browser, without a server."""

from __future__ import annotations

import html
import json
import re
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from mien.atomic import output_error
from mien.cli import options
from mien.cli.options import option
from mien.errors import OutputError

PAGE = "Page"

POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "worker-src 'self' blob:; connect-src 'self'"
)
"""Content-Security-Policy of the page: the browser itself refuses to send anything to another origin."""

README = """---
title: {title}
sdk: static
pinned: false
license: apache-2.0
custom_headers:
  cross-origin-embedder-policy: require-corp
  cross-origin-opener-policy: same-origin
  cross-origin-resource-policy: cross-origin
---

# {heading}

Facial expressions in pictures, videos and cameras, recognised in the browser: no picture leaves the visitor's device. A label
says how a face looks, not what a person feels.

`mien page` of mien {version} wrote this folder. It works from any web host; opened as a file it does not, because browsers load
no modules from files. With the two headers above (cross-origin-embedder-policy and -opener-policy) the browser computes on
several threads. Hugging Face reads them from this file; set them yourself on other hosts.

The networks in `device/` are mien's `{model}` (Apache-2.0), CenterFace (MIT, StarClouds) and MTCNN (MIT, Iván de Paz Centeno).
`device/ort/` is onnxruntime-web {runtime} (MIT, Microsoft; see `device/ort/LICENSE`).
"""
"""The folder's README.md. The first part is what Hugging Face reads of a static Space."""


def page(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; a page of mien in it is replaced.")],
    title: Annotated[str, option("Title of the page.", "TEXT", PAGE)] = "mien: facial expressions",
    model: options.Model = None,
    min_face: options.MinFace = None,
    max_faces: options.MaxFaces = 100,
    unsure_below: options.UnsureBelow = 0.5,
    language: options.PageLanguage = None,
) -> None:
    """Write the page as static files: it recognises in the visitor's browser and works from any web host."""
    from mien import __version__
    from mien.languages import page_languages
    from mien.predict.recognizer import Recognizer
    from mien.server import device

    _check(out)
    recognizer = Recognizer(model, min_face=min_face, max_faces=max_faces, unsure_below=unsure_below)
    files = {f"device/{name}": content for name, content in device.device_files(recognizer).items()}
    files |= {path.name: path for path in sorted(device.PAGE.iterdir()) if path.is_file()}
    files["languages.json"] = json.dumps(page_languages(language), ensure_ascii=False).encode()
    index = (device.PAGE / "index.html").read_text(encoding="utf-8")
    name = html.escape(title)
    metas = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n<meta name="mien-mode" content="static">\n'
    index = re.sub(r"<title>.*?</title>", lambda _: f"{metas}<title>{name}</title>", index, count=1, flags=re.DOTALL)
    files["index.html"] = index.encode()
    readme = README.format(
        title=json.dumps(" ".join(title.split()), ensure_ascii=False),
        heading=" ".join(title.split()),
        version=__version__,
        model=Path(str(files["device/model.onnx"])).stem,
        runtime=(device.PAGE / "device" / "ort" / "VERSION").read_text(encoding="utf-8").strip(),
    )
    files["README.md"] = readme.encode()
    _write(out, files)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    typer.echo(f"{out}: {len(files)} files, {size / 1e6:.0f} MB. See it at http://127.0.0.1:8000 with:")
    typer.echo(f"python -m http.server --bind 127.0.0.1 --directory {out}")


def _check(out: Path) -> None:
    """Refuse a folder that has something other than a page of mien."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file; name a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / "device" / "device.json").is_file():
        raise OutputError(f"{out}: is not empty and has no page that mien wrote; name a new folder")


def _write(out: Path, files: dict[str, bytes | Path]) -> None:
    """Write a folder next to its target and rename it, so that the target is complete or as it was."""
    try:
        out = out.resolve()
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as name:
            new, old = Path(name) / "new", Path(name) / "old"
            for file, content in files.items():
                path = new / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.read_bytes() if isinstance(content, Path) else content)
            if out.exists():
                out.rename(old)
            new.rename(out)
    except OSError as error:
        raise output_error(out, error) from None
