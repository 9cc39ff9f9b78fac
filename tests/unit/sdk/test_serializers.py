"""What goes out and what comes back, in each format."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline import deserializers as d
from ridgeline import serializers as s
from ridgeline.errors import InvalidInput, InvocationFailed

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None, max_examples=40)
@given(json_values)
def test_json_there_and_back(value: Any) -> None:
    assert d.JSONDeserializer().deserialize(s.JSONSerializer().serialize(value), "") == value


@settings(deadline=None, max_examples=40)
@given(st.lists(json_values))
def test_json_lines_there_and_back(values: list[Any]) -> None:
    body = s.JSONLinesSerializer().serialize(values)
    assert d.JSONLinesDeserializer().deserialize(body, "") == values


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ([1, 2.5, "x"], b"1,2.5,x"),
        ([[1, 2], [3, 4]], b"1,2\n3,4"),
        (["a,b", "c"], b'"a,b",c'),
        ("as,written", b"as,written"),
        (b"as,written", b"as,written"),
        ([], b""),
    ],
)
def test_csv(data: Any, wanted: bytes) -> None:
    assert s.CSVSerializer().serialize(data) == wanted


def test_csv_back() -> None:
    assert d.CSVDeserializer().deserialize(b'1,"a,b"\n2,c\n', "") == [["1", "a,b"], ["2", "c"]]
    # A line ends where CSV says so: not inside quotes, and not at every character that ends one.
    strange = 'a\u2028b,"c\nd"\r\ne,f'
    assert d.CSVDeserializer().deserialize(strange.encode(), "") == [
        ["a\u2028b", "c\nd"],
        ["e", "f"],
    ]


def test_identity_takes_bytes_text_and_files() -> None:
    serializer = s.IdentitySerializer("image/png")
    assert serializer.content_type == "image/png"
    assert serializer.serialize(b"x") == b"x"
    assert serializer.serialize("ä") == "ä".encode()
    assert serializer.serialize(io.BytesIO(b"file")) == b"file"
    with pytest.raises(InvalidInput, match="dict"):
        serializer.serialize({"a": 1})


def test_strings() -> None:
    assert s.StringSerializer().serialize(3) == b"3"
    assert d.StringDeserializer().deserialize("ä".encode(), "") == "ä"
    assert d.BytesDeserializer().deserialize(b"\xff", "") == b"\xff"


@pytest.mark.parametrize(
    ("serializer", "data"),
    [
        (s.JSONSerializer(), {"x": object()}),
        (s.JSONSerializer(), {"x": {1, 2}}),
        (s.CSVSerializer(), {"a": 1}),
        (s.CSVSerializer(), 3),
        (s.JSONLinesSerializer(), {"a": 1}),
        (s.JSONLinesSerializer(), 3),
    ],
)
def test_what_cannot_be_written_is_refused(serializer: s.BaseSerializer, data: Any) -> None:
    with pytest.raises(InvalidInput):
        serializer.serialize(data)


def test_an_answer_that_is_not_json_says_what_it_is() -> None:
    with pytest.raises(InvocationFailed, match="<html>"):
        d.JSONDeserializer().deserialize(b"<html>oops", "text/html")


class TestArrays:
    numpy = pytest.importorskip("numpy")

    def test_arrays_as_json_and_csv(self) -> None:
        array = self.numpy.array([[1, 2], [3, 4]])
        assert json.loads(s.JSONSerializer().serialize({"x": array})) == {"x": [[1, 2], [3, 4]]}
        assert s.CSVSerializer().serialize(array) == b"1,2\n3,4"
        assert s.CSVSerializer().serialize(array[0]) == b"1,2"
        assert s.JSONSerializer().serialize(self.numpy.float32(0.5)) == b"0.5"

    def test_npy_there_and_back(self) -> None:
        body = s.NumpySerializer(dtype="float32").serialize([[1, 2], [3, 4]])
        array = d.NumpyDeserializer().deserialize(body, "application/x-npy")
        assert array.dtype == "float32"
        assert array.tolist() == [[1.0, 2.0], [3.0, 4.0]]

    def test_arrays_from_json_and_csv(self) -> None:
        reader = d.NumpyDeserializer()
        assert reader.deserialize(b"[[1, 2]]", "application/json; charset=utf-8").shape == (1, 2)
        assert reader.deserialize(b"1,2\n3,4", "text/csv").tolist() == [[1, 2], [3, 4]]

    def test_objects_are_neither_written_nor_read(self) -> None:
        """They would be pickles."""
        with pytest.raises(InvalidInput):
            s.NumpySerializer().serialize([object()])
        out = io.BytesIO()
        self.numpy.save(out, self.numpy.array([{"a": 1}], dtype=object), allow_pickle=True)
        with pytest.raises(InvocationFailed):
            d.NumpyDeserializer().deserialize(out.getvalue(), "application/x-npy")
