import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent
from typing import Any

import av
import pytest
from PIL import Image

from mien.video.reader import open_video

ASTRONAUT = Path(__file__).parents[2] / "docs/assets/astronaut.jpg"
LONG = 150  # frames of b.mkv: their rows do not fit into a pipe, so the run is in progress until somebody reads them all


def start(tiny_onnx: Path, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start `mien predict` in a process of its own, because a signal, a closed pipe or `kill` is to end it."""
    command = [sys.executable, "-m", "mien", "predict", *map(str, arguments), "--model", str(tiny_onnx), "--no-detect"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def wait_for_row_of(process: subprocess.Popen[str], name: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["source"].endswith(name):
            return
    raise AssertionError(f"no row of {name}")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def frames(path: Path) -> int:
    with open_video(path) as video:
        return len(list(video))


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("[!.]*"))


def test_a_folder_of_videos_becomes_every_output(mien, folder: Path) -> None:
    files = ["--out", folder / "t.csv", "--summary", folder / "s.json"]
    files += ["--annotate", folder / "drawn", "--timeline", folder / "lines"]
    status, out, err = mien(folder / "in", *files, "--fps", 10, "--end", 0.6, "--no-detect")
    assert status == 0, err
    table = rows(folder / "t.csv")
    assert [float(row["time"]) for row in table] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5] * 2)
    assert {row["track"] for row in table} == {"1"}
    assert [video["frames"] for video in json.loads((folder / "s.json").read_text())["videos"]] == [6, 6]
    assert visible(folder / "drawn") == ["a.mp4", "b.mp4"]
    assert visible(folder / "lines") == ["a.png", "b.png"]
    assert frames(folder / "drawn/a.mp4") == 6
    assert "Person" in out


def test_ctrl_c_finishes_the_files_and_resume_continues(mien, tiny_onnx: Path, folder: Path) -> None:
    arguments = folder / "in", "--out", folder / "t.csv", "--annotate", folder / "drawn", "--summary", folder / "s.json"
    process = start(tiny_onnx, *arguments, "--jsonl")
    wait_for_row_of(process, "b.mkv")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors == "stopped; the files contain everything read so far; resume with the same command and --resume\n"
    table = rows(folder / "t.csv")
    done = sum(row["source"].endswith("b.mkv") for row in table)
    assert sum(row["source"].endswith("a.mp4") for row in table) == 12
    assert 0 < done < LONG
    assert frames(folder / "drawn/b.mp4") == pytest.approx(done, abs=1)  # the signal may come between row and frame

    status, out, err = mien(*arguments, "--resume", "--no-detect")
    assert status == 0, err
    assert "1 of 2 sources were already read" in out
    assert mien(folder / "in", "--out", folder / "whole.csv", "--quiet", "--no-detect")[0] == 0
    assert (folder / "t.csv").read_text() == (folder / "whole.csv").read_text()
    assert [video["frames"] for video in json.loads((folder / "s.json").read_text())["videos"]] == [12, LONG]
    assert not list(folder.glob(".*"))


def test_an_impatient_ctrl_c_loses_nothing(tiny_onnx: Path, folder: Path) -> None:
    process = start(tiny_onnx, folder / "in/b.mkv", "--out", folder / "t.csv", "--annotate", folder / "drawn.mp4", "--jsonl")
    wait_for_row_of(process, "b.mkv")
    for _ in range(6):
        process.send_signal(signal.SIGINT)
        time.sleep(0.03)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert 0 < len(rows(folder / "t.csv")) < LONG
    assert frames(folder / "drawn.mp4") > 0


def test_ctrl_c_while_the_program_is_being_loaded() -> None:
    code = """
        import sys
        class Interrupted:
            def find_spec(self, name, path=None, target=None):
                if name == "mien.cli":
                    raise KeyboardInterrupt
        sys.meta_path.insert(0, Interrupted())
        from mien.__main__ import main
        main()
    """
    done = subprocess.run([sys.executable, "-c", dedent(code)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_drawings_in_the_folder_that_is_read_are_not_sources(mien, folder: Path) -> None:
    (folder / "in/b.mkv").unlink()
    arguments = folder / "in", "--out", folder / "t.csv", "--annotate", folder / "in/drawn", "--timeline", folder / "in/lines"
    for _ in range(2):
        assert mien(*arguments, "--quiet", "--no-detect") == (0, "", "")
        assert {row["source"] for row in rows(folder / "t.csv")} == {str(folder / "in/a.mp4")}
        assert sorted(path.name for path in (folder / "in").rglob("a.*")) == ["a.mp4", "a.mp4", "a.png"]


def test_a_folder_of_originals_is_never_overwritten(mien, folder: Path) -> None:
    (folder / "in/b.mkv").rename(folder / "in/more.mkv")
    (folder / "in/more").mkdir()
    original = Path(shutil.copy(folder / "in/a.mp4", folder / "in/more"))
    before = original.read_bytes()
    status, _, err = mien(folder / "in", "--annotate", folder / "in/more", "--no-detect")
    assert status == 2
    assert "is read by this run" in err
    assert original.read_bytes() == before


def test_a_closed_pipe_ends_the_run_like_ctrl_c(tiny_onnx: Path, folder: Path) -> None:
    process = start(tiny_onnx, folder / "in", "--out", folder / "t.csv", "--jsonl")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert errors.startswith("standard output was closed: stopped; the files contain everything read so far")
    assert errors.count("\n") == 1
    assert 0 < len(rows(folder / "t.csv")) < 12 + LONG


def test_kill_loses_only_the_video_in_progress(mien, tiny_onnx: Path, folder: Path) -> None:
    arguments = folder / "in", "--out", folder / "t.csv"
    with start(tiny_onnx, *arguments, "--jsonl") as process:
        wait_for_row_of(process, "b.mkv")
        process.kill()
    assert not (folder / "t.csv").exists()
    _, out, _ = mien(*arguments, "--resume", "--no-detect")
    assert "1 of 2 sources were already read" in out
    assert len(rows(folder / "t.csv")) == 12 + LONG


def test_a_truncated_video_gives_what_can_be_read(mien, folder: Path) -> None:
    whole = (folder / "in/b.mkv").read_bytes()
    (folder / "in/b.mkv").write_bytes(whole[: len(whole) // 2])
    status, _, err = mien(folder / "in", "--out", folder / "t.csv", "--annotate", folder / "drawn", "--no-detect")
    assert status == 3
    assert "b.mkv" in err
    assert "1 of 2 sources could not be read completely" in err
    assert 12 < len(rows(folder / "t.csv")) < 12 + LONG
    assert visible(folder / "drawn") == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("content", [b"", b"no video at all"])
def test_not_a_video(mien, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.mp4").write_bytes(content)
    status, out, err = mien(tmp_path / "x.mp4", "--out", tmp_path / "t.csv", "--annotate", tmp_path / "d.mp4", "--no-detect")
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "x.mp4" in err
    assert visible(tmp_path) == ["tiny.onnx", "x.mp4"]


def test_standard_input(mien, pipe, originals: Path) -> None:
    pipe((originals / "a.mp4").read_bytes())
    status, out, err = mien("-", "--jsonl", "--no-detect")
    assert status == 0, err
    assert len(out.splitlines()) == 12


def test_errors_about_standard_input_name_it(mien, pipe, originals: Path) -> None:
    for content in ((originals / "a.mp4").read_bytes()[:400], ASTRONAUT.read_bytes()[:3000]):
        pipe(content)
        status, _, err = mien("-", "--no-detect")
        assert status == 2
        assert err.startswith("error: standard input")


def test_damaged_frames_are_unsure_and_the_status_is_3(mien, folder: Path) -> None:
    path = folder / "in/b.mkv"
    with av.open(path) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data, (place, size) = bytearray(path.read_bytes()), places[70]
    data[place + 12 : place + size - 4] = bytes(byte ^ 0x5A for byte in data[place + 12 : place + size - 4])
    path.write_bytes(data)
    options = ["--out", folder / "t.csv", "--summary", folder / "s.json", "--no-detect", "--unsure-below", 0]
    status, _, err = mien(path, *options)
    assert status == 3
    assert "b.mkv is corrupt: " in err
    (video,) = json.loads((folder / "s.json").read_text())["videos"]
    unsure = [int(row["frame"]) for row in rows(folder / "t.csv") if row["unsure"] == "true"]
    assert unsure
    assert len(unsure) == video["frames_damaged"]
    assert min(unsure) >= 67  # B-frames before it


def test_a_video_that_shows_nobody_for_a_while_says_so(mien, tmp_path: Path) -> None:
    with Image.open(ASTRONAUT) as image:
        face = image.convert("RGB").crop((96, 16, 352, 272))
    with av.open(tmp_path / "gap.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width = stream.height = 256
        for number in range(100):
            picture = Image.new("RGB", face.size) if 40 <= number < 75 else face
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))
    status, out, err = mien(tmp_path / "gap.mp4", "--out", tmp_path / "t.csv", "--all-frames")
    assert status == 0, err
    assert "a face in 65 of 100 frames (65%); a gap of 1.4 s at 0:02" in out
    table = rows(tmp_path / "t.csv")
    assert [int(row["frame"]) for row in table] == list(range(100))
    assert [row["track"] for row in table] == ["1"] * 40 + [""] * 35 + ["1"] * 25
    assert {row["label"] == "" for row in table[40:75]} == {True}
