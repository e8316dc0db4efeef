import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mien.errors import LabelError, OutputError
from mien.output.journal import Journal, journal_path
from mien.output.table import FORMATS, Row, row
from mien.structures import Prediction

CLASSES = ("happy", "sad")
ABOUT = {"model": "sa_csp_ca 1a2b", "fps": "5"}


def faces(source: str, count: int = 3) -> list[Row]:
    return [row(Prediction(CLASSES, [0.25, 0.75], None, source, i, i / 5, 1)) for i in range(count)]


@pytest.fixture
def videos(tmp_path: Path) -> list[str]:
    """Three files to read, in a folder next to that of the tables."""
    (tmp_path / "in").mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / "in" / name).write_text(name)
    return [str(path) for path in sorted((tmp_path / "in").iterdir())]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out/faces.csv"


def steps(journal: Journal, sources: list[str]) -> Iterator[None]:
    """Read the sources that are not done, a step at a time."""
    for source in sources:
        if not journal.done(source):
            journal.begin(source)
            yield
            for face in faces(source):
                journal.add([face])
                yield
            journal.end()
            yield


def run(target: Path, sources: list[str], *, resume: bool = False) -> bytes:
    """Return the table of a completed run."""
    with closing(Journal(target, CLASSES, ABOUT, resume=resume)) as journal:
        for _ in steps(journal, sources):
            pass
        assert not journal.finish(complete=True)
    assert not journal.path.exists()
    return target.read_bytes()


def lines(target: Path) -> list[str]:
    """Return the sources of a table's rows, as file names."""
    return [Path(line.split(",")[0]).name for line in target.read_text().splitlines()[1:]]


@pytest.mark.parametrize("ending", FORMATS)
def test_a_completed_run_leaves_only_the_table(target: Path, videos: list[str], ending: str) -> None:
    assert run(target.with_suffix(ending), videos)
    assert [path.name for path in target.parent.iterdir()] == [f"faces{ending}"]


def test_rows_come_back_unchanged(target: Path) -> None:
    with closing(Journal(target, CLASSES, ABOUT)) as journal:
        journal.begin("caf\udce9.mp4")
        journal.add(iter(faces("caf\udce9.mp4")))
        assert list(journal.rows()) == faces("caf\udce9.mp4")
        assert not journal.done("caf\udce9.mp4")
        journal.end()
        assert journal.complete("caf\udce9.mp4")


def test_ctrl_c_writes_what_was_read_and_resume_reads_the_rest(target: Path, videos: list[str]) -> None:
    undisturbed = run(target, videos)
    with closing(Journal(target, CLASSES, ABOUT)) as journal:
        going = steps(journal, videos)
        for _ in range(7):
            next(going)
        assert journal.finish(complete=False)
    assert lines(target) == ["a.mp4"] * 3 + ["b.mp4"]
    assert journal.path.exists()
    with closing(Journal(target, CLASSES, ABOUT, resume=True)) as journal:
        assert [journal.done(video) for video in videos] == [True, False, False]
        assert journal.resumed == 1
        assert {Path(face["source"]).name for face in journal.rows()} == {"a.mp4"}
    assert run(target, videos, resume=True) == undisturbed


def test_a_run_killed_after_any_step_resumes_to_the_same_table(target: Path, videos: list[str], tmp_path: Path) -> None:
    undisturbed = run(target, videos)
    with closing(Journal(target, CLASSES, ABOUT)) as journal:
        for number, _ in enumerate(steps(journal, videos)):
            left = tmp_path / f"left{number}"  # what a kill would leave on the disk: SQLite's files as they are now
            left.mkdir()
            for path in target.parent.glob(".faces.csv.journal*"):
                shutil.copy(path, left)
            with closing(Journal(left / "faces.csv", CLASSES, ABOUT, resume=True)) as resumed:
                assert resumed.resumed == (number + 1) // 5
            assert run(left / "faces.csv", videos, resume=True) == undisturbed


