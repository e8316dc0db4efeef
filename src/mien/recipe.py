"""Recipes: everything that defines a training run, read from YAML and validated.

A recipe file holds one recipe. A file with `variants` holds one recipe per variant, and its other values are what they share:

    name: sa_csp_ca                      # the first part of every variant's name
    model: {name: sa_csp_ca, ...}
    optim: {name: sgd, lr: 0.1, ...}
    variants:
      table2-base-g8:                    # the recipe sa_csp_ca/table2-base-g8
        summary: Base(g=8) of Table 2
        optim: {lr: 0.05}                # the other values of optim stay

A variant is a recipe with most of it left out. Within a section (`model`, `optim`, ...), each key it gives replaces that key of
the file. So mappings inside a section, such as `model.arguments` and `data.protocol`, are written in full. A variant's
`deviations` are added to those of the file.

Bundled recipes are in `mien/recipes/<paper>/`. A variant of your own file is named `my.yaml:variant`.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import math
import os
import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from mien.errors import MienError, RecipeError, reason
from mien.preprocess import PreprocessSpec
from mien.registry import nearest
from mien.yaml_files import explain_errors, read_yaml

Sampling = Literal["natural", "weighted", "balanced"]

ROW_LISTS = ("exclude", "weights")
"""Keys of `data` that name a list of training images."""


def _check_finite(value: Any) -> Any:
    """Refuse numbers that JSON cannot hold, at any depth."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            _check_finite(each)
    elif isinstance(value, float) and not math.isfinite(value):
        raise PydanticCustomError("finite_number", "Input should have finite numbers only")
    return value


Values = dict[str, Annotated[Any, AfterValidator(_check_finite)]]
"""Arguments of something that has its own rules for them."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelPart(_Strict):
    """The network.

    Attributes:
        name: Registered name.
        arguments: Keyword arguments of the network, such as the switches of an ablation.
        start: Weights to start from: `imagenet`, or a file (see `mien.transfer`). None trains from scratch.
        frozen: Modules that are not trained, by name or prefix of it.
    """

    name: str
    arguments: Values = {}
    start: str | None = None
    frozen: list[str] = []


class DataPart(_Strict):
    """The corpus and its splits.

    Attributes:
        corpus: Registered name.
        options: Options of its reader, and `size`, `colour` and `faces`: how images are stored.
        protocol: How images are split, such as `{name: kfold, folds: 10, fold: 0, by: subject}`, or a list of such steps.
            Empty uses the official splits of the corpus (see `mien.datasets.protocols.splits`).
        train: Split to train on.
        select: Split that selects the best epoch, never a test split. None keeps the last epoch.
        sampling: How often each class is drawn: `natural`, `weighted` (by the square root of its inverse frequency) or
            `balanced`.
        votes: Train on the distribution of votes instead of the label.
        exclude: List of training images to leave out, such as the `suspects.csv` of `mien analyse`.
        exclude_sha256: SHA-256 of that list. `load_recipe` fills it in, so that the recipe stands for the content of the file.
        weights: List of training images with the column `weight`: how often each is drawn, as a multiple of the others.
        weights_sha256: SHA-256 of that list.
    """

    corpus: str
    options: Values = {}
    protocol: Values | list[Values] = {}
    train: str
    select: str | None
    sampling: Sampling = "natural"
    votes: bool = False
    exclude: str | None = None
    exclude_sha256: str | None = None
    weights: str | None = None
    weights_sha256: str | None = None


class PreprocessPart(_Strict):
    """See `mien.preprocess.PreprocessSpec`."""

    size: tuple[int, int]
    channels: Literal[1, 3]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_scale: float = Field(1.0, gt=0)
    crop_shift: float = 0.0
    smooth: float = Field(0.0, ge=0, le=0.7)

    @model_validator(mode="after")
    def _check_spec(self) -> PreprocessPart:
        try:
            self.spec()
        except MienError as error:
            raise ValueError(f"preprocess: {error}") from None
        return self

    def spec(self) -> PreprocessSpec:
        """Return the spec that travels with the weights."""
        return PreprocessSpec(**self.model_dump())


class AugmentPart(_Strict):
    """Augmentation of the training images: fixed versions first, then random changes, drawn separately for each image.

    Blur, dimming and noise are applied last, in this order. Only the network in training sees them, its teachers do not.

    Attributes:
        views: Fixed versions of each training image: 1 is the image alone, 5 are five rotations within 10 degrees, 10 are
            those also mirrored, 15 also upside down (see `mien.datasets.crops.views`). An epoch shows every version once, so it
            is that many times longer.
        flip: Probability of a horizontal flip.
        degrees: Rotation, uniform within plus or minus this many degrees.
        translate: Shift along each axis, uniform within plus or minus this fraction of the side.
        scale: Range of the zoom factor.
        shear: Shear, uniform within plus or minus this many degrees.
        brightness: Offset added to every pixel, uniform within plus or minus this, for pixels in [0, 1].
        contrast: Factor of every pixel, uniform within 1 plus or minus this.
        erase: Probability that one rectangle is erased.
        erase_area: Range of the rectangle's area, as a fraction of the image.
        mixup: Alpha of mixup's Beta distribution; 0 is off.
        blur: Largest standard deviation of a Gaussian blur, in px.
        dim: Largest fraction of the light that is removed; most images lose less.
        noise: Largest standard deviation of Gaussian noise, for pixels in [0, 1].
    """

    views: Literal[1, 5, 10, 15] = 1
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
    def _check_ranges(self) -> AugmentPart:
        for name, (low, high), limit in (("scale", self.scale, 10.0), ("erase_area", self.erase_area, 1.0)):
            if not 0 < low <= high <= limit:
                raise ValueError(
                    f"augment.{name} is a range [low, high] with 0 < low <= high <= {limit:g}, got [{low}, {high}]"
                )
        return self


class OptimPart(_Strict):
    """The optimizer and its learning-rate schedule.

    Attributes:
        name: A name that timm knows: sgd (with Nesterov momentum), momentum (SGD with classical momentum), adam, adamw, nadam,
            rmsprop, ...
        lr: Peak learning rate.
        momentum: Momentum, or beta 1 of the Adam family. With 0, sgd and momentum are both plain SGD.
        weight_decay: Weight decay; not applied to biases and norms.
        schedule: `cosine` to zero, `constant`, or `plateau`: reduce the rate when the selection split stops improving.
        warmup_epochs: Epochs over which the rate rises linearly from a hundredth of the peak.
        plateau_factor: Factor by which a plateau reduces the rate.
        plateau_patience: Epochs without improvement that are allowed; the next one reduces the rate.
        plateau_metric: What must improve: `accuracy` or `loss` on the selection split.
        clip_norm: Largest norm of the network's gradient; 0 is off.
        layer_decay: Factor of the rate from each layer to the one below it; 1 is off. Only for networks whose layers form one
            sequence, so not for stn_resnet50 and vgg16_gcca.
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
    def _check_plateau(self) -> OptimPart:
        if self.schedule == "plateau" and self.warmup_epochs:
            raise ValueError("optim.schedule plateau has no warm-up; set optim.warmup_epochs to 0")
        return self


