"""Accuracy on small, blurred, noisy, compressed, dark, pale and covered faces.

    python -m benchmarks.robustness fer2013.csv

The faces are FER2013's PublicTest, 48 x 48, as the corpus crops them. No detector is used, because it would drop some of the
worst faces before the network sees them. Each face is degraded in one way at a time, by increasing strength. Randomness (noise,
the position of a square) depends on the seed and the face's number only, and is the same at every strength. The mean confidence
next to the accuracy tells whether the network knows. `-robustness.png` next to the JSON shows all of it; the table is printed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from benchmarks.fer2013 import SIDE, Crop, Sample, about_model, add_arguments, load_sample, score
from benchmarks.record import Row, argument_parser, write_run
from mien.predict.recognizer import Recognizer

Rng = np.random.Generator
Value = float | str

PARTS = {"eyes": (0.22, 0.48), "nose": (0.42, 0.70), "mouth": (0.68, 0.94), "lower half": (0.5, 1.0), "upper half": (0.0, 0.5)}
"""Rows that a bar from ear to ear covers, as fractions of the face's height."""


def smaller(face: Crop, side: Value, rng: Rng) -> Crop:
    return np.asarray(Image.fromarray(face).resize((int(side), int(side)), Image.Resampling.BILINEAR))


def blurred(face: Crop, sigma: Value, rng: Rng) -> Crop:
    return np.asarray(Image.fromarray(face).filter(ImageFilter.GaussianBlur(float(sigma))))


def noisy(face: Crop, sigma: Value, rng: Rng) -> Crop:
    return (face + float(sigma) * rng.standard_normal(face.shape)).round().clip(0, 255).astype(np.uint8)


def compressed(face: Crop, quality: Value, rng: Rng) -> Crop:
    stream = io.BytesIO()
    Image.fromarray(face).save(stream, "JPEG", quality=int(quality))
    return np.asarray(Image.open(stream))


def darker(face: Crop, light: Value, rng: Rng) -> Crop:
    return (face * float(light)).round().astype(np.uint8)


def paler(face: Crop, contrast: Value, rng: Rng) -> Crop:
    return (face.mean() + float(contrast) * (face - face.mean())).round().clip(0, 255).astype(np.uint8)


def square(face: Crop, share: Value, rng: Rng) -> Crop:
    """Cover a black square of that share of the face's area, somewhere."""
    side = round(SIDE * float(share) ** 0.5)
    top, left = (rng.random(2) * (SIDE - side + 1)).astype(int)
    covered = face.copy()
    covered[top : top + side, left : left + side] = 0
    return covered


def bar(face: Crop, part: Value, rng: Rng) -> Crop:
    """Cover a part of the face by a black bar."""
    first, last = (round(SIDE * edge) for edge in PARTS[str(part)])
    covered = face.copy()
    covered[first:last] = 0
    return covered


@dataclass(frozen=True)
class Damage:
    """One way of damage: what it is called, what its strength counts, how it is done and how strong, the mildest first."""

    title: str
    unit: str
    apply: Callable[[Crop, Value, Rng], Crop]
    strengths: Sequence[Value]