@settings(max_examples=12, deadline=None)
@given(share=st.floats(0, 1))
def test_a_truncated_log_of_the_journal_loses_only_sources(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    target = tmp_path_factory.mktemp("torn") / "faces.csv"
    with closing(Journal(target, CLASSES, ABOUT)) as journal:
        for _ in steps(journal, ["a", "b", "c"]):
            pass
        late = {path.name: path.read_bytes() for path in target.parent.iterdir()}
    for name, data in late.items():
        cut = round(len(data) * share) if name.endswith("-wal") else len(data)
        (target.parent / name).write_bytes(data[:cut])
    assert run(target, ["a", "b", "c"], resume=True).count(b"\n") == 10


KILLED = """
import os, signal, sys
from mien.output.journal import Journal
journal = Journal(sys.argv[1], ("happy", "sad"), {"model": "sa_csp_ca 1a2b", "fps": "5"})
for source in sys.argv[2:]:
    journal.begin(source)
    journal.end()
journal.begin("unfinished")
print("ready", flush=True)
sys.stdin.read()
"""


def test_the_lock_ends_with_a_killed_process(target: Path, videos: list[str]) -> None:
    command = [sys.executable, "-c", KILLED, str(target), *videos[:2]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for resume in (True, False):
            with pytest.raises(OutputError, match="another run is writing this table"):
                Journal(target, CLASSES, ABOUT, resume=resume)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    with closing(Journal(target, CLASSES, ABOUT, resume=True)) as journal:
        assert [journal.done(video) for video in videos] == [True, True, False]
        assert not journal.done("unfinished")


def test_one_process_cannot_open_a_journal_twice(target: Path) -> None:
    with closing(Journal(target, CLASSES, ABOUT)), pytest.raises(OutputError, match="another run"):
        Journal(target, CLASSES, ABOUT)
    Journal(target, CLASSES, ABOUT).close()


def test_a_changed_file_is_read_again(target: Path, videos: list[str]) -> None:
    with closing(Journal(target, CLASSES, ABOUT)) as journal:
        for _ in steps(journal, videos):
            pass
    Path(videos[0]).write_text("longer than before")
    os.utime(videos[1], ns=(0, 0))
    Path(videos[2]).unlink()
    with closing(Journal(target, CLASSES, ABOUT, resume=True)) as journal:
        assert [journal.done(video) for video in videos] == [False, False, False]
        journal.begin(videos[0])
        journal.add(faces(videos[0], 1))
        journal.end()
        assert journal.done(videos[0])
        assert [Path(face["source"]).name for face in journal.rows()] == ["a.mp4"] + ["b.mp4"] * 3 + ["c.mp4"] * 3


def test_a_file_that_changes_while_it_is_read_is_not_done(target: Path, videos: list[str]) -> None:
    with closing(Journal(target, CLASSES, ABOUT)) as journal:
        journal.begin(videos[0])
        Path(videos[0]).write_text("still being copied")
        journal.end()
        assert not journal.done(videos[0])


def test_failed_sources_keep_the_journal_and_are_tried_again(target: Path, videos: list[str]) -> None:
    with closing(Journal(target, CLASSES, ABOUT)) as journal:
        journal.begin(videos[0])
        journal.add(faces(videos[0], 2))
        journal.fail(videos[0])
        journal.fail(videos[1])
        journal.begin(videos[2])
        journal.end()
        assert [journal.complete(video) for video in videos] == [False, False, True]
        assert journal.finish(complete=True)
    assert lines(target) == ["a.mp4", "a.mp4"]
    with closing(Journal(target, CLASSES, ABOUT, resume=True)) as journal:
        assert [journal.done(video) for video in videos] == [False, False, True]
        for _ in steps(journal, videos):
            pass
        assert not journal.finish(complete=True)
    assert lines(target) == ["a.mp4"] * 3 + ["b.mp4"] * 3


def test_a_source_that_fails_after_its_end_keeps_its_rows(target: Path) -> None:
    with closing(Journal(target, CLASSES, ABOUT)) as journal:
        for _ in steps(journal, ["a"]):
            pass
        journal.fail("a")  # as if its annotated picture met a full disk
        assert not journal.done("a")
        assert list(journal.rows()) == faces("a")


def test_a_discarded_journal_leaves_nothing(target: Path) -> None:
    journal = Journal(target, CLASSES, ABOUT)
    journal.begin("a")
    journal.discard()
    assert list(target.parent.iterdir()) == []


def test_other_settings_are_refused_by_name(target: Path) -> None:
    Journal(target, CLASSES, ABOUT).close()
    with pytest.raises(OutputError, match=r"\(model: .* 1a2b, now other; fps: 5, now not set\); use those") as refused:
        Journal(target, CLASSES, {"model": "other"}, resume=True)
    assert str(journal_path(target)) in str(refused.value)
    with pytest.raises(OutputError, match="classes: happy, sad, now happy, fear"):
        Journal(target, ("happy", "fear"), ABOUT, resume=True)
    Journal(target, CLASSES, ABOUT, resume=True).close()


def test_without_resume_a_run_starts_over_and_counts_what_it_drops(target: Path, videos: list[str]) -> None:
    with closing(Journal(target, CLASSES, ABOUT)) as journal:
        for _ in steps(journal, videos[:2]):
            pass
    with closing(Journal(target, CLASSES, {})) as journal:
        assert (journal.dropped, journal.resumed) == (2, 0)
        assert list(journal.rows()) == []
        assert not journal.done(videos[0])


def test_resume_without_a_journal_reads_everything(target: Path, videos: list[str]) -> None:
    assert run(target, videos, resume=True) == run(target, videos)


def test_a_damaged_journal(target: Path, videos: list[str]) -> None:
    target.parent.mkdir()
    journal_path(target).write_text("this is no database, whatever its name says; it is long enough to tell" * 20)
    with pytest.raises(OutputError, match=r"is damaged; start over without --resume"):
        Journal(target, CLASSES, ABOUT, resume=True)
    assert run(target, videos)


def test_a_journal_of_a_newer_version(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mien.output.journal.FORMAT", 99)
    Journal(target, CLASSES, ABOUT).close()
    monkeypatch.undo()
    with pytest.raises(OutputError, match="another version of mien"):
        Journal(target, CLASSES, ABOUT, resume=True)
    with closing(Journal(target, CLASSES, ABOUT)) as journal:
        assert journal.dropped == 0


def test_a_table_that_cannot_be_written_keeps_the_journal(target: Path, videos: list[str]) -> None:
    with closing(Journal(target, CLASSES, ABOUT)) as journal:
        for _ in steps(journal, videos):
            pass
        target.mkdir()
        with pytest.raises(OutputError, match="is a folder"):
            journal.finish(complete=True)
    target.rmdir()
    with closing(Journal(target, CLASSES, ABOUT, resume=True)) as journal:
        assert journal.resumed == 3
        journal.finish(complete=True)
    assert len(lines(target)) == 9


def test_errors_before_a_journal_is_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="part of the path is a file"):
        Journal(tmp_path / "file/t.csv", CLASSES, ABOUT)
    with pytest.raises(OutputError, match=r"must end in \.csv"):
        Journal(tmp_path / "t.txt", CLASSES, ABOUT)
    with pytest.raises(LabelError, match="rename it"):
        Journal(tmp_path / "t.csv", ("label",), ABOUT)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_other_tools_can_read_the_journal(target: Path) -> None:
    with closing(Journal(target, CLASSES, ABOUT)) as journal:
        for _ in steps(journal, ["a"]):
            pass
    with sqlite3.connect(journal.path) as database:
        found = database.execute("SELECT name, face FROM faces JOIN sources ON source = id").fetchall()
    database.close()
    assert [(json.loads(name), json.loads(face)) for name, face in found] == [("a", list(face.values())) for face in faces("a")]


def test_a_run_that_starts_over_and_reads_nothing_keeps_the_earlier_journal(target: Path, videos: list[str]) -> None:
    with closing(Journal(target, CLASSES, ABOUT)) as journal:
        for _, _ in zip(range(9), steps(journal, videos), strict=False):
            pass
    again = Journal(target, CLASSES, ABOUT)
    assert again.dropped == 1
    again.begin(videos[0])
    assert again.discard()
    assert run(target, videos, resume=True)
    assert lines(target) == [Path(video).name for video in videos for _ in range(3)]


def test_failed_sources_that_are_no_longer_named_are_dropped(target: Path) -> None:
    with closing(Journal(target, CLASSES, ABOUT)) as journal:
        for name in ("a", "cut"):
            journal.begin(name)
            journal.add(faces(name))
            journal.end() if name == "a" else journal.fail(name)
    with closing(Journal(target, CLASSES, ABOUT, resume=True)) as journal:
        journal.drop_failures(except_for={"a"})
        assert not journal.finish(complete=True)
    assert lines(target) == ["a"] * 3