class LossPart(_Strict):
    """The loss.

    Attributes:
        name: Registered name.
        arguments: Keyword arguments of the loss, such as `label_smoothing`.
        class_weights: Weight classes by their `inverse` frequency or their `effective` number. None weights all equally.
        beta: Beta of the effective number, in [0, 1).
        lr: Peak learning rate of the loss's own parameters (class centers), which have no weight decay.
    """

    name: str = "cross_entropy"
    arguments: Values = {}
    class_weights: Literal["inverse", "effective"] | None = None
    beta: float = Field(0.999, ge=0, lt=1)
    lr: float = Field(0.1, gt=0)


class DistillPart(_Strict):
    """Knowledge distillation: teachers whose probabilities the network learns as well as the labels.

    Attributes:
        teachers: Checkpoints, run folders, model files (`.onnx`) or names of bundled models. Their probabilities are averaged.
        weight: Weight of the distillation loss; the loss of the labels gets the rest.
        temperature: Divisor of the logits before they are compared.
        once: Compute the teachers' probabilities once per image, before augmentation, instead of in every step. Epochs then
            take no longer than without teachers.
        mirror: Average the teachers' probabilities of an image and its mirror image. Needs `once`.
    """

    teachers: list[str] = Field(min_length=1)
    weight: float = Field(0.7, gt=0, le=1)
    temperature: float = Field(2.0, gt=0)
    once: bool = False
    mirror: bool = False

    @model_validator(mode="after")
    def _check_mirror(self) -> DistillPart:
        if self.mirror and not self.once:
            raise ValueError("mirror needs once: true; teachers that predict in every step see what the student sees")
        return self


