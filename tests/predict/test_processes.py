"""One Recognizer in several threads, in forked and spawned processes, pickled and copied."""

import copy
import multiprocessing
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.errors import InputError
from mien.faces import Detector, create_detector, detector_names
from mien.predict.onnx_backend import CHUNK
from mien.predict.recognizer import Recognizer
from mien.structures import Face

ASTRONAUT = Path(__file__).parents[2] / "docs/assets/astronaut.jpg"

needs_fork = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")

COMMON = f"""
import hashlib, os, sys, time
import numpy as np
import mien
import mien.image
import mien.onnx_session

photo = {str(ASTRONAUT)!r}
picture = mien.read_image(photo)

def answers(recognizer):
    found = recognizer.predict(picture)
    assert len(found) == 1
    few, many = recognizer.predict_faces([picture] * 3), recognizer.predict_faces([picture] * {2 * CHUNK})
    return hashlib.sha256(np.array([each.probs for each in found + few + many]).tobytes()).hexdigest()
"""

FORKS = """
def child(work):
    process = os.fork()
    if process == 0:
        work()
        sys.exit(0)  # and so the interpreter ends as usual, and destroys what it holds
    return process

def check():
    assert answers(recognizer) == before

def check_and_fork():
    check()
    wait([child(check), child(int)])

def wait(processes):
    end = time.monotonic() + 60
    while processes and time.monotonic() < end:
        for process in processes[:]:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                assert status == 0, status
                processes.remove(process)
        time.sleep(0.02)
    for process in processes:
        os.kill(process, 9)
    assert not processes, "a child hangs"

mien.onnx_session.available_cores = lambda: 2  # threads that a fork loses, even where there is one core
recognizer = mien.Recognizer(detector=sys.argv[1], threads=2)
assert sys.platform != "linux" or len(os.listdir("/proc/self/task")) > 1
before = answers(recognizer)
with mien.image._FILTERS:  # as if another thread were reading a picture just now
    reading = child(lambda: mien.read_image(photo))
wait([reading, child(int), child(check), child(check), child(check_and_fork)])
check()
print("all answered")
"""

LOADER = """
import torch
from torch.utils.data import DataLoader, Dataset

class Expressions(Dataset):
    def __init__(self, recognizer):
        self.recognizer = recognizer

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return answers(self.recognizer)

recognizer = mien.Recognizer(threads=2)
before = answers(recognizer)
loader = DataLoader(Expressions(recognizer), num_workers=2, multiprocessing_context="fork", timeout=60)
assert [answer for batch in loader for answer in batch] == [before] * 4
print("all answered")
"""

POOL = """
import multiprocessing

def begin(given):
    global recognizer
    recognizer = given

def answer(_):
    return answers(recognizer)

if __name__ == "__main__":
    recognizer = mien.Recognizer(threads=2)
    with multiprocessing.get_context("spawn").Pool(2, begin, (recognizer,)) as pool:
        assert set(pool.map(answer, range(4))) == {answers(recognizer)}
        assert [len(found) for found in pool.map(recognizer.predict, [picture])] == [1]
    print("all answered")
"""


def run(tmp_path: Path, code: str, *arguments: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(COMMON + code)
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, timeout=200)
    assert (done.stdout, done.returncode) == ("all answered\n", 0), done.stderr


@needs_fork
@pytest.mark.parametrize("detector", detector_names())
def test_forked_processes_answer_and_end(tmp_path: Path, detector: str) -> None:
    """As under `gunicorn --preload`: used, then forked several times; one child forks again, two never use it."""
    run(tmp_path, FORKS, detector)


@needs_fork
@pytest.mark.skipif(find_spec("torch") is None, reason="needs torch")
@pytest.mark.slow
def test_workers_of_a_data_loader_answer(tmp_path: Path) -> None:
    run(tmp_path, LOADER)


def test_a_spawned_pool_answers(tmp_path: Path) -> None:
    run(tmp_path, POOL)


def pickled(value: object) -> object:
    return pickle.loads(pickle.dumps(value))


def photos(number: int) -> list[np.ndarray]:
    with Image.open(ASTRONAUT) as photo:
        return [np.asarray(photo.convert("RGB").resize((180 + 3 * i, 170 + 2 * i))) for i in range(number)]


@pytest.mark.parametrize("way", [pickled, copy.deepcopy, copy.copy])
def test_a_copy_gives_the_same_answers(way: Callable[[Recognizer], Recognizer], tiny_onnx: Path) -> None:
    recognizer = Recognizer(tiny_onnx, threads=2, max_faces=1, unsure_below=0.9, min_face=30)
    crops, (photo,) = photos(2 * CHUNK), photos(1)
    expected, many = recognizer.predict(photo), recognizer.probabilities(crops)
    tiny_onnx.unlink()  # a copy does not read the file again
    copied = way(recognizer)
    (found,) = copied.predict(photo)
    assert (found.label, found.unsure) == (expected[0].label, expected[0].unsure)
    np.testing.assert_array_equal(found.probs, expected[0].probs)
    np.testing.assert_array_equal(copied.probabilities(crops), many)


@pytest.mark.parametrize("way", [pickled, copy.deepcopy])
@pytest.mark.parametrize("name", detector_names())
def test_a_copied_detector_finds_the_same(name: str, way: Callable[[Detector], Detector]) -> None:
    detector = create_detector(name, min_face=30, threshold=0.4)
    (photo,) = photos(1)
    expected, found = detector.detect(photo), way(detector).detect(photo)
    assert expected
    np.testing.assert_array_equal([face.box_xyxy for face in found], [face.box_xyxy for face in expected])


class Fixed:
    """A detector that finds the whole picture."""

    def detect(self, image: np.ndarray) -> list[Face]:
        return [Face([0, 0, image.shape[1], image.shape[0]], 1)]


class Locked(Fixed):
    """A detector that cannot be pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


def test_a_detector_of_the_user_travels_if_it_can(tiny_onnx: Path) -> None:
    (photo,) = photos(1)
    recognizer = Recognizer(tiny_onnx, detector=Fixed())
    for way in (pickled, copy.deepcopy):
        np.testing.assert_array_equal(way(recognizer).predict(photo)[0].probs, recognizer.predict(photo)[0].probs)
    locked = Recognizer(tiny_onnx, detector=Locked())
    for way in (pickled, copy.deepcopy):
        with pytest.raises(InputError, match=r"because its Locked cannot .*lock.*; create the Recognizer in the other process"):
            way(locked)
    assert copy.copy(locked).detector is locked.detector


def test_eight_threads_get_the_answers_of_one() -> None:
    """Bit for bit: photos, and batches that are divided among the backend's own threads."""
    recognizer = Recognizer(threads=2)
    pictures = photos(24)

    def answer(i: int) -> tuple[bytes, bytes]:
        faces = recognizer.predict(pictures[i])
        boxes = np.array([np.append(face.probs, face.face.box_xyxy) for face in faces])  # type: ignore[union-attr]
        return boxes.tobytes(), recognizer.probabilities(pictures[: i + 1]).tobytes()

    alone = [answer(i) for i in range(len(pictures))]
    assert all(boxes for boxes, _ in alone)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(answer, range(len(pictures)))) == alone
