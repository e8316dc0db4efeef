import pytest

from mien.errors import UnknownNameError
from mien.registry import Registry, check_arguments, nearest


@pytest.fixture
def registry() -> Registry[list[int]]:
    made: Registry[list[int]] = Registry("model")

    @made.register("vgg16")
    def _vgg(depth: int = 16) -> list[int]:
        return [depth]

    made.register("resnet")(lambda: [50])
    return made


def test_creates_by_name_with_arguments(registry: Registry[list[int]]) -> None:
    assert registry.create("vgg16", depth=3) == [3]
    assert registry.names() == ["vgg16", "resnet"]
    assert "resnet" in registry
    assert "other" not in registry


def test_registering_returns_the_factory(registry: Registry[list[int]]) -> None:
    def factory() -> list[int]:
        return []

    assert registry.register("new")(factory) is factory
    assert registry.get("new") is factory


def test_a_duplicate_is_refused_and_the_first_stays(registry: Registry[list[int]]) -> None:
    with pytest.raises(ValueError, match="model 'vgg16' is already registered"):
        registry.register("vgg16")(lambda: [0])
    assert registry.create("vgg16") == [16]


def test_an_unknown_name_lists_the_nearest(registry: Registry[list[int]]) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model 'vgg19'; did you mean 'vgg16'\? Known: vgg16, resnet"):
        registry.create("vgg19")


def test_nothing_near_still_lists_what_is_known() -> None:
    assert nearest("zzz", ["a", "b"]) == ". Known: a, b"


def test_an_argument_that_a_factory_does_not_take_is_named() -> None:
    def build(size: int, *, colour: str = "grey") -> None: ...

    check_arguments(build, ["size", "colour"])
    check_arguments(lambda **anything: anything, ["what", "ever"])
    with pytest.raises(UnknownNameError, match=r"unknown argument 'color'; did you mean 'colour'\? Known: size, colour"):
        check_arguments(build, ["color"])
    with pytest.raises(UnknownNameError, match="unknown argument 'size'"):
        check_arguments(build, ["size"], given=["size"])
