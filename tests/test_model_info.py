import json
from dataclasses import replace

import pytest

from mien.errors import CheckpointError
from mien.model_info import ModelInfo


def changed(info: ModelInfo, **changes: object) -> str:
    values = {**json.loads(info.to_json()), **changes}
    return json.dumps({key: value for key, value in values.items() if value is not None})


def test_survives_json(tiny_info: ModelInfo) -> None:
    assert ModelInfo.from_json(tiny_info.to_json(), "a.onnx") == tiny_info


def test_a_copy_with_changes(tiny_info: ModelInfo) -> None:
    int8 = replace(tiny_info, precision="int8")
    assert int8.precision == "int8"
    assert replace(int8, precision="fp32") == tiny_info


@pytest.mark.parametrize("text", ["", "{", "3", "{}"])
def test_damaged_metadata(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"a\.onnx: its mien metadata is corrupt"):
        ModelInfo.from_json(text, "a.onnx")


def test_no_metadata() -> None:
    with pytest.raises(CheckpointError, match=r"a\.onnx: has no mien metadata"):
        ModelInfo.from_json(None, "a.onnx")


@pytest.mark.parametrize(("version", "advice"), [(99, "upgrade"), (0, "export it again")])
def test_another_version_says_what_to_do(tiny_info: ModelInfo, version: int, advice: str) -> None:
    with pytest.raises(CheckpointError, match=rf"format {version}.*{advice}"):
        ModelInfo.from_json(changed(tiny_info, format=version), "a.onnx")


@pytest.mark.parametrize("change", [{"classes": None}, {"colour": "BGR"}, {"preprocess": None}])
def test_a_missing_or_unknown_field(tiny_info: ModelInfo, change: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match="missing or unknown field"):
        ModelInfo.from_json(changed(tiny_info, **change), "a.onnx")


@pytest.mark.parametrize(
    "change", [{"recipe": ["a"]}, {"arguments": [1]}, {"results": 3}, {"arch": 7}, {"commit": 5}, {"label_set": 1}]
)
def test_a_field_of_another_kind(tiny_info: ModelInfo, change: dict[str, object]) -> None:
    (key,) = change
    with pytest.raises(CheckpointError, match=f"m.onnx: {key} in its mien metadata is not a "):
        ModelInfo.from_json(changed(tiny_info, **change), "m.onnx")


@pytest.mark.parametrize("change", [{"channels": 2}, {"mean": 0.5}, {"colour": "red"}])
def test_preprocessing_that_makes_no_sense_names_the_file(tiny_info: ModelInfo, change: dict[str, object]) -> None:
    text = changed(tiny_info, preprocess=tiny_info.preprocess.to_dict() | change)
    with pytest.raises(CheckpointError, match=r"^m\.onnx: "):
        ModelInfo.from_json(text, "m.onnx")


@pytest.mark.parametrize("classes", ["angry", [1, 2]])
def test_classes_that_are_no_names(tiny_info: ModelInfo, classes: object) -> None:
    with pytest.raises(CheckpointError, match="classes are not a list of names"):
        ModelInfo.from_json(changed(tiny_info, classes=classes), "m.onnx")


def test_calibration_is_empty_unless_stored(tiny_info: ModelInfo) -> None:
    assert ModelInfo.from_json(changed(tiny_info, calibration=None), "m.onnx").calibration == {}
    values = {"temperature": 1.25, "power": 1.5, "lead": 0.2, "set_limits": {"0.9": 0.1}, "split": "public_test", "images": 280}
    fitted = replace(tiny_info, calibration=values)
    assert ModelInfo.from_json(fitted.to_json(), "m.onnx") == fitted


@pytest.mark.parametrize(
    "calibration",
    [
        {"temperature": 0.04},
        {"temperature": 21},
        {"temperature": "1"},
        {"temperature": True},
        {"other": 1},
        [1],
        {"power": 5},
        {"lead": -0.1},
        {"images": 0},
        {"split": 3},
        {"set_limits": [0.9]},
        {"set_limits": {"0.9": 2}},
        {"set_limits": {"ninety": 0.1}},
    ],
)
def test_calibration_out_of_range_is_refused(tiny_info: ModelInfo, calibration: object) -> None:
    with pytest.raises(CheckpointError, match=r"^m\.onnx: .*calibration"):
        ModelInfo.from_json(changed(tiny_info, calibration=calibration), "m.onnx")
    nan = changed(tiny_info, calibration={"temperature": float("nan")})
    with pytest.raises(CheckpointError, match=r"from 0\.05 to 20, got nan"):
        ModelInfo.from_json(nan, "m.onnx")
