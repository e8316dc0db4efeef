"""A queue: several studies, or rows of them, in order of their value.

    - {study: good-faith/fer2013, rows: [stn_resnet50, vgg16_gcca]}
    - {study: sa-csp-ca/table2, scale: cpu, seeds: [0, 1, 2]}

A network of more than 10 million parameters is run only where bfloat16 is computed in hardware, on a GPU or by AMX or
AVX512_BF16. Elsewhere it would hold up the rest of the queue for days.
"""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from mien.engine.devices import MAX_PARAMETERS, computes_bfloat16, count_parameters
from mien.errors import RecipeError
from mien.study.specification import FULL, Job, Study, create_jobs, load_study
from mien.yaml_files import explain_errors, read_yaml_file


class Selection(BaseModel):
    """A study, or a part of it.

    Attributes:
        study: A bundled study, or a YAML file.
        scale: `full`, or one of the study's scales.
        rows: Names of rows; None for all.
        seeds: Seeds instead of the study's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    study: str
    scale: str = FULL
    rows: list[str] | None = None
    seeds: list[int] | None = None

    def load(self) -> tuple[Study, list[Job]]:
        """Return the study and the runs that are selected.

        Raises:
            RecipeError: The study, the scale, a row or a recipe is unknown or wrong.
        """
        study = load_study(self.study)
        return study, create_jobs(study, self.scale, self.rows, self.seeds)


def read_queue(path: Path) -> list[Selection]:
    """Return the entries of a queue file.

    Raises:
        RecipeError: The file cannot be read, or an entry has an unknown key or a wrong value.
    """
    values = read_yaml_file(path, RecipeError)
    if not isinstance(values, list) or not values:
        raise RecipeError(
            f"{path}: is not a queue; a queue is a list of entries such as - {{study: sa-csp-ca/table2, scale: cpu}}"
        )
    entries = []
    for number, value in enumerate(values, start=1):
        try:
            entries.append(TypeAdapter(Selection).validate_python(value))
        except ValidationError as error:
            raise RecipeError(f"{path}: entry {number}: {explain_errors(Selection, error)}") from None
    return entries


def suits_processor(job: Job) -> bool:
    """Return whether a queue should run this on the processor at hand."""
    return torch.cuda.is_available() or computes_bfloat16() or count_parameters(job.recipe) <= MAX_PARAMETERS
