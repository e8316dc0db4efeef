"""Reading YAML files: their values, and what pydantic finds wrong with them as sentences.

Recipes, studies, queues, claims and the values of `--set` are read here, so that YAML means the same in all of them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from mien.errors import MienError, reason
from mien.registry import nearest

MAX_VALUES = 100_000
"""Most values of a YAML text, aliases unpacked; a recipe has about a hundred."""


def read_yaml(text: str) -> Any:
    """Return the values of a YAML text. `5e-4` is a number, as in YAML 1.2, not text, as in YAML 1.1.

    Raises:
        yaml.YAMLError: It is not YAML, or a mapping has a key twice.
        ValueError: A date that does not exist, lists within lists within lists, or aliases that unpack to millions of values.

    >>> read_yaml("[5e-4, 1e3, e4]")
    [0.0005, 1000.0, 'e4']
    """
    try:
        value = yaml.load(text, _Loader)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    waiting, count = [value], 0
    while waiting:
        count += 1
        if count > MAX_VALUES:  # an alias can stand for many values, or for what it is in
            raise ValueError(f"it has more than {MAX_VALUES:,} values, perhaps because of aliases (*name)")
        entry = waiting.pop()
        waiting += entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ()
    return value


def read_yaml_file(path: Path, error: type[MienError]) -> Any:
    """Return the values of a YAML file.

    Raises:
        MienError: The file cannot be read, or `read_yaml` refuses it. The argument `error` is the type that is raised.
    """
    try:
        return read_yaml(path.read_text(encoding="utf-8"))
    except OSError as cause:
        raise error(f"{path}: cannot be read ({reason(cause)})") from None
    except (ValueError, yaml.YAMLError) as cause:
        raise error(f"{path}: cannot be read as YAML ({' '.join(str(cause).split())})") from None


class _Loader(yaml.SafeLoader):
    """YAML's safe loader. It reads exponents without a sign or a point, and refuses a key that a mapping has twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} is given twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_EXPONENT = re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted key; an empty mapping has none.

    >>> flatten({"optim": {"lr": 0.1, "name": "sgd"}, "seed": 0})
    {'optim.lr': 0.1, 'optim.name': 'sgd', 'seed': 0}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def explain_errors(model: type[BaseModel], error: ValidationError) -> str:
    """Return pydantic's errors about a file as sentences; for an unknown key, with the nearest known one.

    Args:
        model: What the file should hold.
        error: What pydantic found.
    """
    return "; ".join(_explain(model, part) for part in error.errors())


def _explain(model: type[BaseModel], part: Any) -> str:
    if part["type"] == "value_error":  # raised by a validator of ours
        return str(part["ctx"]["error"])
    if not part["loc"]:
        return f"{part['msg'].lower()} (got {part['input']!r:.80})"
    *section, key = [str(step) for step in part["loc"]]
    where = ".".join([*section, key])
    if part["type"] != "extra_forbidden":
        return f"{where}: {part['msg'].lower()} (got {part['input']!r})" if part["type"] != "missing" else f"{where} is missing"
    kind: Any = model
    for step in section:
        kind = kind.model_fields[step].annotation if hasattr(kind, "model_fields") else get_args(kind)[-1]
        kind = next(
            (option for option in get_args(kind) if hasattr(option, "model_fields") and type(None) in get_args(kind)), kind
        )
    return f"unknown key {where}{nearest(key, list(kind.model_fields))}"
