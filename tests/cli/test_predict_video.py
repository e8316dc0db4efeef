import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

import av
import numpy as np
import pytest

from mien.video.reader import open_video

FPS = 20
ASTRONAUT = Path(__file__).parents[2] / "docs/assets/astronaut.jpg"


def write_video(path: Path, frames: int, size: tuple[int, int] = (64, 48)) -> Path:
    """Write a video of random pictures that change slowly."""
    random = np.random.default_rng(len(path.name))
    image = random.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(image, number, axis=1), "rgb24")))
        container.mux(stream.encode())
    return path


def command(tiny_onnx: Path, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "mien", "predict", *map(str, arguments), "--model", str(tiny_onnx), "--no-detect"]


def run(tiny_onnx: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(tiny_onnx, *arguments), capture_output=True, text=True, timeout=120)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in/a.mp4", 12)
    write_video(tmp_path / "in/b.mkv", 400)
    return tmp_path


def test_a_folder_of_videos_becomes_every_output(tiny_onnx: Path, folder: Path) -> None:
    targets = [
        "--out",
        folder / "t.csv",
        "--summary",
        folder / "s.json",
        "--annotate",
        folder / "drawn",
        "--timeline",
        folder / "lines",
    ]
    done = run(tiny_onnx, folder / "in", *targets, "--fps", 10, "--end", 0.6)
    assert done.returncode == 0, done.stderr
    table = rows(folder / "t.csv")
    assert [float(row["time"]) for row in table] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5] * 2)
    assert {row["track"] for row in table} == {"1"}
    assert [video["frames"] for video in json.loads((folder / "s.json").read_text())["videos"]] == [6, 6]
    assert sorted(path.name for path in (folder / "drawn").glob("[!.]*")) == ["a.mp4", "b.mp4"]
    assert sorted(path.name for path in (folder / "lines").glob("[!.]*")) == ["a.png", "b.png"]
    with open_video(folder / "drawn/a.mp4") as video:
        assert len(list(video)) == 6
    assert "Person" in done.stdout


