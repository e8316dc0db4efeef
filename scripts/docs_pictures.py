"""The pictures of the documentation: what they are made from, and how they are drawn.

Most are the output of a mien command on the photo docs/assets/astronaut.jpg. Others are copies of what `mien train`,
`mien evaluate` and the benchmarks wrote. Each picture's source is stored in the PNG file, so that scripts/generate_docs.py
can tell whether it is up to date. To draw one again, delete it and run `make tables`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import av
import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image, ImageEnhance
from PIL.PngImagePlugin import PngInfo

from mien import weights

matplotlib.use("Agg")

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "docs/assets"
PHOTO = ASSETS / "astronaut.jpg"
AUDIT = ROOT / "results/audit/fer2013.json"
SMALL_RUN = "results/fer2013/dlib_resnet/distilled-seed0"
SOURCE_KEY = "mien-source"
"""Field of the PNG file that names what the picture was made from."""


class Picture(NamedTuple):
    """One picture: what identifies its source, and a function that returns the picture."""

    source: Callable[[], str]
    draw: Callable[[], Image.Image]


def is_current(name: str) -> bool:
    """Return whether a picture exists and was made from the present source."""
    path = ASSETS / name
    if not path.is_file():
        return False
    with Image.open(path) as picture:
        return picture.info.get(SOURCE_KEY) == PICTURES[name].source()


def write(name: str) -> None:
    """Draw a picture and write it to docs/assets/."""
    facts = PngInfo()
    facts.add_text(SOURCE_KEY, PICTURES[name].source())
    PICTURES[name].draw().save(ASSETS / name, pnginfo=facts, optimize=True)


def newest_run(benchmark: str, model: str | None = None) -> Path:
    """Return the newest JSON file that a benchmark left in benchmarks/runs/, by the date in its name; of one model, or any."""
    end = f"-{benchmark}.json" if model is None else f"-{benchmark}-{model}.json"
    return max((ROOT / "benchmarks/runs").glob(f"*{end}"), key=lambda path: path.name)


def _default_model() -> str:
    return weights.sha256(weights.bundled()[weights.DEFAULT])


def _mien(folder: Path, *words: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "MIEN_CACHE": str(folder / "cache")}
    subprocess.run([sys.executable, "-m", "mien", *words], cwd=folder, env=environment, check=True, capture_output=True)


def _annotated_photo() -> Image.Image:
    with tempfile.TemporaryDirectory() as name:
        _mien(Path(name), "predict", str(PHOTO), "--annotate", "out.png")
        return _read(Path(name) / "out.png")


def _languages() -> Image.Image:
    """Return the photo's face with its labels in two languages, side by side; it needs a font with Chinese letters."""
    drawn = Image.new("RGB", (2 * 340, 200))
    with tempfile.TemporaryDirectory() as name:
        for number, code in enumerate(("zh", "de")):
            _mien(Path(name), "predict", str(PHOTO), "--annotate", "out.png", "--language", code)
            drawn.paste(_read(Path(name) / "out.png").crop((100, 10, 440, 210)), (340 * number, 0))
    return drawn


def _explained_photo() -> Image.Image:
    with tempfile.TemporaryDirectory() as name:
        _mien(Path(name), "explain", str(PHOTO), "--method", "rise", "--method", "occlusion", "--out", "out")
        return _read(Path(name) / "out/astronaut.png")


