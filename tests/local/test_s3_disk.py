"""What the S3 server's layer relies on inside moto, and values that lie in files."""

from __future__ import annotations

import inspect
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from moto.s3 import models, responses

from srlm_local.s3.disk import DiskKey, DiskMultipart, FileValue, Segment


def globals_of(function: object) -> tuple[str, ...]:
    return function.__code__.co_names  # type: ignore[attr-defined, no-any-return]


def test_moto_makes_objects_where_ours_take_their_place() -> None:
    """Replacing two names in moto.s3.models must reach every place that makes an object or an upload."""
    backend = models.S3Backend
    assert "FakeKey" in globals_of(backend.put_object)
    assert "FakeKey" in globals_of(backend.get_object)
    assert "FakeKey" in globals_of(models.FakeMultipart.set_part)
    assert "FakeMultipart" in globals_of(backend.create_multipart_upload)
    makers = [name for name, one in inspect.getmembers(backend, inspect.isfunction) if "FakeKey" in globals_of(one)]
    assert {"put_object", "get_object"} <= set(makers)
    assert not hasattr(responses, "FakeMultipart")


def test_moto_keeps_what_ours_replace() -> None:
    """Members that the subclasses override are still the ones that hold values."""
    assert isinstance(models.FakeKey.value, property)
    assert isinstance(models.FakeKey.etag, property)
    assert {"_value_buffer", "_etag", "value"} <= set(globals_of(models.FakeKey.__init__))
    assert "dispose" in vars(models.FakeKey)
    assert list(inspect.signature(models.FakeMultipart.complete).parameters) == ["self", "body"]
    users = {
        name
        for name, one in inspect.getmembers(models.FakeKey, inspect.isfunction)
        if "_value_buffer" in globals_of(one) and not name.startswith("__")
    }
    assert users == {"dispose"}, "a method of moto's reads the buffer that ours leaves empty"
    assert issubclass(DiskKey, models.FakeKey)
    assert issubclass(DiskMultipart, models.FakeMultipart)


@given(
    st.lists(st.binary(max_size=5), max_size=5),
    st.none() | st.integers(-30, 30),
    st.none() | st.integers(-30, 30),
)
def test_slices_equal_those_of_bytes(
    tmp_path_factory: object, pieces: list[bytes], start: int | None, stop: int | None
) -> None:
    folder: Path = tmp_path_factory.mktemp("pieces")  # type: ignore[attr-defined]
    segments = []
    for number, piece in enumerate(pieces):
        path = folder / str(number)
        path.write_bytes(b"before" + piece + b"after")
        segments.append(Segment(path, 6, 6 + len(piece)))
    value, same = FileValue(segments), b"".join(pieces)
    assert len(value) == len(same)
    part = value[start:stop]
    assert (len(part), b"".join(part.open())) == (len(same[start:stop]), same[start:stop])
    assert b"".join(part[1:3].open()) == same[start:stop][1:3]


def test_removing_a_file_that_is_being_read_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"x" * 10)
    pieces = FileValue([Segment(path, 2, 9)]).open()
    path.unlink()
    assert b"".join(pieces) == b"x" * 7