class TrainPart(_Strict):
    """Length of a run and how it is computed.

    Attributes:
        epochs: Passes over the training split.
        batch_size: Images per step, over all devices together.
        ema_decay: Decay per step of the exponential moving average of the weights; 0 is off. If on, the average is what is
            evaluated and saved.
        compile: Compile the training step with torch.compile.
        final_epochs: The last epochs, which see whole images: without mixup, and not at `early_size`.
        early_size: Height and width of the inputs, in px, in the epochs before the final ones, to save time. The selection
            split is always predicted at `preprocess.size`. None uses that size throughout.
        channels_last: Use the channels-last memory format, which suits dense convolutions with many channels in bfloat16. On a
            CPU with bfloat16 (AMX or AVX512_BF16) it also makes bfloat16 the default precision.
    """

    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    ema_decay: float = Field(0.0, ge=0, lt=1)
    final_epochs: int = Field(0, ge=0)
    early_size: tuple[int, int] | None = None
    compile: bool = False
    channels_last: bool = False

    @model_validator(mode="after")
    def _check_phases(self) -> TrainPart:
        if self.final_epochs > self.epochs:
            raise ValueError(f"train.final_epochs is {self.final_epochs}, but there are train.epochs {self.epochs}")
        if self.early_size is not None and not self.final_epochs:
            raise ValueError("train.early_size needs train.final_epochs above 0: the epochs at full size")
        return self


class PaperPart(_Strict):
    """The published row a recipe stands for.

    Attributes:
        title: The paper.
        table: Its table and row; several, separated by `; `, if one run stands for several rows.
        reported: Accuracy the paper reports, in per cent, by corpus. Keys that end in `_train` are of training images.
    """

    title: str
    table: str
    reported: dict[str, float] = {}


class Recipe(_Strict):
    """One training run, complete.

    Attributes:
        name: `<paper>/<recipe>`.
        summary: One line for `mien recipes`.
        paper: The published row the recipe reproduces, if any.
        deviations: Where the recipe differs from the paper, or the paper does not say.
        seed: Seed of the initial weights, the order of the images and the augmentation.
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
    def _check_arguments(self) -> Recipe:
        for section, arguments in (("model", self.model.arguments), ("loss", self.loss.arguments)):
            for name in {"name", "num_classes", "num_features"} & set(arguments):
                raise ValueError(f"{section}.arguments.{name} is set from the rest of the recipe; leave it out")
        return self

    @model_validator(mode="after")
    def _check_selection(self) -> Recipe:
        if self.optim.schedule == "plateau" and self.data.select is None:
            raise ValueError(
                "optim.schedule plateau watches the split data.select, which is null; name a split or choose another schedule"
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain JSON types."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """Return the recipe as YAML, keys in their documented order."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, width=120)


_FILE = re.compile(r"(.+?\.ya?ml)(?::(.+))?", re.DOTALL)
"""A recipe's file and, after a colon, its variant."""

RENAMED = {
    "dlib_resnet/fer2013-again": "dlib_resnet/fer2013-finetune",
    "sa_csp_ca/fer2013-again": "sa_csp_ca/fer2013-finetune",
}
"""Current names by former ones, which the cards of bundled models and committed results still carry."""


def recipe_names() -> list[str]:
    """Return the names of the bundled recipes, sorted."""
    return sorted(_bundled())


def recipe_file(name_or_path: str | os.PathLike[str]) -> Path | None:
    """Return the file of a recipe that is named by its file, with or without a variant; None for a bundled recipe."""
    found = _FILE.fullmatch(os.fspath(name_or_path))
    return Path(found[1]) if found else None


def load_recipe(name_or_path: str | os.PathLike[str], overrides: dict[str, Any] | None = None) -> Recipe:
    """Return a validated recipe.

    Args:
        name_or_path: A bundled name such as `"sa_csp_ca/fer2013"`, a YAML file, or `"my.yaml:variant"`.
        overrides: Values by dotted key, such as `{"train.epochs": 2}`. They are applied last.

    Raises:
        RecipeError: There is no such recipe or variant, the file is not YAML, a key is unknown or a value out of range.

    >>> load_recipe("sa_csp_ca/fer2013", {"seed": 3}).seed
    3
    """
    source = os.fspath(name_or_path)
    file = _FILE.fullmatch(source)
    values = copy.deepcopy(_select_bundled(source) if file is None else _select_variant(Path(file[1]), file[2]))
    for key, value in (overrides or {}).items():
        _set(values, key, value)
    return pin_lists(parse_recipe(values, source))


def pin_lists(recipe: Recipe) -> Recipe:
    """Return a recipe with the SHA-256 of the row lists it names, `data.exclude` and `data.weights`.

    Raises:
        RecipeError: A list is missing, or is not the one whose SHA-256 the recipe has already.
    """
    found = dict[str, str | None]()
    for key in ROW_LISTS:
        file, known = getattr(recipe.data, key), getattr(recipe.data, f"{key}_sha256")
        if file is None:
            found[f"{key}_sha256"] = None
            continue
        try:
            now = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        except (OSError, ValueError) as error:
            raise RecipeError(
                f"data.{key}: {file}: cannot be read ({reason(error)}); mien analyse writes such a list"
            ) from None
        if known not in (None, now):
            raise RecipeError(
                f"data.{key}: {file} has changed since this recipe was made (SHA-256 {now[:16]}..., not {known[:16]}...); "
                f"restore the file, or remove data.{key}_sha256 to train another recipe with the new one"
            )
        found[f"{key}_sha256"] = now
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=found)})


