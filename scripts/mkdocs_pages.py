"""Hooks of mkdocs: show CONTRIBUTING.md and CHANGELOG.md as pages, and refuse pages that load anything from another host."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files in the root of the repository, and the page each becomes."""
LOADED = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from the root of the repository, with links that work from docs/."""
    root = Path(config.config_file_path).parent
    for name, page in PAGES.items():
        text = (root / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    return files


def on_post_page(output: str, **named: Any) -> str:
    """Return the page unchanged.

    Raises:
        PluginError: The page loads a script, style or picture from another host.
    """
    if loaded := LOADED.search(output):
        raise PluginError(f"{named['page'].file.src_uri} loads {loaded[1]} from another host")
    return output
