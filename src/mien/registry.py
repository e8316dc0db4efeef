"""Factories by name: register, create, list the names; and suggestions for names that do not exist."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from mien.errors import UnknownNameError

T = TypeVar("T")


def nearest(name: str, known: list[str]) -> str:
    """Return `"; did you mean 'x'? Known: ..."` for an unknown name.

    >>> nearest("sa_csp", ["sa_csp_ca", "vgg16"])
    "; did you mean 'sa_csp_ca'? Known: sa_csp_ca, vgg16"
    """
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"{hint} Known: {', '.join(known)}"


def check_arguments(factory: Callable[..., object], names: Iterable[str], given: Iterable[str] = ()) -> None:
    """Check that a factory accepts some keyword arguments.

    Args:
        factory: The function or class to be called.
        names: The keywords.
        given: Keywords that the caller sets itself, so that users may not.

    Raises:
        UnknownNameError: It has no such argument; the message lists similar ones.
    """
    parameters = inspect.signature(factory).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters if parameter.name not in given]
    for name in names:
        if name not in known:
            raise UnknownNameError(f"unknown argument {name!r}{nearest(name, known)}")


class Registry(Generic[T]):
    """Factories by name, in the order they were registered.

    Args:
        kind: What the registry holds, in the singular, for error messages, such as `"model"`.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._factories: dict[str, Callable[..., T]] = {}

    def register(self, name: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
        """Return a decorator that registers a factory under `name`.

        Raises:
            ValueError: The name is already registered.
        """

        def add(factory: Callable[..., T]) -> Callable[..., T]:
            if name in self._factories:
                raise ValueError(f"{self.kind} {name!r} is already registered")
            self._factories[name] = factory
            return factory

        return add

    def get(self, name: str) -> Callable[..., T]:
        """Return the factory registered under `name`.

        Raises:
            UnknownNameError: There is no such name; the message lists similar ones.
        """
        if name not in self._factories:
            raise UnknownNameError(f"unknown {self.kind} {name!r}{nearest(name, self.names())}")
        return self._factories[name]

    def create(self, name: str, **arguments: object) -> T:
        """Return what the factory of `name` builds from `arguments`."""
        return self.get(name)(**arguments)

    def names(self) -> list[str]:
        """Return the registered names."""
        return list(self._factories)

    def __contains__(self, name: object) -> bool:
        return name in self._factories
