"""Accuracy and crops per second of mien and of `fer` 25.10, the only other package that works offline.

    python -m venv fer && fer/bin/pip install fer==25.10 'tensorflow-cpu<2.20' 'numpy<2' 'setuptools<81'
    python -m benchmarks.peer_fer fer2013.csv --ckplus CK+48 --python fer/bin/python

`fer` has an environment and a process of its own, and the two take turns on the same two cores. `fer` gets each face in two
ways: as its README says, with the whole crop as the face's rectangle; and as it works best, with the crop alone
(`offsets=(0, 0)`, so that it adds no margin). Its network also runs as TFLite on whole batches, its fastest form.

For accuracy, its own code prepares every face and its network classifies them in batches. That takes minutes instead of hours.
The benchmark checks, on the faces it times, that the answers equal those given one by one. The split is `public_test` unless
`--split` names another; the final figures are of private_test, evaluated once. CK+48 is measured as it is and padded by 4 px,
on the six expressions that both know. No network here was trained on it.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import Row, argument_parser, write_run
from benchmarks.timing import interleaved
from mien import weights
from mien.datasets import load_corpus
from mien.labels import label_set
from mien.predict.recognizer import Recognizer

PEER = """
import json, logging, os, sys, time
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what the libraries print is not an answer
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import cv2, numpy as np
logging.disable(logging.CRITICAL)
import tensorflow as tf
from fer.fer import FER
pictures = {data: [cv2.cvtColor(crop, cv2.COLOR_GRAY2BGR) for crop in crops] for data, crops in np.load(sys.argv[1]).items()}
labels = ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
def sold(offsets):
    fer = FER(offsets=offsets)
    classify = fer._classify_emotions
    def run(many, at_once):
        kept = []
        def keep(faces):
            kept.extend(faces)
            return np.zeros((len(faces), len(labels)))
        fer._classify_emotions = keep if at_once else classify
        found = [fer.detect_emotions(picture, [(0, 0, *picture.shape[1::-1])])[0]["emotions"] for picture in many]
        if at_once:
            parts = [np.array(kept[i : i + 128]) for i in range(0, len(kept), 128)]
            return np.concatenate([np.asarray(classify(part)) for part in parts]).round(2)
        return np.array([[scores[name] for name in labels] for scores in found])
    return run
keras = FER()._FER__emotion_classifier
converter = tf.lite.TFLiteConverter.from_keras_model(keras)
lite = tf.lite.Interpreter(model_content=converter.convert(), num_threads=int(sys.argv[2]))
def batched(many, at_once, size=64):
    x = np.stack([cv2.resize(cv2.cvtColor(p, cv2.COLOR_BGR2GRAY), (64, 64)) for p in many]).astype("float32") / 127.5 - 1
    found = []
    place = lite.get_input_details()[0]
    if place["shape"][0] != size:
        lite.resize_tensor_input(place["index"], (size, 64, 64, 1))
        lite.allocate_tensors()
    for i in range(0, len(x), size):
        part = x[i : i + size, ..., None]
        filled = np.zeros((size, 64, 64, 1), "float32")  # a second resize would cost the fast kernels of XNNPACK
        filled[: len(part)] = part
        lite.set_tensor(place["index"], filled)
        lite.invoke()
        found.append(lite.get_tensor(lite.get_output_details()[0]["index"])[: len(part)])
    return np.concatenate(found)
ways = {"fer, as its README says": sold((10, 10)), "fer, the crop it likes": sold((0, 0)), "fer, TFLite in batches": batched}
for line in sys.stdin:
    name, data, stop, at_once = json.loads(line)
    began = time.perf_counter()
    found = ways[name](pictures[data][:stop], at_once)
    print(json.dumps([time.perf_counter() - began, found.argmax(1).tolist()]), file=answers, flush=True)
"""

WAYS = ("fer, as its README says", "fer, the crop it likes", "fer, TFLite in batches")
OURS = (weights.DEFAULT, f"{weights.DEFAULT}-int8")
TIMED = "fer2013"
"""Name of the crops that are timed."""


PAD = 4
"""Pixels of padding in the second evaluation on CK+48, whose frames are cropped more tightly than FER2013's."""

Faces = tuple[list[NDArray[np.uint8]], NDArray[np.int64]]
"""Crops and their classes, by FER2013's numbers."""


