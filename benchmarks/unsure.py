"""How the share of sure answers falls on faces that cannot be seen well, and why the rule is as it is.

    python -m benchmarks.unsure fer2013.csv [--photos FOLDER]

FER2013's PublicTest, 48 x 48, is degraded as in `benchmarks.robustness`, and by painted sunglasses and masks, faces cut off at
the edge (which repeats), and turns. Pictures that show no face are added. For each the accuracy, the share of sure answers
(`Recognizer` with its defaults) and the accuracy of those are measured. `rules` compares rules on the risk-coverage curve of
all degraded faces, every kind of degradation with the same weight and clean faces with six times that.

`--photos` takes a folder of real photos with `labels.csv` (`source,x,y,label`: file, centre of a face in px, its expression). A
detector finds the faces; the photo is then degraded around each of them.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.fer2013 import SIDE, Crop, about_model, add_arguments, load_sample
from benchmarks.record import Row, argument_parser, write_run
from benchmarks.robustness import DAMAGES, Rng, Value
from mien.faces.quality import DETAIL, HIDDEN_COST, SHARPNESS, measure_quality, trusted
from mien.image import read_image
from mien.predict.recognizer import Recognizer
from mien.structures import Face, Quality

Point = tuple[float, float]

TOLERANCE = 0.03
"""How much more may be left of the sure answers than of the accuracy: two standard errors of 500 faces."""


def sunglasses(image: Crop, grey: Value, eyes: Sequence[Point], width: float) -> Crop:
    """Paint two lenses around the eyes; `width` is the distance between the eyes."""
    picture = Image.fromarray(image)
    draw, ink = ImageDraw.Draw(picture), (int(grey),) * (1 if image.ndim == 2 else 3)
    for x, y in eyes:
        draw.ellipse([x - 0.44 * width, y - 0.3 * width, x + 0.44 * width, y + 0.3 * width], fill=ink)
    draw.line([*eyes[0], *eyes[1]], fill=ink, width=max(1, round(0.08 * width)))
    return np.asarray(picture)


def mask(image: Crop, grey: Value, nose: Point, mouth: Point, width: float) -> Crop:
    """Paint a mask from the nose to the chin; `width` is the distance between the eyes."""
    (x, y), height = nose, 2.4 * (mouth[1] - nose[1])
    edge = [(x - w * width, y + h * height) for w, h in ((1, 0), (0, -0.15), (-1, 0), (-0.9, 0.75), (0, 1), (0.9, 0.75))]
    picture = Image.fromarray(image)
    ImageDraw.Draw(picture).polygon(edge, fill=(int(grey),) * (1 if image.ndim == 2 else 3))
    return np.asarray(picture)


def patterned_mask(image: Crop, pattern: Value, nose: Point, mouth: Point, width: float) -> Crop:
    """Paint a mask with a pattern of two greys instead of one grey, which has detail as a mouth has."""
    painted = mask(image, 0, nose, mouth, width) != mask(image, 255, nose, mouth, width)
    rows, columns = np.indices(image.shape[:2]) // max(1, round(width / 6))
    dark = {"stripes": rows % 2, "checks": (rows + columns) % 2, "dots": (rows % 2) & (columns % 2)}[str(pattern)]
    colours = np.where(dark == 1, 70, 190).astype(np.uint8)
    return np.where(painted, colours.reshape(*dark.shape, *(1,) * (image.ndim - 2)), image)


def hand(image: Crop, share: Value, mouth: Point, width: float) -> Crop:
    """Paint three fingers over this share of the mouth, in the face's own grey or colour, with shadows between them."""
    skin = np.median(image.reshape(-1, *image.shape[2:]), axis=0).astype(int)
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    for finger in range(3):
        top = mouth[1] - 0.5 * width + finger * 0.36 * width
        edges = [mouth[0] + (0.9 - 1.5 * float(share)) * width, top, mouth[0] + 2 * width, top + 0.34 * width]
        ink, line = (tuple(np.atleast_1d(colour).tolist()) for colour in (skin, skin // 2))
        draw.rounded_rectangle(edges, radius=0.15 * width, fill=ink, outline=line)
    return np.asarray(picture)


def cut(face: Crop, how: Value, rng: Rng) -> Crop:
    """Cut off a part of the face and repeat its edge there, as mien does outside a picture."""
    side, share = str(how).split()
    turns = {"left": 0, "top": 1, "right": 2, "bottom": 3}[side]  # turns that bring this side to the left
    turned = np.rot90(face, turns).copy()
    columns = round(SIDE * int(share) / 100)
    turned[:, :columns] = turned[:, columns : columns + 1]
    return np.ascontiguousarray(np.rot90(turned, -turns))


EYES, NOSE, MOUTH, BETWEEN = ((15.0, 18.5), (33.0, 18.5)), (24.0, 26.0), (24.0, 37.8), 18.0
"""Where FER2013's faces have them, px."""

KINDS: dict[str, tuple[Callable[[Crop, Value, Rng], Crop], Sequence[Value]]] = {
    **{name: (damage.apply, damage.strengths) for name, damage in DAMAGES.items()},
    "sunglasses": (lambda face, grey, rng: sunglasses(face, grey, EYES, BETWEEN), (10, 50)),
    "mask": (lambda face, grey, rng: mask(face, grey, NOSE, MOUTH, BETWEEN), (60, 150, 220)),
    "patterned mask": (
        lambda face, pattern, rng: patterned_mask(face, pattern, NOSE, MOUTH, BETWEEN),
        ("stripes", "checks", "dots"),
    ),
    "hand": (lambda face, share, rng: hand(face, share, MOUTH, BETWEEN), (0.5, 1)),
    "cut": (cut, tuple(f"{side} {share}" for side in ("left", "right", "top", "bottom") for share in (15, 30, 45))),
    "turned": (lambda face, angle, rng: np.ascontiguousarray(np.rot90(face, int(angle) // 90)), (90, 180, 270)),
}


def no_faces(rng: Rng, images: Crop, number: int) -> Iterator[tuple[str, list[Crop]]]:
    """Yield pictures that show no face, by name."""
    yield "black", [np.zeros((SIDE, SIDE), np.uint8)]
    yield "one grey", [np.full((SIDE, SIDE), level, np.uint8) for level in range(0, 256, 5)]
    levels = [rng.normal(rng.uniform(50, 200), rng.uniform(5, 80), (SIDE, SIDE)) for _ in range(number)]
    yield "noise", [each.clip(0, 255).astype(np.uint8) for each in levels]
    ramps = [np.add.outer(*(np.linspace(0, end, SIDE) for end in rng.uniform(-120, 120, 2))) + 128 for _ in range(number)]
    yield "gradients", [each.clip(0, 255).astype(np.uint8) for each in ramps]
    blobs = [Image.fromarray(rng.integers(0, 256, (m, m), dtype=np.uint8)) for m in rng.integers(3, 24, number)]
    yield "blobs", [np.asarray(each.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for each in blobs]
    tiles = images[:number].reshape(-1, 4, 12, 4, 12).swapaxes(2, 3).reshape(-1, 16, 12, 12)
    tiles = np.stack([each[rng.permutation(16)] for each in tiles]).reshape(-1, 4, 4, 12, 12).swapaxes(2, 3)
    yield "shuffled faces", list(tiles.reshape(-1, SIDE, SIDE))


class Answers:
    """The answers to some faces: confidence, whether each is right, and the quality of each face."""

    def __init__(
        self, recognizer: Recognizer, crops: Sequence[Crop], target: NDArray[np.int64] | None, seen: Sequence[Quality]
    ) -> None:
        probs = recognizer.probabilities(crops)
        self.confidence, self.quality = probs.max(axis=1), seen
        self.right = np.zeros(len(probs), np.bool_) if target is None else probs.argmax(axis=1) == target
        self.sure = (
            np.array([trusted(float(p), q) for p, q in zip(self.confidence, seen, strict=True)]) >= recognizer.unsure_below
        )

    def figures(self, clean: Answers | None = None) -> dict[str, Any]:
        """Return accuracy, share of sure answers and their accuracy; with `clean`, also how much is left of the first two."""
        found = {
            "faces": len(self.right),
            "accuracy": float(self.right.mean()),
            "confidence": float(self.confidence.mean()),
            "sure": float(self.sure.mean()),
            "accuracy_of_sure": float(self.right[self.sure].mean()) if self.sure.any() else None,
        }
        if clean is not None:
            found |= {"accuracy_left": found["accuracy"] / clean.right.mean(), "sure_left": found["sure"] / clean.sure.mean()}
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}


def ready(recognizer: Recognizer, crops: Sequence[Crop], target: NDArray[np.int64] | None = None) -> Answers:
    least = recognizer.backend.info.preprocess.min_contrast
    return Answers(recognizer, crops, target, measure_quality(crops, [None] * len(crops), None, least))


def rules(found: dict[str, list[Answers]]) -> dict[str, dict[str, float]]:
    """Return, for each rule, the area under the risk-coverage curve, and coverage and accuracy at a limit of 0.5."""
    from sklearn.linear_model import LogisticRegression

    groups = [each for answers in found.values() for each in answers]
    share = {"none": 6.0} | dict.fromkeys(set(found) - {"none"}, 1.0)
    weight = np.concatenate([np.full(len(a.right), share[k] / len(of) / len(a.right)) for k, of in found.items() for a in of])
    confidence, right = (np.concatenate([getattr(each, name) for each in groups]) for name in ("confidence", "right"))
    sharpness, detail, light = (
        np.array([getattr(q, name) for each in groups for q in each.quality]) for name in ("sharpness", "detail", "brightness")
    )
    blank, hidden = ~((sharpness >= SHARPNESS[0]) & (sharpness <= SHARPNESS[1])), detail < DETAIL
    logit = np.log(confidence / (1 - confidence + 1e-6))
    columns = np.stack(
        [logit, np.log1p(sharpness), np.log1p(detail), np.minimum(np.log1p(detail), 2), light / 255, (light / 255) ** 2], 1
    )
    columns = (columns - columns.mean(0)) / columns.std(0)
    fold, logistic = np.concatenate([np.arange(len(each.right)) % 5 for each in groups]), np.zeros(len(right))
    for number in range(5):  # a face and its degraded copies are in one fold
        fitted = LogisticRegression().fit(columns[fold != number], right[fold != number], weight[fold != number] * 1e4)
        logistic[fold == number] = fitted.predict_proba(columns[fold == number])[:, 1]
    scores = {
        "confidence alone": confidence,
        "nothing to see is unsure": np.where(blank, 0, confidence),
        "the rule: a hidden eye or mouth also takes 0.2": np.where(blank, 0, confidence - HIDDEN_COST * hidden),
        "a hidden eye or mouth is unsure": np.where(blank | hidden, 0, confidence),
        "logistic regression of confidence, sharpness, detail and brightness": logistic,
    }
    return {name: _curve(score, right, weight) for name, score in scores.items()}


def _curve(score: NDArray[Any], right: NDArray[np.bool_], weight: NDArray[Any]) -> dict[str, float]:
    order = np.argsort(-score, kind="stable")
    covered = np.cumsum(weight[order])
    risk = 1 - np.cumsum((weight * right)[order]) / covered
    area = float((risk * weight[order]).sum() / covered[-1])
    at = score >= 0.5
    figures = {
        "aurc": area,
        "coverage": weight[at].sum() / covered[-1],
        "accuracy": (weight * right)[at].sum() / weight[at].sum(),
    }
    return {key: round(float(value), 4) for key, value in figures.items()}


def photos(recognizer: Recognizer, folder: Path) -> dict[str, Any]:
    """Return the figures of the labelled faces of real photos that the detector finds, degraded in each way."""
    crops: dict[str, list[Crop]] = {}
    seen: dict[str, list[Quality]] = {}
    target = []
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    for source in sorted({line["source"] for line in lines}):
        image = read_image(folder / source)
        faces = recognizer.find_faces(image)
        for line in (line for line in lines if line["source"] == source):
            centre = np.array([float(line["x"]), float(line["y"])])
            inside = [f for f in faces if (f.box_xyxy[:2] < centre).all() and (centre < f.box_xyxy[2:]).all()]
            if not inside or inside[0].landmarks is None:
                continue
            target.append(recognizer.classes.index(line["label"]))
            for name, degraded in _degraded_photo(image, inside[0]):
                crop = recognizer.crops(degraded, [inside[0]])
                crops.setdefault(name, []).extend(crop)
                least = recognizer.backend.info.preprocess.min_contrast
                seen.setdefault(name, []).extend(measure_quality(crop, [inside[0]], degraded.shape[:2], least))
    answers = {name: Answers(recognizer, crops[name], np.array(target), seen[name]) for name in crops}
    return {name: each.figures(answers["none"]) for name, each in answers.items()} | {"labelled": len(lines)}


def _degraded_photo(image: Crop, face: Face) -> Iterator[tuple[str, Crop]]:
    assert face.landmarks is not None
    left, top, right, bottom = (round(edge) for edge in face.box_xyxy.tolist())
    side = max(right - left, bottom - top)
    y0, x0 = max(0, top - side), max(0, left - side)
    around = image[y0 : bottom + side, x0 : right + side]  # large photos need not be blurred as a whole

    def put(part: Any) -> Crop:
        whole = image.copy()
        whole[y0 : bottom + side, x0 : right + side] = np.asarray(part)
        return whole

    points = face.landmarks.astype(float)
    eyes, nose, mouth = [(x, y) for x, y in points[:2].tolist()], tuple(points[2]), tuple(points[3:].mean(0))
    width = float(np.hypot(*(points[1] - points[0])))
    yield "none", image
    for sigma in (0.02, 0.04, 0.08):
        yield f"blur {100 * sigma:g} % of the face", put(Image.fromarray(around).filter(ImageFilter.GaussianBlur(sigma * side)))
    for light in (0.3, 0.15, 0.08, 0.04):
        yield f"darkness {100 * light:g} %", (image * light).round().astype(np.uint8)
    yield "sunglasses", sunglasses(image, 20, eyes, width)
    yield "mask", mask(image, 170, nose, mouth, width)  # type: ignore[arg-type]
    small = [max(1, round(edge * 16 / side)) for edge in around.shape[1::-1]]
    yield (
        "16 px",
        put(Image.fromarray(around).resize(small, Image.Resampling.BOX).resize(around.shape[1::-1], Image.Resampling.BICUBIC)),
    )
    for share in (25, 45):
        yield f"cut off below, {share} %", image[: max(1, bottom - round(share / 100 * (bottom - top)))]


def main() -> None:
    parser = argument_parser(__doc__)
    add_arguments(parser, 500)
    parser.add_argument("--photos", type=Path, help="a folder of photos with labels.csv")
    arguments = parser.parse_args()
    recognizer = Recognizer(arguments.model, detector="mtcnn" if arguments.photos else None, threads=arguments.threads)
    sample = load_sample(arguments, number=100 if arguments.quick else arguments.number)
    seed, faces = arguments.seed, sample.images
    found = {"none": [ready(recognizer, list(faces), sample.target)]}
    clean, points = found["none"][0], {}
    for kind, (apply, strengths) in KINDS.items():
        for strength in strengths:
            crops = [apply(face, strength, np.random.default_rng((seed, i))) for i, face in enumerate(faces)]
            answers = ready(recognizer, crops, sample.target)
            found.setdefault(kind, []).append(answers)
            points[f"{kind} {strength}"] = answers.figures(clean)
        print(kind, flush=True)
    empty = {name: ready(recognizer, crops).figures() for name, crops in no_faces(np.random.default_rng(seed), faces, 300)}
    about = {"clean": clean.figures(), "degraded": points, "no_face": empty, "rules": rules(found)}
    real = photos(recognizer, arguments.photos) if arguments.photos else None
    slower = [name for name, each in points.items() if each["sure_left"] > each["accuracy_left"] + TOLERANCE]
    figures = {"data": sample.about, "model": about_model(recognizer), **about, "photos": real, "sure_falls_slower": slower}
    summary: list[Row] = [("sure, undegraded", f"{100 * about['clean']['sure']:.1f} %", "")]
    summary += [("degradations where sure answers fall slower than accuracy", f"{len(slower)} of {len(points)}", "0")]
    summary += [(f"sure, {name}", f"{100 * each['sure']:.1f} %", "0 %") for name, each in empty.items()]
    summary += [(name, f"aurc {each['aurc']:.4f}", "") for name, each in about["rules"].items()]
    write_run("unsure", figures, summary, arguments)


if __name__ == "__main__":
    main()
