"""`ModelInfo`: the facts that are stored with weights, in checkpoints and ONNX files alike.

Label order and preprocessing are properties of a model. Stored with it, they cannot differ from those it was trained with.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from mien.errors import CheckpointError
from mien.labels import nfc
from mien.preprocess import PreprocessSpec

FORMAT = 1
"""Version of the stored format; other versions are refused."""

METADATA_KEY = "mien"
"""Key under which safetensors and ONNX files hold the JSON."""


_TEXTS = ("arch", "label_set", "precision", "data_fingerprint", "split_fingerprint", "commit", "mien_version")
_KINDS = dict.fromkeys(_TEXTS, str) | dict.fromkeys(("arguments", "recipe", "results"), dict)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Identity and provenance of a set of weights.

    Attributes:
        arch: Registered name of the architecture.
        arguments: Arguments the architecture was built with, except `num_classes`.
        classes: The classes, by output index.
        label_set: Name of the corpus whose labels the classes are.
        preprocess: What happens to a face crop before the network.
        precision: `"fp32"` or `"int8"`.
        recipe: The recipe that trained it, as JSON types; empty if unknown.
        data_fingerprint: Fingerprint of the corpus it was trained on; empty if unknown.
        split_fingerprint: Digest of which image was in which split; empty if unknown.
        commit: Commit of the code that trained it; empty if unknown.
        mien_version: Version of mien that wrote the file.
        results: Measured figures by split, such as `{"public_test": {"accuracy": 0.71}}`.
    """

    arch: str
    arguments: dict[str, Any]
    classes: tuple[str, ...]
    label_set: str
    preprocess: PreprocessSpec
    precision: str = "fp32"
    recipe: dict[str, Any] = field(default_factory=dict)
    data_fingerprint: str = ""
    split_fingerprint: str = ""
    commit: str = ""
    mien_version: str = ""
    results: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the facts as they are stored."""
        return json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | None, source: str) -> ModelInfo:
        """Return what `to_json` wrote.

        Args:
            text: The stored facts; None if a file has none.
            source: The file, for error messages.

        Raises:
            CheckpointError: The facts are missing, corrupt or of another format version.
        """
        if text is None:
            raise CheckpointError(f"{source}: has no mien metadata; write it with `mien train` or `mien export`")
        try:
            values = json.loads(text)
            version = values.pop("format")
        except (ValueError, AttributeError, KeyError, TypeError):
            raise CheckpointError(f"{source}: its mien metadata is corrupt; train or export it again") from None
        if version != FORMAT:
            raise CheckpointError(
                f"{source}: was written in format {version}, this version of mien reads format {FORMAT}; "
                + ("upgrade with pip install -U mien" if isinstance(version, int) and version > FORMAT else "export it again")
            )
        try:
            classes = values["classes"]
            if not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
                raise CheckpointError("its classes are not a list of names; train or export it again")
            values["classes"] = tuple(map(nfc, classes))
            values["preprocess"] = PreprocessSpec.from_dict(values["preprocess"])
            info = cls(**values)
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{source}: its mien metadata has a missing or unknown field ({error})") from None
        except CheckpointError as error:
            raise CheckpointError(f"{source}: {error}") from None
        for key, kind in _KINDS.items():
            if not isinstance(getattr(info, key), kind):
                raise CheckpointError(
                    f"{source}: {key} in its mien metadata is not a {kind.__name__}; train or export it again"
                )
        return info