def recipe_hash(recipe: Recipe) -> str:
    """Return the SHA-256 of what a recipe trains, in hexadecimal, to tell whether two results come from the same recipe.

    The seed and the texts (`summary`, `paper`, `deviations`) do not count. Neither do values equal to their default, so a field
    that a later version adds does not change the hash of older recipes. A row list counts by its content, not by its path.
    """
    ignored = {"seed", "summary", "paper", "deviations"}
    values = recipe.model_dump(mode="json", exclude=ignored, exclude_defaults=True)
    for key in ROW_LISTS:
        if f"{key}_sha256" in values["data"]:
            values["data"].pop(key, None)
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_variants(path: Path) -> dict[str, dict[str, Any]]:
    """Return the complete values of each recipe in a file, by variant, not validated yet.

    A file without variants holds one recipe, whose key is "".

    Raises:
        RecipeError: The file is missing, is not YAML, or `variants` is not a mapping of names to changes.
    """
    if not path.is_file():
        raise RecipeError(f"{path}: no such recipe file")
    try:
        values = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: is not a recipe; a recipe is a YAML mapping with the keys {', '.join(Recipe.model_fields)}")
    if "variants" not in values:
        return {"": values}
    variants = values.pop("variants")
    if not isinstance(variants, dict) or not variants:
        raise RecipeError(f"{path}: variants is a mapping of names to changes, such as variants: {{small: {{seed: 1}}}}")
    return {name: _apply_variant(values, name, {} if change is None else change, path) for name, change in variants.items()}


def _apply_variant(values: dict[str, Any], name: Any, change: Any, path: Path) -> dict[str, Any]:
    """Return the values of a file with the changes of one variant."""
    if not isinstance(name, str) or not name:
        raise RecipeError(f"{path}: variant {name!r}: its name is not text; put it in quotes")
    if not isinstance(change, dict):
        raise RecipeError(f"{path}: variant {name}: is not a mapping of changes (got {change!r})")
    if "name" in change:
        raise RecipeError(f"{path}: variant {name}: leave out name; it is the name of the file, a slash and the variant")
    merged = dict(values)
    if "name" in values:
        merged["name"] = f"{values['name']}/{name}"
    for key, value in change.items():
        own = values.get(key)
        if isinstance(own, dict) and isinstance(value, dict):
            merged[key] = own | value
        elif isinstance(own, list) and isinstance(value, list):  # deviations
            merged[key] = own + value
        else:
            merged[key] = value
    return merged


def parse_recipe(values: dict[str, Any], source: str) -> Recipe:
    """Return a recipe from plain values.

    Args:
        values: The values of every section.
        source: Where they are from, for error messages.

    Raises:
        RecipeError: A key is unknown (names the nearest) or missing, or a value out of range.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{source}: {explain_errors(Recipe, error)}") from None


def _root() -> Path:
    return Path(str(resources.files("mien") / "recipes"))


@functools.cache
def _bundled() -> dict[str, dict[str, Any]]:
    """Return the values of every bundled recipe by name. They are shared, so copy before a change."""
    recipes = [values for path in _root().glob("*/*.yaml") for values in read_variants(path).values()]
    return {values["name"]: values for values in recipes}


def _select_bundled(name: str) -> dict[str, Any]:
    found = _bundled().get(RENAMED.get(name, name))
    if found is not None:
        return found
    path = _root() / f"{name}.yaml"
    if path.is_file():  # a file of variants
        names = [values["name"] for values in read_variants(path).values()]
        raise RecipeError(f"{name} has variants, which are recipes of their own; choose one of {', '.join(names)}")
    raise RecipeError(f"unknown recipe {name!r}{nearest(name, recipe_names())}")


def _select_variant(path: Path, variant: str | None) -> dict[str, Any]:
    variants = read_variants(path)
    if "" in variants:
        if variant is not None:
            raise RecipeError(f"{path}: has no variants, so it has no {variant!r}; write {path} alone")
        return variants[""]
    if variant is None:
        raise RecipeError(f"{path}: has the variants {', '.join(variants)}; choose one, such as {path}:{next(iter(variants))}")
    if variant not in variants:
        raise RecipeError(f"{path}: unknown variant {variant!r}{nearest(variant, list(variants))}")
    return variants[variant]


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if values.get(parent) is None:  # such as `distill: null`
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise RecipeError(f"cannot set {key}: {parent} is not a section of the recipe")
    values[last] = value
