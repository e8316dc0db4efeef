import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from mien.errors import CheckpointError
from mien.model_info import DIGEST_KEY, NO_DIGEST, ModelInfo, check_digest, check_file_digest, write_digest

ONNX_DIGEST = f"{DIGEST_KEY}\x12@{NO_DIGEST}".encode()
CHECKPOINT_DIGEST = rf"\"{DIGEST_KEY}\": \"{NO_DIGEST}\"".encode()


def changed(info: ModelInfo, **changes: object) -> str:
    values = {**json.loads(info.to_json()), **changes}
    return json.dumps({key: value for key, value in values.items() if value is not None})


def test_survives_json(tiny_info: ModelInfo) -> None:
    assert ModelInfo.from_json(tiny_info.to_json(), "a.onnx") == tiny_info


def test_class_names_are_composed(tiny_info: ModelInfo) -> None:
    classes = ["de\u0301gou\u0302t", *tiny_info.classes[1:]]
    assert ModelInfo.from_json(changed(tiny_info, classes=classes), "a.onnx").classes[0] == "d\u00e9go\u00fbt"


def test_a_copy_with_changes(tiny_info: ModelInfo) -> None:
    int8 = replace(tiny_info, precision="int8")
    assert int8.precision == "int8"
    assert replace(int8, precision="fp32") == tiny_info


@pytest.mark.parametrize("text", ["", "{", "3", "{}", "[" * 100_000, '{"format": 1, "arch": "\\ud800"}'])
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
    "change",
    [
        {"recipe": ["a"]},
        {"recipe": {"data": "a"}},
        {"arguments": [1]},
        {"results": 3},
        {"arch": 7},
        {"commit": 5},
        {"label_set": 1},
    ],
)
def test_a_field_of_another_kind(tiny_info: ModelInfo, change: dict[str, object]) -> None:
    (key,) = change
    with pytest.raises(CheckpointError, match=rf"m.onnx: {key}(\.data)? in its mien metadata is not a "):
        ModelInfo.from_json(changed(tiny_info, **change), "m.onnx")


def test_a_precision_that_does_not_exist(tiny_info: ModelInfo) -> None:
    with pytest.raises(CheckpointError, match=r"m\.onnx: its precision 'int4' is not one of fp32, int8"):
        ModelInfo.from_json(changed(tiny_info, precision="int4"), "m.onnx")


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
    bias = [0.5] * len(tiny_info.classes)
    assert ModelInfo.from_json(changed(tiny_info, calibration=None), "m.onnx").calibration == {}
    values = {
        "temperature": 1.25,
        "power": 1.5,
        "lead": 0.2,
        "bias": bias,
        "set_limits": {"0.9": 0.1},
        "split": "public_test",
        "images": 280,
    }
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
        {"bias": 1.0},
        {"bias": [0.0] * 9},
        {"bias": [21.0]},
    ],
)
def test_calibration_out_of_range_is_refused(tiny_info: ModelInfo, calibration: object) -> None:
    with pytest.raises(CheckpointError, match=r"^m\.onnx: .*calibration"):
        ModelInfo.from_json(changed(tiny_info, calibration=calibration), "m.onnx")
    nan = changed(tiny_info, calibration={"temperature": float("nan")})
    with pytest.raises(CheckpointError, match=r"from 0\.05 to 20, got nan"):
        ModelInfo.from_json(nan, "m.onnx")


@pytest.mark.parametrize("classes", [[], ["happy", "happy"], ["", "sad"], [" ", "sad"], ["a\x1b[2J", "b"], ["\xe9", "e\u0301"]])
def test_classes_that_cannot_be_told_apart_or_shown(tiny_info: ModelInfo, classes: list[str]) -> None:
    with pytest.raises(CheckpointError, match=r"^m\.onnx: its class"):
        ModelInfo.from_json(changed(tiny_info, classes=classes), "m.onnx")


@pytest.mark.parametrize("room", [ONNX_DIGEST, CHECKPOINT_DIGEST])
def test_a_digest_covers_every_bit_of_a_file(tmp_path: Path, room: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08weights" + room + b"more")
    write_digest(path)
    whole = path.read_bytes()
    start = whole.index(room[: room.index(b"00")]) + room.index(b"00")
    assert hashlib.sha256(whole[:start] + b"0" * 64 + whole[start + 64 :]).hexdigest().encode() == whole[start : start + 64]
    assert check_file_digest(path)
    write_digest(path)
    assert path.read_bytes() == whole
    noticed = 0
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            has_digest = check_digest(bytes(damaged), "m.onnx")
        except CheckpointError:
            noticed += 1
        else:
            assert not has_digest, "the key itself was damaged, so from_json refuses the file"
    assert noticed > 8 * (len(whole) - len(room))


def test_content_without_a_digest(tmp_path: Path, tiny_info: ModelInfo, caplog: pytest.LogCaptureFixture) -> None:
    for content in (b"", b"weights", DIGEST_KEY.encode()):
        (tmp_path / "m.onnx").write_bytes(content)
        assert not check_file_digest(tmp_path / "m.onnx")
    with pytest.raises(CheckpointError, match=r"missing\.onnx: cannot be read"):
        check_file_digest(tmp_path / "missing.onnx")
    with caplog.at_level(logging.WARNING, "mien"):
        ModelInfo.from_json(changed(tiny_info, calibration=None), "old.onnx", has_digest=False)
    assert "old.onnx has no digest" in caplog.text
    with pytest.raises(CheckpointError, match="its digest was removed"):
        ModelInfo.from_json(tiny_info.to_json(), "new.onnx", has_digest=False)