class Peer:
    """`fer` in its own process, its models loaded."""

    def __init__(self, python: Path, crops: Path, threads: int) -> None:
        command = [str(python), "-W", "ignore", "-c", PEER, str(crops), str(threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def ask(self, way: str, data: str, number: int, at_once: bool = False) -> tuple[float, list[int]]:
        """Return the seconds and the classes of the first crops of some data, one by one or in batches."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([way, data, number, at_once]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("fer's process has ended; is fer 25.10 installed there, with tensorflow?")
        return tuple(json.loads(line))  # type: ignore[return-value]


def measure(peer: Peer, data: dict[str, Faces], rounds: int, number: int) -> dict[str, Any]:
    """Return the accuracy on all data, and crops a second of the median round on `number` of them, for each way."""
    recognizers = {name: Recognizer(name, detector=None) for name in OURS}
    figures: dict[str, Any] = {name: {"accuracy": {}} for name in (*OURS, *WAYS)}
    for what, (crops, target) in data.items():
        chosen = {name: recognizer.probabilities(crops).argmax(1) for name, recognizer in recognizers.items()}
        chosen |= {way: np.array(peer.ask(way, what, len(crops), at_once=True)[1]) for way in WAYS}
        for name, found in chosen.items():
            figures[name]["accuracy"][what] = round(float((found == target).mean()), 4)
        for way in WAYS if what == TIMED else ():
            singly = np.array(peer.ask(way, what, number)[1])
            figures[way]["agreement_one_by_one"] = round(float((chosen[way][:number] == singly).mean()), 4)
    few = data[TIMED][0][:number]
    calls: dict[str, Any] = {name: (lambda r=recognizer: r.predict_faces(few)) for name, recognizer in recognizers.items()}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    calls |= {way: (lambda way=way: seconds[way].append(peer.ask(way, TIMED, number)[0])) for way in WAYS}
    ours = interleaved(calls, rounds)
    times = {name: float(np.median(ours[name])) for name in OURS} | {way: float(np.median(seconds[way])) for way in WAYS}
    for name, each in figures.items():
        each["crops_per_second"] = round(number / times[name], 1)
    return figures


def ckplus_faces(source: Path, pad: int) -> Faces:
    """Return the frames of CK+48 whose expression FER2013 has, and their classes by FER2013's numbers."""
    corpus, names = load_corpus("ckplus", source, options={"pad": pad} if pad else {}), list(label_set("fer2013"))
    rows = [row for row, label in enumerate(corpus.target) if corpus.classes[label] in names]
    return list(corpus.read(np.array(rows))), np.array([names.index(corpus.classes[corpus.target[row]]) for row in rows])


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("data", type=Path, help="fer2013.csv")
    parser.add_argument("--python", type=Path, required=True, help="python of the environment that has fer")
    parser.add_argument("--split", default="public_test")
    parser.add_argument("--ckplus", type=Path, help="the folder or archive CK+48; also measure accuracy on it")
    arguments = parser.parse_args()
    corpus = load_corpus("fer2013", arguments.data)
    rows = corpus.where(arguments.split)
    rows = rows[:200] if arguments.quick else rows
    data: dict[str, Faces] = {TIMED: (list(corpus.read(rows)), corpus.target[rows])}
    if arguments.ckplus is not None:
        data |= {"ckplus48": ckplus_faces(arguments.ckplus, 0), "ckplus48_padded": ckplus_faces(arguments.ckplus, PAD)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "crops.npz"
        np.savez(path, **{name: np.stack(crops) for name, (crops, _) in data.items()})  # type: ignore[arg-type]
        peer = Peer(arguments.python, path, threads=2)
        figures = measure(peer, data, *((1, 64) if arguments.quick else (5, 128)))
        peer.process.stdin.close()  # type: ignore[union-attr]
        peer.process.wait()
    summary: list[Row] = [
        (
            f"{name}: accuracy on {', '.join(data)}, crops/s",
            f"{', '.join(f'{100 * share:.2f} %' for share in found['accuracy'].values())}, {found['crops_per_second']:.0f}",
            "",
        )
        for name, found in figures.items()
    ]
    images = {name: len(crops) for name, (crops, _) in data.items()}
    write_run("peer_fer", {"split": arguments.split, "images": images, "ways": figures}, summary, arguments)


if __name__ == "__main__":
    main()
