import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mien.atomic import atomic_path, check_kind, check_outputs, uninterrupted
from mien.errors import OutputError


def test_writes_under_the_final_name_and_leaves_nothing_else(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "deep" / "a.csv") as beside:
        assert beside.suffix == ".csv"
        assert beside.parent == tmp_path / "deep"
        beside.write_text("whole")
        assert not (tmp_path / "deep" / "a.csv").exists()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.csv"]
    assert (tmp_path / "deep" / "a.csv").read_text() == "whole"


@pytest.mark.parametrize("failure", [ValueError("bug"), KeyboardInterrupt()])
def test_a_failure_keeps_the_older_file(tmp_path: Path, failure: BaseException) -> None:
    target = tmp_path / "a.csv"
    target.write_text("older")

    def fail() -> None:
        with atomic_path(target) as beside:
            beside.write_text("half")
            raise failure

    with pytest.raises(type(failure)):
        fail()
    assert target.read_text() == "older"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("where", ["write", "rename"])
def test_a_full_disk_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace" if where == "rename" else "write_text", full)
    with (
        pytest.raises(OutputError, match=r"a\.csv: cannot be written \(No space left on device\); free some space"),
        atomic_path(tmp_path / "a.csv") as beside,
    ):
        beside.write_text("x")
    assert list(tmp_path.iterdir()) == []


def test_a_path_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="part of the path is a file"), atomic_path(tmp_path / "file" / "a.csv"):
        pass


def test_a_folder_is_no_target(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder"), atomic_path(tmp_path):
        pass


def test_a_block_that_wrote_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"), atomic_path(tmp_path / "a.csv"):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_device_is_written_directly_and_stays_a_device() -> None:
    with pytest.raises(OutputError, match="No space left"), atomic_path("/dev/full") as beside:
        beside.write_text("x")
    assert Path("/dev/full").is_char_device()


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="this system has no /dev/stdout")
def test_an_open_stream_that_goes_to_a_file_is_not_replaced(tmp_path: Path) -> None:
    code = "from mien.atomic import atomic_path\nwith atomic_path('/dev/stdout') as p: p.open('a').write('after')"
    with (tmp_path / "log.txt").open("w") as log:
        log.write("before ")
        log.flush()
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True)
    assert (tmp_path / "log.txt").read_text() == "before after"


def test_a_link_keeps_pointing_at_its_file(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_text("older")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    with atomic_path(tmp_path / "link.csv") as beside:
        beside.write_text("newer")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() == "newer"


def test_a_stop_during_a_block_that_fails_is_not_forgotten() -> None:
    def fail() -> None:
        signal.raise_signal(signal.SIGINT)
        raise OutputError("the disk is full")

    with pytest.raises(KeyboardInterrupt), uninterrupted():
        fail()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_output_never_replaces_an_input(tmp_path: Path) -> None:
    data, link, other = tmp_path / "data.csv", tmp_path / "link.csv", tmp_path / "other.csv"
    data.write_text("mine")
    link.symlink_to(data)
    os.link(data, tmp_path / "hard.csv")
    for output in (data, link, tmp_path / "hard.csv", tmp_path / "." / "data.csv"):
        with pytest.raises(OutputError, match="is read by this run, which would overwrite it; choose another name"):
            check_outputs([None, other, output], ["camera:0", tmp_path / "missing", data])
    check_outputs([other, None, Path("/dev/null"), Path("/dev/null")], [data])
    assert data.read_text() == "mine"
    assert not other.exists()


def test_two_outputs_never_have_one_name(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is named for two outputs; choose two names"):
        check_outputs([tmp_path / "a.csv", tmp_path / "x/../a.csv"], [])


def test_an_output_never_replaces_a_file_of_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "happy").mkdir()
    for name in ("happy/1.png", "labels.csv", "report.json"):
        (tmp_path / name).touch()
    for name in ("happy/1.png", "labels.csv"):
        with pytest.raises(OutputError, match="may belong to the folder that this run reads; choose another folder"):
            check_outputs([tmp_path / name], [tmp_path])
    check_outputs([tmp_path / "report.json", tmp_path / "new.csv"], [tmp_path])


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no such modes")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_file_gets_the_mode_that_the_user_wants(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        with atomic_path(tmp_path / "best.safetensors") as path:
            os.close(os.open(path, os.O_CREAT, 0o600))  # as safetensors does
    finally:
        os.umask(before)
    assert (tmp_path / "best.safetensors").stat().st_mode & 0o777 == mode


def test_a_json_file_replaces_none_of_another_kind(tmp_path: Path) -> None:
    card, results = tmp_path / "card.json", tmp_path / "results.json"
    card.write_text('{"sha256": "0", "arch": "tiny", "classes": []}')
    results.write_text('{"model": {}, "standard": {}}')
    with pytest.raises(OutputError, match=r"results.json: holds something else \(model, standard, ...\); choose another name"):
        check_kind(results, "sha256", "arch")
    for path in (card, tmp_path / "new.json", tmp_path):
        check_kind(path, "sha256", "arch")
    card.write_bytes(b"")
    check_kind(card, "model", "standard")
