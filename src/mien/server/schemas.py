"""What the server returns, as types. A face has the columns of mien's table, and one number per class of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field, create_model

from mien.output.table import SCHEMA

_TYPES: dict[str, Any] = {"text": str, "integer": int, "number": float, "boolean": bool}

State = Literal["queued", "running", "done", "failed", "cancelled"]


class Problem(BaseModel):
    """Why a request was not answered."""

    detail: str = Field(description="one sentence that says what was wrong and what to do")


class Model(BaseModel):
    """The model that answers."""

    name: str = Field(description="the network")
    classes: list[str] = Field(description="the expressions, in the order of the probabilities")
    mien_version: str
    unsure_below: float = Field(description="answers with a confidence below this are unsure")
    results: dict[str, Any] = Field(description="what was measured with this model, as its model card says")


class EncodedPicture(BaseModel):
    """A picture in a JSON request."""

    name: str | None = Field(None, description="comes back as `source`", max_length=255)
    data: str = Field(description="the bytes of a picture's file, in base64")


class Pictures(BaseModel):
    """A JSON request."""

    pictures: list[EncodedPicture] = Field(min_length=1)


class Job(BaseModel):
    """A video that waits, is read, or has been read."""

    id: str
    state: State
    progress: float | None = Field(description="share of the video that was read, 0 to 1; null if unknown")
    frames: int = Field(description="frames read")
    rows: int = Field(description="rows of its table so far: one per face and frame")
    error: str | None = Field(description="why it could not be read, or not to its end")
    summary: dict[str, Any] | None = Field(description="what each person showed; null until the video is read")


def face_type(classes: Sequence[str]) -> type[BaseModel]:
    """Return the type of a face for a model with these classes: a row of `mien.output.table`."""
    fields: dict[str, Any] = {
        column.name: (
            _TYPES[column.kind] | None if column.name not in ("face", "label", "confidence", "unsure") else _TYPES[column.kind],
            Field(description=column.meaning + (f" ({column.unit})" if column.unit else "")),
        )
        for column in SCHEMA
    }
    fields |= {name: (float, Field(description=f"probability of {name}, 0 to 1")) for name in classes}
    return create_model("Face", __doc__="An expression in a face: a row of mien's table.", **fields)


def answer_type(face: type[BaseModel]) -> type[BaseModel]:
    """Return the type of the answer to pictures or faces."""
    picture = create_model(
        "Picture",
        __doc__="The faces of one picture, the largest first.",
        source=(str, Field(description="its name in the request, or its number, such as `picture 2`")),
        width=(int | None, Field(description="px; null with an error")),
        height=(int | None, Field(description="px; null with an error")),
        faces=(list[face], Field(description="empty if no face was found")),  # type: ignore[valid-type]
        error=(str | None, Field(description="why this picture could not be read")),
    )
    return create_model(
        "Answer",
        __doc__="The answer to a request: one entry for each picture, in order.",
        pictures=(list[picture], ...),  # type: ignore[valid-type]
    )
