import csv
import errno
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from mien.cli import app
from mien.cli.show import summary_table
from mien.cli.terminal import ReadingBar
from mien.errors import OutputError
from mien.labels import label_set
from mien.model_info import write_digest
from mien.output.summary import Summary
from mien.output.table import columns
from mien.structures import Frame, Prediction, Reading


def one_line_error(result: tuple[int, str, str], *words: str) -> None:
    status, out, err = result
    assert status == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words)


def test_shows_a_table(mien, photo: Path) -> None:
    status, out, err = mien(photo)
    assert status == 0
    assert "1 face" in out
    assert "█" in out
    assert "%" in out
    assert err == ""


def test_a_narrow_terminal_shortens_the_bars(mien, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "62")
    status, out, _ = mien(photo, "--no-detect")
    assert status == 0
    table = out.splitlines()[1:]
    assert {len(line) for line in table} == {62}
    assert all(word in out for word in ("Expression", "whole picture", "Probabilities", "█", "% │"))


def test_jsonl_prints_one_row_per_face(mien, photo: Path, blank: Path) -> None:
    status, out, _ = mien(photo, blank, "--jsonl")
    (row,) = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert row["source"] == str(photo)
    assert list(row) == columns(label_set("fer2013"))


def test_writes_a_table_and_a_picture(mien, photo: Path, tmp_path: Path) -> None:
    status, out, _ = mien(photo, "--out", tmp_path / "t.csv", "--annotate", tmp_path / "drawn.png")
    assert status == 0
    with (tmp_path / "t.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 1
    with Image.open(tmp_path / "drawn.png") as drawn:
        assert drawn.size == (256, 256)
    assert [line.split("/")[-1] for line in out.splitlines() if line.startswith("wrote")] == ["t.csv", "drawn.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drawn.png", "photo.png", "t.csv", "tiny.onnx"]


def test_quiet_prints_nothing(mien, photo: Path, tmp_path: Path) -> None:
    assert mien(photo, "--quiet", "--out", tmp_path / "t.jsonl") == (0, "", "")
    assert (tmp_path / "t.jsonl").read_text().count("\n") == 1


def test_many_pictures_get_a_line_each(mien, blank: Path, tmp_path: Path) -> None:
    for i in range(11):
        shutil.copy(blank, tmp_path / f"{i}.png")
    status, out, _ = mien(*[tmp_path / f"{i}.png" for i in range(11)], "--no-detect")
    assert status == 0
    assert len(out.splitlines()) == 11
    assert out.startswith(f"{tmp_path / '0.png'}: ")


def test_a_name_with_brackets_and_many_drawings(mien, blank: Path, tmp_path: Path) -> None:
    status, out, _ = mien(blank, "--no-detect", "--annotate", tmp_path / "[b] a[/b].png")
    assert status == 0
    assert out.endswith(f"wrote {tmp_path}/[b] a[/b].png\n")
    for i in range(11):
        shutil.copy(blank, tmp_path / f"{i}.png")
    (tmp_path / "[b] a[/b].png").unlink()
    status, out, _ = mien(tmp_path, "--no-detect", "--annotate", tmp_path / "drawn")
    assert status == 0
    assert out.endswith(f"wrote 12 files into {tmp_path}/drawn\n")


def test_printed_text_appears_above_the_progress_bar() -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Screen()
    console = Console(file=screen, width=100, _environ={"TERM": "xterm"})
    with ReadingBar(2, True, console=console) as bar:
        for number in range(2):
            bar.step(Reading(f"long/{'a' * 33}[/b] {number}.jpg", Frame(np.zeros((2, 2, 3), np.uint8)), number=number))
            console.print("a picture")
    assert screen.getvalue().count("\x1b[2Ka picture") == 2


def test_a_file_gets_no_progress_bar_even_if_colours_are_forced(mien, blank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    status, out, err = mien(blank, "--no-detect")
    assert status == 0
    assert "reading" not in out + err


def test_several_pictures_are_drawn_into_a_folder(mien, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    shutil.copy(photo, tmp_path / "other")
    status, _, _ = mien(photo, tmp_path / "other" / "photo.png", "--annotate", tmp_path / "drawn")
    assert status == 0
    assert sorted(path.name for path in (tmp_path / "drawn").glob("[!.]*")) == ["photo-2.jpg", "photo.jpg"]


def test_no_face_is_an_empty_result(mien, blank: Path, tmp_path: Path) -> None:
    assert mien(blank, "--jsonl")[:2] == (0, "")
    status, out, _ = mien(blank, "--out", tmp_path / "t.csv")
    assert status == 0
    assert "no face found" in out
    assert (tmp_path / "t.csv").read_text().startswith("source,frame,time")


def test_ready_crops_need_no_detector(mien, blank: Path) -> None:
    status, out, _ = mien(blank, "--no-detect", "--jsonl")
    assert status == 0
    assert json.loads(out)["left"] is None
    assert "whole picture" in mien(blank, "--no-detect")[1]


@pytest.mark.parametrize("content", [b"no picture", b"", None])
def test_an_unreadable_picture(mien, tmp_path: Path, photo: Path, content: bytes | None) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(photo.read_bytes()[:5000] if content is None else content)
    one_line_error(mien(bad, "--out", tmp_path / "t.csv", "--annotate", tmp_path / "drawn.png"), "bad.png")
    assert not (tmp_path / "t.csv").exists()
    assert not (tmp_path / "drawn.png").exists()


def test_a_missing_picture_an_empty_folder_and_a_huge_one(mien, tmp_path: Path) -> None:
    one_line_error(mien(tmp_path / "none.jpg"), "none.jpg")
    (tmp_path / "empty").mkdir()
    one_line_error(mien(tmp_path / "empty"), str(tmp_path / "empty"))
    (tmp_path / "huge.ppm").write_bytes(b"P6 30000 30000 255\n")
    one_line_error(mien(tmp_path / "huge.ppm"), "huge.ppm", "100 megapixels")


def test_some_sources_are_unreadable(mien, blank: Path, photo: Path, tmp_path: Path) -> None:
    status, out, err = mien(photo, tmp_path / "none.jpg", blank, "--jsonl", "--out", tmp_path / "t.csv")
    assert status == 3
    assert len(out.splitlines()) == 1
    assert err.splitlines()[0].startswith("error: ")
    assert err.splitlines()[1].startswith("1 of 3 sources could not be read completely; resume with")
    assert (tmp_path / "t.csv").exists()


def test_a_run_is_not_resumed_with_another_model_file(mien, photo: Path, tiny_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    out = tmp_path / "t.csv"
    assert mien(photo, tmp_path / "empty.jpg", "--out", out)[0] == 3
    before = out.read_bytes()
    other = onnx.load(tiny_onnx)
    other.doc_string = "another"  # of the same network, commit and data
    onnx.save(other, tiny_onnx)
    write_digest(tiny_onnx)
    one_line_error(mien(photo, tmp_path / "empty.jpg", "--out", out, "--resume"), "model_file", "start over without --resume")
    assert out.read_bytes() == before


def test_a_resumed_run_reads_what_is_missing(mien, photo: Path, blank: Path, tmp_path: Path) -> None:
    late = tmp_path / "late.png"
    arguments = photo, late, blank, "--out", tmp_path / "t.csv"
    assert mien(*arguments)[0] == 3
    shutil.copy(photo, late)
    status, out, _ = mien(*arguments, "--resume")
    assert status == 0
    assert out.startswith("2 of 3 sources were already read")
    with (tmp_path / "t.csv").open() as file:
        assert [row["source"] for row in csv.DictReader(file)] == [str(photo), str(late)]
    assert not list(tmp_path.glob(".*"))


def test_invalid_combinations_of_options(mien, photo: Path) -> None:
    one_line_error(mien(photo, "--resume"), "--out")
    one_line_error(mien(photo, "--quiet", "--jsonl"), "choose one")
    one_line_error(mien(photo, "--smooth", "centered"), "did you mean 'centred'")
    one_line_error(mien(photo, "--detect-every", 0), "detect_every")
    one_line_error(mien(photo, photo.with_name("none.mp4"), "--fps", -1, "--out", photo.with_name("t.csv")), "frame rate")
    assert sorted(path.name for path in photo.parent.iterdir()) == ["photo.png", "tiny.onnx"]


def test_outputs_that_cannot_be_written(mien, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one_line_error(mien(photo, "--jsonl", "--annotate", tmp_path / "a.docx"), "format")
    one_line_error(mien(photo, "--jsonl", "--annotate", tmp_path / "a.mp4"), ".png")
    one_line_error(mien(photo, "--jsonl", "--summary", tmp_path / "a.txt"), ".json")
    one_line_error(mien(photo, "--jsonl", "--out", photo / "t.csv"), "part of the path is a file")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    one_line_error(mien(photo, "--quiet", "--annotate", tmp_path / "t.png"), "No space left", "free some space")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.png", "tiny.onnx"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("form", [[], ["--jsonl"]])
def test_a_full_disk_behind_the_output(blank: Path, tiny_onnx: Path, form: list[str]) -> None:
    command = [sys.executable, "-m", "mien", "predict", str(blank), "--model", str(tiny_onnx), "--no-detect", *form]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "error: the output cannot be written (No space left on device); free some space or write elsewhere\n"


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8"])
def test_names_that_the_terminal_cannot_show(blank: Path, tiny_onnx: Path, encoding: str) -> None:
    photo = blank.rename(blank.with_name("Füße 微 👩.png"))
    command = [sys.executable, "-m", "mien", "predict", str(photo), "--model", str(tiny_onnx), "--no-detect"]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    lines = subprocess.run([*command, "--jsonl"], capture_output=True, check=True, env=environment, timeout=60).stdout
    assert json.loads(lines)["source"] == str(photo), "it is UTF-8 in any case"
    shown = subprocess.run(command, capture_output=True, check=True, env=environment, timeout=60).stdout.decode(encoding)
    assert ("Füße \\u5fae \\U0001f469.png" if encoding == "cp1252" else photo.name) in shown


def test_a_wrong_model(mien, photo: Path, tiny_onnx: Path) -> None:
    tiny_onnx.write_bytes(b"junk")
    one_line_error(mien(photo), "tiny.onnx", "damaged")
    tiny_onnx.unlink()
    one_line_error(mien(photo), "no such model file")


def test_an_interrupt_ends_with_130(mien, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mien.predict.recognizer.Recognizer.find_faces", interrupted)
    assert mien(photo)[0] == 130


def test_the_summary_shows_the_people_seen_longest() -> None:
    classes = ("happy", "sad")

    def seen(label: str, time: float, track: int, source: str = "a.mp4") -> Prediction:
        return Prediction(classes, [0.75, 0.25] if label == "happy" else [0.25, 0.75], None, source, None, time, track)

    summary = Summary(classes)
    summary.extend(seen("happy", time, 1) for time in (0, 1, 2))
    summary.extend(seen("sad", 20 + time, 2) for time in range(7))
    summary.add(seen("sad", 0, 1, "[bold].mp4"))
    console = Console(file=io.StringIO(), width=110, highlight=False)
    console.print(summary_table(summary, max_people=1))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    head, first, more, other = (line.split("│")[1:-1] for line in text.splitlines() if "│" in line)
    assert head[1].strip() == "Person"
    assert [cell.strip() for cell in first] == ["a.mp4", "2", "6.0 s", "sad 100%", "sad 6.0 s at 0:20", "0"]
    assert more[3].strip() == "and 1 more"
    assert [cell.strip() for cell in other] == ["[bold].mp4", "1", "1 face", "sad 100%", "", "0"]


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys; from mien import cli; from typer.testing import CliRunner\n"
        "for a in (['--help'], ['predict', '-h'], ['--version']):\n    assert CliRunner().invoke(cli.app, a).exit_code == 0\n"
        "print({'numpy', 'PIL', 'onnxruntime', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize("option", ["--out", "--summary"])
def test_a_list_of_names_is_not_overwritten(mien, tmp_path: Path, photo: Path, option: str) -> None:
    names = tmp_path / "list.csv"
    names.write_text(f"{photo}\n")
    one_line_error(mien(f"@{names}", option, names), "list.csv: is read by this run")
    assert names.read_text() == f"{photo}\n"


def test_a_model_and_its_card_are_not_overwritten(mien, tmp_path: Path, tiny_onnx: Path, photo: Path) -> None:
    card = tiny_onnx.with_suffix(".json")
    card.write_text("{}")
    one_line_error(mien(photo, "--summary", card), "tiny.json: is read by this run")
    assert card.read_text() == "{}"
    model = Path(shutil.copy(tiny_onnx, tmp_path / "m.csv"))
    with pytest.raises(OutputError, match=r"m\.csv: is read by this run"):
        CliRunner().invoke(app, ["predict", str(photo), "--out", str(model), "--model", str(model)], catch_exceptions=False)
    assert model.read_bytes() == tiny_onnx.read_bytes()


def test_a_source_with_the_name_of_a_table_is_not_overwritten(mien, tmp_path: Path, photo: Path) -> None:
    source = Path(shutil.copy(photo, tmp_path / "data.csv"))
    one_line_error(mien(source, "--out", source), "data.csv: is read by this run")
    assert source.read_bytes() == photo.read_bytes()


EVIL = "a\x1b[2J\x9b2J\u202e\x07.png"


def test_names_do_not_act_on_the_terminal(mien, tmp_path: Path, photo: Path) -> None:
    (tmp_path / EVIL).write_bytes(photo.read_bytes())
    (tmp_path / f"bad{EVIL}").write_bytes(b"no picture")
    for arguments in ([], ["--jsonl"], [*[photo] * 11, "--out", tmp_path / f"{EVIL}.csv"]):
        status, out, err = mien(tmp_path / EVIL, tmp_path / f"bad{EVIL}", *arguments)
        assert status == 3
        assert all(line.isprintable() for line in (out + err).splitlines())
        assert "u202e" in out
        assert "\\u202e" in err
    one_line_error(mien(tmp_path / f"bad{EVIL}"), "\\x1b[2J")
