"""The docs say what is so: generated parts in sync, named files and links there."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted((ROOT / "docs").glob("*.md"))


def test_generated_parts_are_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "scripts/generate_docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_tree_names_what_exists() -> None:
    tree = re.search(r"<!-- generated: tree -->\n```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert tree is not None
    lines = tree[1].splitlines()
    assert len(lines) > 20
    for line in lines:
        name = line.split()[0]
        path = ROOT / "src/mien" / name if line.startswith("  ") else ROOT / name
        assert path.is_dir() if name.endswith("/") else path.is_file(), name


def test_contributing_names_what_exists() -> None:
    names = re.findall(r"`([^`\s]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    paths = [name for name in names if re.search(r"/|\w\.(py|md|toml|txt)$", name)]
    assert len(paths) > 15
    for name in paths:
        known, placeholder, _ = name.partition("<")
        path = ROOT / known
        if not name.startswith("tests/"):  # a first test of its kind makes its folder
            assert path.exists(), name
        assert placeholder or path.exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_model_is_in_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (independent,) = [contract["modules"] for contract in contracts if contract["type"] == "independence"]
    files = {f"mien.models.{path.stem}" for path in (ROOT / "src/mien/models").glob("*.py")}
    assert files - {"mien.models.__init__", "mien.models.base"} == set(independent)


def test_the_constraints_name_versions_and_nothing_else() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)] == []


def test_a_long_line_of_the_tree_is_cut_at_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import generate_docs

    assert generate_docs._branch("a/", "Reading: " + "a path, " * 20, 1) == "  a/              Reading"
    assert generate_docs._branch("a/", "word " * 40, 0).endswith("word ...")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_every_page_is_in_the_navigation_and_guides_have_a_picture() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    pages = {page.name: page.read_text() for page in (ROOT / "docs").glob("*.md")}
    assert set(re.findall(r"[\w-]+\.md", navigation)) == {*pages, "contributing.md", "changelog.md"}
    guides = re.findall(r"[\w-]+\.md", navigation[navigation.index("Recognise:") : navigation.index("Reference:")])
    assert len(guides) == 18
    for page in guides:
        assert re.search(r"!\[[^]]{20,}\]\(assets/", pages[page]), f"{page} has no picture with a description"


def test_every_picture_is_shown() -> None:
    text = "".join(page.read_text() for page in PAGES)
    pictures = {path.name for path in (ROOT / "docs/assets").iterdir() if path.suffix in (".png", ".jpg")}
    assert {name for name in pictures if f"assets/{name}" not in text} == set()
