import pytest

from mien import errors
from mien.errors import MienError, MissingExtraError, require


def test_every_error_is_in_the_drawn_tree() -> None:
    tree = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, MienError)}
    assert all(name in errors.__doc__ for name in tree)
    assert len(tree) == 10


def test_require_returns_the_module() -> None:
    assert require("json", "train").dumps(1) == "1"


def test_a_missing_extra_names_the_command() -> None:
    with pytest.raises(MissingExtraError, match=r"needs no_such_module, .* pip install 'mien\[train\]'"):
        require("no_such_module.part", "train")


def test_a_fault_inside_the_module_stays_visible(tmp_path, monkeypatch) -> None:
    (tmp_path / "broken_module.py").write_text("import another_missing_module")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="another_missing_module"):
        require("broken_module", "train")


def test_an_error_is_one_line_whatever_it_names() -> None:
    assert str(MienError("a\nb.jpg: no such file")) == "a b.jpg: no such file"