def test_ctrl_c_finishes_the_files_and_resume_goes_on(tiny_onnx: Path, folder: Path) -> None:
    arguments = folder / "in", "--out", folder / "t.csv", "--annotate", folder / "drawn", "--summary", folder / "s.json"
    process = subprocess.Popen(
        command(tiny_onnx, *arguments, "--jsonl"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["source"].endswith("b.mkv"):
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors == "stopped; the files hold what was done; go on with the same command and --resume\n"
    table = rows(folder / "t.csv")
    done = sum(row["source"].endswith("b.mkv") for row in table)
    assert sum(row["source"].endswith("a.mp4") for row in table) == 12
    assert 0 < done < 400
    with open_video(folder / "drawn/b.mp4") as video:
        assert len(list(video)) == pytest.approx(done, abs=1)  # of the frame in hand when the signal came, one may lack

    resumed = run(tiny_onnx, *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "1 of 2 sources were read before" in resumed.stdout
    whole = run(tiny_onnx, folder / "in", "--out", folder / "whole.csv", "--quiet")
    assert whole.returncode == 0
    assert (folder / "t.csv").read_text() == (folder / "whole.csv").read_text()
    assert [video["frames"] for video in json.loads((folder / "s.json").read_text())["videos"]] == [12, 400]
    assert not list(folder.glob(".*"))


def test_an_impatient_ctrl_c_loses_nothing(tiny_onnx: Path, folder: Path) -> None:
    arguments = folder / "in/b.mkv", "--out", folder / "t.csv", "--annotate", folder / "drawn.mp4"
    process = subprocess.Popen(
        command(tiny_onnx, *arguments, "--jsonl"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    for _ in range(6):
        process.send_signal(signal.SIGINT)
        time.sleep(0.03)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert 0 < len(rows(folder / "t.csv")) < 400
    with open_video(folder / "drawn.mp4") as video:
        assert len(list(video)) > 0


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


def test_drawings_within_the_folder_that_is_read_are_no_sources(tiny_onnx: Path, folder: Path) -> None:
    (folder / "in/b.mkv").unlink()
    arguments = folder / "in", "--out", folder / "t.csv", "--annotate", folder / "in/drawn", "--timeline", folder / "in/lines"
    for _ in range(2):
        done = run(tiny_onnx, *arguments, "--quiet")
        assert (done.returncode, done.stderr) == (0, "")
        assert {row["source"] for row in rows(folder / "t.csv")} == {str(folder / "in/a.mp4")}
        assert sorted(path.name for path in (folder / "in").rglob("a.*")) == ["a.mp4", "a.mp4", "a.png"]


def test_a_folder_of_originals_is_drawn_over_never(tiny_onnx: Path, folder: Path) -> None:
    (folder / "in/b.mkv").rename(folder / "in/more.mkv")
    (folder / "in/more").mkdir()
    original = write_video(folder / "in/more/a.mp4", 3).read_bytes()
    done = run(tiny_onnx, folder / "in", "--annotate", folder / "in/more")
    assert done.returncode == 2
    assert "is read by this run" in done.stderr
    assert (folder / "in/more/a.mp4").read_bytes() == original


def test_a_closed_pipe_ends_the_run_like_ctrl_c(tiny_onnx: Path, folder: Path) -> None:
    process = subprocess.Popen(
        command(tiny_onnx, folder / "in", "--out", folder / "t.csv", "--jsonl"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert errors.startswith("nobody reads what is printed: stopped; the files hold what was done")
    assert errors.count("\n") == 1
    assert 0 < len(rows(folder / "t.csv")) < 412


def test_kill_loses_only_the_video_in_hand(tiny_onnx: Path, folder: Path) -> None:
    arguments = folder / "in", "--out", folder / "t.csv"
    process = subprocess.Popen(command(tiny_onnx, *arguments, "--jsonl"), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["source"].endswith("b.mkv"):
            process.kill()
            break
    process.wait(timeout=60)
    process.stdout.close()
    assert not (folder / "t.csv").exists()
    resumed = run(tiny_onnx, *arguments, "--resume")
    assert "1 of 2 sources were read before" in resumed.stdout
    assert len(rows(folder / "t.csv")) == 412


def test_a_truncated_video_gives_what_can_be_read(tiny_onnx: Path, folder: Path) -> None:
    whole = (folder / "in/b.mkv").read_bytes()
    (folder / "in/b.mkv").write_bytes(whole[: len(whole) // 2])
    done = run(tiny_onnx, folder / "in", "--out", folder / "t.csv", "--annotate", folder / "drawn")
    assert done.returncode == 3
    assert "b.mkv" in done.stderr
    assert "1 of 2 could not be read whole" in done.stderr
    assert 12 < len(rows(folder / "t.csv")) < 412
    assert sorted(path.name for path in (folder / "drawn").glob("[!.]*")) == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("content", [b"", b"no video at all"])
def test_no_video(tiny_onnx: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.mp4").write_bytes(content)
    done = run(tiny_onnx, tmp_path / "x.mp4", "--out", tmp_path / "t.csv", "--annotate", tmp_path / "d.mp4")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "x.mp4" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.onnx", "x.mp4"]


def test_standard_input(tiny_onnx: Path, folder: Path) -> None:
    done = subprocess.run(
        command(tiny_onnx, "-", "--jsonl"), input=(folder / "in/a.mp4").read_bytes(), capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 12


def test_what_is_wrong_on_standard_input_is_said_of_it(tiny_onnx: Path, folder: Path) -> None:
    for content in ((folder / "in/a.mp4").read_bytes()[:400], ASTRONAUT.read_bytes()[:3000]):
        done = subprocess.run(command(tiny_onnx, "-"), input=content, capture_output=True, timeout=60)
        assert done.returncode == 2
        assert done.stderr.decode().startswith("error: standard input")
