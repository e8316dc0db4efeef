import sys

import pytest

from mien.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("talk.mp4", "talk.mp4"),
        ("幸せ 😀 \u00a0é\u200d.jpg", "幸せ 😀 \u00a0é\u200d.jpg"),
        ("a\nb\rc\td", "a\\nb\\rc\\td"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x7f\x80\x9b31m", "\\x7f\\x80\\x9b31m"),
        ("photo\u202egpj.exe", "photo\\u202egpj.exe"),
        ("\u2066a\u2069\u200f\u061c", "\\u2066a\\u2069\\u200f\\u061c"),
        ("a\u2028b\u2029c\x85d", "a\\u2028b\\u2029c\\x85d"),
        ("caf\udce9.jpg", "caf\\xe9.jpg"),
        ("\ud83d.jpg", "\\ud83d.jpg"),
        ("", ""),
    ],
)
def test_text_is_shown_without_acting_on_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_every_character_can_be_shown_on_one_line() -> None:
    shown = printable("".join(map(chr, range(sys.maxunicode + 1))))
    assert len(shown.splitlines()) == 1
    shown.encode()
