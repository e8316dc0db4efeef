from hypothesis import given, settings
from hypothesis import strategies as st

from mien.datasets.reading.digits import decode_regular


def plain(text: bytes, size: int) -> list[int] | None:
    """The numbers of a regular text, by the rule itself."""
    words = text.split(b" ")
    if len(words) != size or not all(word.isdigit() and len(word) <= 3 and int(word) < 256 for word in words):
        return None
    return [int(word) for word in words]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.lists(
            st.integers(0, 255).map(str) | st.sampled_from(["007", "256", "300", "999", "1000", "", "-1", "a"]), max_size=5
        ).map(" ".join)
        | st.text("0123459 \t-", max_size=12),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 5),
)
def test_texts_are_decoded_exactly_when_all_are_regular(texts: list[str], size: int):
    encoded = [text.encode() for text in texts]
    expected = [plain(text, size) for text in encoded]
    found = decode_regular(encoded, size)
    assert (found is None) == (None in expected)
    if found is not None:
        assert found.tolist() == expected


def test_every_value_is_decoded_after_every_width():
    rows = [[before, value, 255] for value in range(256) for before in (0, 10, 200)]
    found = decode_regular([" ".join(map(str, row)).encode() for row in rows], 3)
    assert found is not None
    assert found.tolist() == rows
