import os
import re
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from mien.errors import MissingExtraError, UnknownNameError
from mien.onnx_session import PACKAGES, find_providers

SOURCE = Path(__file__).parents[1] / "src" / "mien"
ASTRONAUT = Path(__file__).parents[1] / "docs" / "assets" / "astronaut.jpg"


def run(home: Path, *arguments: str, **environment: str) -> str:
    inherited = {key: value for key, value in os.environ.items() if key not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    own = inherited | {"HOME": str(home)} | environment
    return subprocess.run([sys.executable, *arguments], env=own, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("detector", ["mtcnn", "centerface"])
def test_predicting_leaves_an_empty_home_empty(tmp_path: Path, detector: str) -> None:
    assert "happy" in run(tmp_path, "-m", "mien", "predict", str(ASTRONAUT), "--detector", detector)
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_imports_mien_first_sends_nothing(tmp_path: Path) -> None:
    run(tmp_path, "-c", "import mien, onnxruntime; mien.Recognizer()")
    assert list(tmp_path.iterdir()) == []


def test_the_setting_of_the_user_is_kept(tmp_path: Path) -> None:
    code = "import mien, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert run(tmp_path, "-c", code) == "1\n"
    assert run(tmp_path, "-c", code, ORT_DISABLE_TELEMETRY="") == "1\n"  # ONNX Runtime takes an empty value for no value
    assert run(tmp_path, "-c", code, ORT_DISABLE_TELEMETRY="0") == "0\n"


def test_onnxruntime_is_imported_in_one_place_only() -> None:
    importing = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if re.search(r"^(import onnxruntime|from onnxruntime)", path.read_text(), re.MULTILINE)
    }
    assert importing == {"onnx_session.py"}


@pytest.mark.parametrize("names", ["cpu", " CPU", "CPUExecutionProvider", ["Cpu"], ("cpuexecutionprovider",)])
def test_a_provider_is_found_by_any_of_its_names(names: str | list[str]) -> None:
    assert find_providers(names) == ["CPUExecutionProvider"]


def test_a_provider_of_another_package_names_it() -> None:
    offered = onnxruntime.get_available_providers()
    missing = next(name for name in ("OpenVINO", "CUDA") if f"{name}ExecutionProvider" not in offered)
    with pytest.raises(MissingExtraError, match=rf"only .*cpu.*pip install {PACKAGES[missing.lower()]}$"):
        find_providers(f"{missing},cpu")


def test_an_unknown_provider_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"'openvno'; did you mean 'openvino'.*directml"):
        find_providers("cpu,openvno")
