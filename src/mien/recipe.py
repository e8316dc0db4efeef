"""Recipes: everything a training run is, validated, from one YAML.

A recipe is complete (no inheritance) and strict: an unknown key is an error that names the nearest known one. The bundled
ones lie in `mien/recipes/<paper>/*.yaml` and are named `<paper>/<file>`.
"""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mien.errors import RecipeError
from mien.preprocess import PreprocessSpec
from mien.registry import nearest

Sampling = Literal["natural", "weighted", "balanced"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelPart(_Strict):
    """Which network.

    Attributes:
        name: Registered name.
        arguments: Its own arguments, ablations among them.
        start: Weights to start from: `imagenet`, or a file (see `mien.transfer`); None starts from nothing.
        frozen: Modules, by name or by the beginning of it, that are not trained.
    """

    name: str
    arguments: dict[str, Any] = {}
    start: str | None = None
    frozen: list[str] = []


class DataPart(_Strict):
    """Which corpus and which of its splits.

    Attributes:
        corpus: Registered name.
        options: Options of its reader, and `size`, `colour` and `faces`: how pictures are stored.
        protocol: How its images are split, such as `{name: kfold, folds: 10, fold: 0, by: subject}`, or several steps of that;
            empty takes the corpus's official splits (see `mien.datasets.protocols.splits`).
        train: Split the weights are fitted on.
        select: Split the best epoch is chosen on, never a test split; None keeps the last epoch.
        sampling: How often a class is drawn: `natural`, `weighted` (by the square root of its inverse frequency) or `balanced`.
        votes: Learn the distribution of votes instead of the label.
    """

    corpus: str
    options: dict[str, Any] = {}
    protocol: dict[str, Any] | list[dict[str, Any]] = {}
    train: str
    select: str | None
    sampling: Sampling = "natural"
    votes: bool = False


class PreprocessPart(_Strict):
    """See `mien.preprocess.PreprocessSpec`."""

    size: tuple[int, int]
    channels: Literal[1, 3]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_scale: float = Field(1.0, gt=0)
    crop_shift: float = 0.0
    smooth: float = Field(0.0, ge=0, le=0.7)

    def spec(self) -> PreprocessSpec:
        """Return the spec that travels with the weights."""
        return PreprocessSpec(**self.model_dump())


class AugmentPart(_Strict):
    """Random changes of a training image, each drawn anew for every image.

    Attributes:
        flip: Probability of a horizontal flip.
        degrees: Rotation, uniform in plus or minus this many degrees.
        translate: Shift, uniform in plus or minus this fraction of the side, on each axis.
        scale: Range of the zoom.
        shear: Shear, uniform in plus or minus this many degrees.
        brightness: What is added to every pixel, uniform in plus or minus this, on the scale [0, 1].
        contrast: What every pixel is multiplied with, uniform within 1 plus or minus this.
        erase: Probability that one rectangle is erased.
        erase_area: Range of the rectangle's area, as a fraction of the image.
        mixup: Alpha of mixup's Beta distribution; 0 is off.
        blur: Largest deviation of a Gaussian blur, px. Blur, dimming and noise come last, in this order, and only the network
            in training sees them: its teachers look at the image before.
        dim: Largest share of the light that is taken away; most images lose less.
        noise: Largest deviation of Gaussian noise, on the scale [0, 1].
    """

    flip: float = Field(0.5, ge=0, le=1)
    degrees: float = Field(0.0, ge=0, le=180)
    translate: float = Field(0.0, ge=0, le=0.5)
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = Field(0.0, ge=0, le=45)
    brightness: float = Field(0.0, ge=0, lt=1)
    contrast: float = Field(0.0, ge=0, lt=1)
    erase: float = Field(0.0, ge=0, le=1)
    erase_area: tuple[float, float] = (0.02, 0.2)
    mixup: float = Field(0.0, ge=0)
    blur: float = Field(0.0, ge=0, le=8)
    dim: float = Field(0.0, ge=0, lt=1)
    noise: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _ranges_go_up(self) -> AugmentPart:
        for name, (low, high), most in (("scale", self.scale, 10.0), ("erase_area", self.erase_area, 1.0)):
            if not 0 < low <= high <= most:
                raise ValueError(
                    f"augment.{name} is a range, from a number above 0 to one at most {most:g}, not [{low}, {high}]"
                )
        return self


class OptimPart(_Strict):
    """Optimiser and schedule.

    Attributes:
        name: An optimiser timm knows: sgd (Nesterov's momentum), momentum (the classical one), adam, adamw, nadam, rmsprop, ...
        lr: Peak learning rate.
        momentum: Momentum, or beta 1 of the Adam family.
        weight_decay: Decay of weights; biases and norms do not decay.
        schedule: `cosine` to zero, `constant`, or `plateau`: lower when the selection split stops getting better.
        warmup_epochs: Epochs over which the rate rises linearly from a hundredth of the peak.
        plateau_factor: What a plateau multiplies the rate with.
        plateau_patience: Epochs without a better value that are borne; the next one lowers the rate.
        plateau_metric: What must get better: `accuracy` or `loss` on the selection split.
        clip_norm: Largest norm of the whole gradient; 0 is off.
        layer_decay: Factor the rate falls by from each layer to the one below it; 1 is off. Not for networks whose layers do
            not stand one upon the other: stn_resnet50, vgg16_gcca.
    """

    name: str
    lr: float = Field(gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["cosine", "constant", "plateau"] = "cosine"
    warmup_epochs: float = Field(0.0, ge=0)
    plateau_factor: float = Field(0.1, gt=0, lt=1)
    plateau_patience: int = Field(10, ge=0)
    plateau_metric: Literal["accuracy", "loss"] = "accuracy"
    clip_norm: float = Field(0.0, ge=0)
    layer_decay: float = Field(1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _no_warmup_on_a_plateau(self) -> OptimPart:
        if self.schedule == "plateau" and self.warmup_epochs:
            raise ValueError("a plateau schedule has no warm-up; set warmup_epochs to 0")
        return self


class LossPart(_Strict):
    """Which loss.

    Attributes:
        name: Registered name.
        arguments: Its own arguments, such as `label_smoothing`.
        class_weights: Weigh classes by their `inverse` frequency or their `effective` number; None weighs all alike.
        beta: Of the effective number, in [0, 1).
        lr: Peak learning rate of the loss's own parameters (class centers); they do not decay.
    """

    name: str = "cross_entropy"
    arguments: dict[str, Any] = {}
    class_weights: Literal["inverse", "effective"] | None = None
    beta: float = Field(0.999, ge=0, lt=1)
    lr: float = Field(0.1, gt=0)


class DistillPart(_Strict):
    """Trained networks to learn from, beside the labels.

    Attributes:
        teachers: Checkpoints, folders of runs, model files (`.onnx`) or bundled models; their probabilities are averaged.
        weight: Share of the distillation in the loss; the rest is the loss of the labels.
        temperature: What logits are divided by before they are compared.
        once: Ask the teachers once for every image, before it is changed, instead of in every step: epochs cost what they cost
            without teachers, and the student is told what the image shows, not what its changed form still shows.
    """

    teachers: list[str] = Field(min_length=1)
    weight: float = Field(0.7, gt=0, le=1)
    temperature: float = Field(2.0, gt=0)
    once: bool = False


class TrainPart(_Strict):
    """Length and manner of a run.

    Attributes:
        epochs: Passes over the training split.
        batch_size: Images a step, over all devices.
        ema_decay: Decay of the exponential moving average of the weights, a step; 0 is off. With it the average is what is
            selected and kept.
        compile: Compile the training step with torch.compile.
        channels_last: Keep weights and maps with their channels last, which suits dense convolutions of many channels in
            bfloat16; on a processor that computes in bfloat16 (AMX or AVX512_BF16) it also makes that the default.
    """

    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    ema_decay: float = Field(0.0, ge=0, lt=1)
    compile: bool = False
    channels_last: bool = False


class PaperPart(_Strict):
    """The published row a recipe stands for.

    Attributes:
        title: The paper.
        table: Its table and row.
        reported: Figures the paper reports, in per cent.
    """

    title: str
    table: str
    reported: dict[str, float] = {}


class Recipe(_Strict):
    """One training run; the file's top level.

    Attributes:
        name: `<paper>/<file>`.
        summary: One line for `mien recipes`.
        paper: The published row, if it stands for one.
        deviations: Where it departs from the paper or the paper is silent.
        seed: Seed of weights, order and augmentation.
    """

    name: str
    summary: str
    paper: PaperPart | None = None
    deviations: list[str] = []
    seed: int = Field(0, ge=0, lt=2**32)
    model: ModelPart
    data: DataPart
    preprocess: PreprocessPart
    augment: AugmentPart
    loss: LossPart
    distill: DistillPart | None = None
    optim: OptimPart
    train: TrainPart

    @model_validator(mode="after")
    def _what_follows_is_not_given(self) -> Recipe:
        for section, arguments in (("model", self.model.arguments), ("loss", self.loss.arguments)):
            for name in {"name", "num_classes", "num_features"} & set(arguments):
                raise ValueError(f"{section}.arguments.{name} follows from the rest of the recipe; leave it out")
        return self

    @model_validator(mode="after")
    def _a_plateau_of_what(self) -> Recipe:
        if self.optim.schedule == "plateau" and self.data.select is None:
            raise ValueError("a plateau schedule watches data.select; name a split there or choose another schedule")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain JSON types."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return the recipe as YAML, keys in their documented order."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, width=120)


def recipe_names() -> list[str]:
    """Return the names of the bundled recipes."""
    root = _root()
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.glob("*/*.yaml"))


def load_recipe(name_or_path: str | os.PathLike[str], overrides: dict[str, Any] | None = None) -> Recipe:
    """Return a validated recipe.

    Args:
        name_or_path: A bundled name such as `"sa_csp_ca/fer2013"`, or a YAML file.
        overrides: Values by dotted key, such as `{"train.epochs": 2}`.

    Raises:
        RecipeError: There is no such recipe, it is not YAML, a key is unknown or a value is out of range.

    >>> load_recipe("sa_csp_ca/fer2013", {"seed": 3}).seed
    3
    """
    path = _find(name_or_path)
    try:
        values = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: is not a recipe; a recipe is a YAML mapping with the keys {', '.join(Recipe.model_fields)}")
    for key, value in (overrides or {}).items():
        _set(values, key, value)
    return parse_recipe(values, str(name_or_path))


def read_yaml(text: str) -> Any:
    """Return the values of a YAML text; `5e-4` is a number, as in YAML 1.2, not a word, as in 1.1.

    Raises:
        yaml.YAMLError: It is no YAML.
        ValueError: A date that is none.

    >>> read_yaml("[5e-4, 1e3, e4]")
    [0.0005, 1000.0, 'e4']
    """
    return yaml.load(text, _Loader)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, with numbers whose exponent has no sign, or that have no point."""


_EXPONENT = re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def parse_recipe(values: dict[str, Any], source: str) -> Recipe:
    """Return a recipe from plain values.

    Raises:
        RecipeError: An unknown key (names the nearest) or a value out of range.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{source}: {'; '.join(_explain(part) for part in error.errors())}") from None


def _root() -> Path:
    return Path(str(resources.files("mien") / "recipes"))


def _find(name_or_path: str | os.PathLike[str]) -> Path:
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise RecipeError(f"{path}: no such recipe file")
        return path
    bundled = _root() / f"{name_or_path}.yaml"
    if not bundled.is_file():
        raise RecipeError(f"unknown recipe {str(name_or_path)!r}{nearest(str(name_or_path), recipe_names())}")
    return bundled


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if values.get(parent) is None:  # such as `distill: null`
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise RecipeError(f"cannot set {key}: {parent} is not a section of the recipe")
    values[last] = value


def _explain(part: Any) -> str:
    """Return one of pydantic's complaints as a sentence; for an unknown key, with the nearest known one."""
    if part["type"] == "value_error":  # of values that do not go together
        return str(part["ctx"]["error"])
    *section, key = [str(step) for step in part["loc"]]
    where = ".".join([*section, key])
    if part["type"] != "extra_forbidden":
        return f"{where}: {part['msg'].lower()} (got {part['input']!r})" if part["type"] != "missing" else f"{where} is missing"
    model: Any = Recipe
    optional = {"paper": PaperPart, "distill": DistillPart}
    for step in section:
        model = optional.get(step, model.model_fields[step].annotation)
    return f"unknown key {where}{nearest(key, list(model.model_fields))}"
