import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mien

ROOT = Path(__file__).parents[1]
FILES = ("src/mien/__init__.py", "CITATION.cff", "CHANGELOG.md", "scripts/release_check.py")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that name the version, as on the day of a release."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    text = (tmp_path / "CHANGELOG.md").read_text(encoding="utf-8")
    dated = text.replace(f"## {mien.__version__} (not released)", f"## {mien.__version__} (2026-12-01)")
    (tmp_path / "CHANGELOG.md").write_text(f"{dated}\n## 0.0.1 (2026-01-01)\n\nOld.\n", encoding="utf-8")
    return tmp_path


def release_check(folder: Path, tag: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, folder / "scripts/release_check.py", tag]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60)


def test_a_release_has_its_notes(copy: Path) -> None:
    done = release_check(copy, f"v{mien.__version__}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("### ")
    assert "Old." not in done.stdout


@pytest.mark.parametrize("name", FILES[:3])
def test_a_version_that_differs_is_named(copy: Path, name: str) -> None:
    text = (copy / name).read_text(encoding="utf-8")
    (copy / name).write_text(text.replace(mien.__version__, "9.9.9"), encoding="utf-8")
    done = release_check(copy, f"v{mien.__version__}")
    assert done.returncode == 1
    assert done.stderr.startswith(f"{name}: says ")


def test_a_release_has_a_day(copy: Path) -> None:
    shutil.copy(ROOT / "CHANGELOG.md", copy / "CHANGELOG.md")
    heading = next(line for line in (copy / "CHANGELOG.md").read_text(encoding="utf-8").splitlines() if line.startswith("## "))
    (copy / "CHANGELOG.md").write_text(re.sub(r"\(.*\)", "(not released)", heading), encoding="utf-8")
    assert "(not released)" in release_check(copy, f"v{mien.__version__}").stderr


def test_the_licences_are_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["license-files"] == ["LICENSE", "NOTICE"]
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for work in ("CenterFace", "mtcnn", "dlib", "onnxruntime-web"):
        assert work in notice


def test_every_step_of_the_workflows_does_something() -> None:
    yaml = pytest.importorskip("yaml")
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
            assert ("uses" in job) != ("steps" in job), path.name
            assert all(("uses" in step) != ("run" in step) for step in job.get("steps", [])), path.name
