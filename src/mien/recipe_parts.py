"""The sections of a recipe: what each key means, its default and its range."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from mien.errors import MienError
from mien.preprocess import PreprocessSpec

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


class Section(BaseModel):
    """A section: it takes no other keys, cannot be changed, and its numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelPart(Section):
    """The network.

    Attributes:
        name: Registered name.
        arguments: Keyword arguments of the network, such as the switches of an ablation.
        start: Weights to start from: `imagenet`, a bundled model, `hf://user/model` or a file (see `mien.transfer`). None
            trains from scratch.
        frozen: Modules that are not trained, by name or prefix of it. `norms` are all batch norms, which keep their statistics.
    """

    name: str
    arguments: Values = {}
    start: str | None = None
    frozen: list[str] = []


class DataPart(Section):
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


class PreprocessPart(Section):
    """See `mien.preprocess.PreprocessSpec`."""

    size: tuple[int, int]
    channels: Literal[1, 3]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_scale: float = Field(1.0, gt=0)
    crop_shift: float = 0.0
    min_contrast: float = Field(0.0, ge=0, le=0.3)
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


class AugmentPart(Section):
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


class OptimPart(Section):
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


class LossPart(Section):
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


class DistillPart(Section):
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


class TrainPart(Section):
    """Length of a run and how it is computed.

    Attributes:
        epochs: Passes over the training split.
        batch_size: Images per step, over all devices together.
        patience: Epochs without a better one on the selection split after which training stops; 0 trains all epochs.
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
    patience: int = Field(0, ge=0)
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


class PaperPart(Section):
    """The published row a recipe stands for.

    Attributes:
        title: The paper.
        table: Its table and row; several, separated by `; `, if one run stands for several rows.
        reported: Accuracy the paper reports, in per cent, by corpus. Keys that end in `_train` are of training images.
    """

    title: str
    table: str
    reported: dict[str, float] = {}