@cache
def _clip() -> dict[str, Image.Image]:
    """Return what the pages show of one short video: a frame of it annotated, its timeline and the chart of docs/tables.md."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_clip(folder / "clip.mp4")
        _mien(folder, "predict", "clip.mp4", "--out", "talk.csv", "--annotate", "drawn.mp4", "--timeline", "timeline.png")
        code = re.search(r"```python\n((?:(?!```).)*chart\.png.*?)```", (ROOT / "docs/tables.md").read_text(), re.DOTALL)
        assert code is not None
        subprocess.run([sys.executable, "-c", code[1]], cwd=folder, check=True)
        with av.open(str(folder / "drawn.mp4")) as drawn:
            frame = next(frame for frame in drawn.decode(video=0) if frame.time >= 6).to_image()
        return {"frame": frame, "timeline": _read(folder / "timeline.png"), "chart": _read(folder / "chart.png")}


def write_clip(path: Path) -> None:
    """Write 12 s of the photo twice: on the left the light fades and returns, on the right the mouth is covered."""
    face = Image.open(PHOTO).convert("RGB").crop((60, 0, 380, 320))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 640, 320, "yuv420p"
        for index in range(120):
            time = index / 10
            light = 1 - 0.93 * np.sin(np.pi * np.clip((time - 2) / 8, 0, 1))
            picture = Image.new("RGB", (640, 320))
            picture.paste(ImageEnhance.Brightness(face).enhance(float(light)), (0, 0))
            picture.paste(face, (320, 0))
            if 3 <= time < 7:
                picture.paste((120, 120, 120), (450, 120, 520, 165))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), "rgb24")))
        container.mux(stream.encode())


def _anonymised_frame() -> Image.Image:
    """Return the frame that docs/video.md shows, with its faces covered."""
    with tempfile.TemporaryDirectory() as name:
        write_clip(Path(name) / "clip.mp4")
        _mien(Path(name), "anonymise", "clip.mp4", "--out", "covered.mp4")
        with av.open(str(Path(name) / "covered.mp4")) as covered:
            return next(frame for frame in covered.decode(video=0) if frame.time >= 6).to_image()


def _prepared_faces() -> Image.Image:
    """Return the faces that `mien prepare` writes for one training photo, in three rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = folder / "photos/train/happy"
        photos.mkdir(parents=True)
        (photos / PHOTO.name).write_bytes(PHOTO.read_bytes())
        _mien(folder, "prepare", "photos", "--out", "faces", "--size", "112")
        faces = [_read(path) for path in sorted((folder / "faces").rglob("*.png"))]
    sheet = Image.new("RGB", (5 * 116 - 4, 3 * 116 - 4), "white")
    for index, face in enumerate(faces):
        sheet.paste(face, (index % 5 * 116, index // 5 * 116))
    return sheet


def _mistakes() -> Image.Image:
    """Return what `mien analyse` draws for ten views of one photo: two are labelled happy, the others sad, angry or neutral."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = folder / "photos/train/happy"
        photos.mkdir(parents=True)
        (photos / PHOTO.name).write_bytes(PHOTO.read_bytes())
        _mien(folder, "prepare", "photos", "--out", "faces", "--size", "112")
        for number, face in enumerate(sorted((folder / "faces").rglob("*.png"))[:10]):
            labelled = folder / "labelled" / ("sad", "angry", "neutral", "happy", "sad")[number % 5]
            labelled.mkdir(parents=True, exist_ok=True)
            face.rename(labelled / face.name)
        options = ("--corpus", "folder", "--option", "size=112", "--option", "colour=true")
        _mien(folder, "evaluate", weights.DEFAULT, "--data", "labelled", *options, "--out", "result.json")
        _mien(folder, "analyse", "result.json", "--data", "labelled", "--out", "analysis")
        return _read(folder / "analysis/mistakes.png").reduce(2).quantize(256)


def _class_counts() -> Image.Image:
    """Return a bar chart of the images of each class in FER2013's training split, from its audit."""
    numbers = json.loads(AUDIT.read_text(encoding="utf-8"))["statistics"]
    figure, axes = pyplot.subplots(figsize=(7, 2.6), dpi=150, layout="constrained")
    bars = axes.bar(numbers["classes"], [row[numbers["splits"].index("train")] for row in numbers["counts"]], color="#4051b5")
    axes.bar_label(bars, fmt="{:,.0f}", fontsize=9)
    axes.set_ylabel("images")
    return _finish(figure)


def _inference_speed() -> Image.Image:
    """Return a bar chart of the speed of the default model in torch, as ONNX and as int8, from the newest benchmark."""
    run = json.loads(newest_run("inference").read_text(encoding="utf-8"))
    speed = run["batch"]["crops_per_second"]
    names = {"eager": "torch, float32", "fp32": "ONNX, float32", "int8": "ONNX, int8"}
    figure, axes = pyplot.subplots(figsize=(7, 1.8), dpi=150, layout="constrained")
    bars = axes.barh(list(names.values()), [speed[f"{name} predict_faces"] for name in names], color="#4051b5")
    axes.bar_label(bars, fmt=" {:,.0f}", fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel(f"face crops per second, {run['hardware']['cores']} cores, {run['hardware']['processor']}")
    return _finish(figure)


def _figure(kind: str, inputs: list[str], latencies: Sequence[str] = ()) -> Picture:
    """Return what `mien figure` draws from committed files; its source is their content."""
    paths, benchmarks = [ROOT / name for name in inputs], [ROOT / "benchmarks/runs" / name for name in latencies]

    def source() -> str:
        files = [*(file for path in paths for file in (sorted(path.rglob("*.csv")) if path.is_dir() else [path])), *benchmarks]
        return hashlib.sha256("".join(map(weights.sha256, files)).encode()).hexdigest()

    def draw() -> Image.Image:
        options = [word for path in benchmarks for word in ("--latency", str(path))]
        with tempfile.TemporaryDirectory() as name:
            _mien(Path(name), "figure", kind, *map(str, paths), *options, "--out", "figure.png")
            return _read(Path(name) / "figure.png").quantize(64)  # few colours: a third of the bytes

    return Picture(source, draw)


def _finish(figure: Figure) -> Image.Image:
    for side in ("top", "right"):
        figure.axes[0].spines[side].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file)
    pyplot.close(figure)
    return Image.open(file).convert("RGB")


def _read(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def _copy(find: Callable[[], Path]) -> Picture:
    return Picture(lambda: weights.sha256(find()), lambda: _read(find()))


PICTURES: dict[str, Picture] = {
    "astronaut-annotated.png": Picture(_default_model, _annotated_photo),
    "languages.png": Picture(_default_model, _languages),
    "explained.png": Picture(_default_model, _explained_photo),
    "video-frame.png": Picture(_default_model, lambda: _clip()["frame"]),
    "timeline.png": Picture(_default_model, lambda: _clip()["timeline"]),
    "chart.png": Picture(_default_model, lambda: _clip()["chart"]),
    "anonymised.png": Picture(lambda: "mien anonymise", _anonymised_frame),
    "prepared.png": Picture(lambda: "mien prepare --size 112", _prepared_faces),
    "crop.png": _copy(lambda: newest_run("crop").with_suffix(".png")),
    "robustness.png": _copy(lambda: newest_run("robustness", weights.DEFAULT).with_suffix(".png")),
    "curves.png": _copy(lambda: ROOT / "results/fer2013/sa_csp_ca/seed0/curves.png"),
    "classes.png": Picture(lambda: weights.sha256(AUDIT), _class_counts),
    "speed.png": Picture(lambda: newest_run("inference").name, _inference_speed),
    "figure-confusion.png": _figure("confusion", [f"{SMALL_RUN}/private_test-onnx.json"]),
    "figure-curves.png": _figure("curves", ["results/fer2013/sa_csp_ca"]),
    "figure-rates.png": _figure("rates", [f"{SMALL_RUN}/private_test-onnx.json"]),
    "figure-risk-coverage.png": _figure("risk-coverage", [f"{SMALL_RUN}/private_test-onnx.json"]),
    "mistakes.png": Picture(_default_model, _mistakes),
    "figure-cost.png": _figure(
        "cost",
        [
            f"{run}/private_test-onnx{kind}.json"
            for run in (SMALL_RUN, "results/fer2013/sa_csp_ca/again-seed0")
            for kind in ("", "-int8")
        ],
        ["2026-11-26-24dcfb1-inference.json", "2026-11-26-24dcfb1-inference-sa_csp_ca.json"],
    ),
}
"""Every picture of docs/assets/ that a command drew."""
