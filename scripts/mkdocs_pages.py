"""Let the documentation show README, CONTRIBUTING and CHANGELOG without copies of them; mkdocs calls `on_files`."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from the root of the repository, their links turned to where the pages lie here."""
    root = Path(config.config_file_path).parent
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=relink((root / name).read_text(encoding="utf-8"))))
    return files


def relink(text: str) -> str:
    """Return a page of the root as one of docs/: `docs/x` becomes `x`, and the licence, which is no page, loses its link."""
    for name, page in PAGES.items():
        text = text.replace(f"]({name})", f"]({page})")
    return re.sub(r"\[([^]]+)\]\(LICENSE\)", r"\1", text).replace("](docs/", "](")