DAMAGES: dict[str, Damage] = {
    "size": Damage("Small face", "side of the face, px", smaller, (40, 32, 24, 20, 16, 12, 10, 8)),
    "blur": Damage("Blur", "sigma, px of 48", blurred, (0.5, 1, 1.5, 2, 3, 4)),
    "noise": Damage("Noise", "sigma, of 255 levels", noisy, (5, 10, 20, 30, 40, 60)),
    "jpeg": Damage("JPEG compression", "quality", compressed, (90, 70, 50, 30, 20, 10, 5)),
    "dark": Damage("Darkness", "light left, %", darker, (0.7, 0.5, 0.3, 0.2, 0.1, 0.05)),
    "contrast": Damage("Low contrast", "contrast left, %", paler, (0.7, 0.5, 0.3, 0.2, 0.1, 0.05)),
    "square": Damage("Covered square", "share of the face, %", square, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "part": Damage("Covered part", "", bar, tuple(PARTS)),
}
PER_CENT = ("dark", "contrast", "square")


def label(name: str, strength: Value) -> str:
    """Return a strength as tables and axes write it."""
    return (
        f"{100 * float(strength):g}"
        if name in PER_CENT
        else f"{strength:g}"
        if isinstance(strength, (int, float))
        else strength
    )


def measure(recognizer: Recognizer, sample: Sample) -> dict[str, Any]:
    """Return the score of the clean faces and of every damage at every strength."""
    seed = sample.about["seed"]
    curves: dict[str, dict[str, Any]] = {}
    for name, damage in DAMAGES.items():
        points = []
        for strength in damage.strengths:
            crops = [damage.apply(face, strength, np.random.default_rng((seed, i))) for i, face in enumerate(sample.images)]
            points.append({"strength": strength, "label": label(name, strength), **score(recognizer, crops, sample)})
        curves[name] = {"title": damage.title, "unit": damage.unit, "points": points}
        print(f"  {damage.title}: {as_text(points).replace('*', '')}", flush=True)
    return {"clean": score(recognizer, list(sample.images), sample), "curves": curves}


def as_text(points: list[dict[str, Any]]) -> str:
    """Return a curve as text: each strength and the accuracy under it, %."""
    return ", ".join(f"{point['label']}: **{100 * point['accuracy']:.1f}**" for point in points)


def markdown(found: dict[str, Any]) -> str:
    """Return the figures as a table, as the documentation shows it."""
    lines = [("damage", "its strength, from mild to strong, and the accuracy under it, %"), ("---", "---")]
    lines.append(("none", f"**{100 * found['clean']['accuracy']:.1f}**"))
    for curve in found["curves"].values():
        lines.append((curve["title"] + (f" ({curve['unit']})" if curve["unit"] else ""), as_text(curve["points"])))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw accuracy and confidence against strength, one small picture a damage, all with one vertical axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.6), layout="constrained")
    axes = figure.subplots(2, 4, sharey=True)
    for axis, (name, curve) in zip(axes.flat, found["curves"].items(), strict=True):
        _panel(axis, name, curve, found)
    for row in axes:
        row[0].set_ylabel("% of faces")
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False, fontsize=9.5)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _panel(axis: Any, name: str, curve: dict[str, Any], found: dict[str, Any]) -> None:
    rows, places = curve["points"], np.arange(len(curve["points"]))
    accuracy, confidence = (100 * np.array([row[key] for row in rows]) for key in ("accuracy", "confidence"))
    axis.axhline(100 * found["clean"]["accuracy"], color="0.35", lw=1, ls="--", label="accuracy, undamaged")
    axis.axhline(100 * found["most_frequent_class"], color="0.6", lw=1, ls=":", label="always the most frequent class")
    if name == "part":  # no order among them: bars
        axis.bar(places, accuracy, 0.62, color="#0b5394", label="accuracy")
        axis.plot(places, confidence, "o", color="#e69138", ms=5, mfc="white", label="mean confidence")
    else:
        axis.plot(places, accuracy, "o-", color="#0b5394", ms=4, lw=1.8, label="accuracy")
        axis.plot(places, confidence, "o-", color="#e69138", ms=4, lw=1.2, mfc="white", label="mean confidence")
    axis.set_xticks(places, [row["label"].replace(" ", "\n") for row in rows], fontsize=8.5)
    axis.set_xlabel(curve["unit"], fontsize=9)
    axis.set_title(curve["title"], fontsize=10.5, loc="left", fontweight="bold")
    axis.set_ylim(0, 80)
    axis.grid(axis="y", color="0.9", lw=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="y", labelsize=8.5, length=0)


def summary(found: dict[str, Any]) -> list[Row]:
    clean = found["clean"]["accuracy"]
    rows: list[Row] = [("undamaged", f"{100 * clean:.1f} %", "")]
    for name, curve in found["curves"].items():
        points = curve["points"]
        worst = points[-1] if name != "part" else min(points, key=lambda point: point["accuracy"])
        what = f"{curve['title']}: {worst['label']}" + (f" ({curve['unit']})" if curve["unit"] else "")
        rows.append((what, f"{100 * worst['accuracy']:.1f} % ({100 * (worst['accuracy'] - clean):+.1f})", ""))
    return rows


def main() -> None:
    parser = argument_parser(__doc__)
    add_arguments(parser)
    arguments = parser.parse_args()
    recognizer = Recognizer(arguments.model, detector=None, threads=arguments.threads)
    sample = load_sample(arguments, number=300 if arguments.quick else arguments.number)
    frequent = float(np.bincount(sample.target).max() / len(sample.target))
    found = {
        "data": sample.about,
        "model": about_model(recognizer),
        "most_frequent_class": round(frequent, 4),
        **measure(recognizer, sample),
    }
    path = write_run(f"robustness-{Path(found['model']['file']).stem}", found, summary(found), arguments)
    draw(found, path.with_suffix(".png"))
    print(f"\n{markdown(found)}")


if __name__ == "__main__":
    main()
