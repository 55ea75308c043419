"""Bodies of any length, in chunks of any size."""

import errno
import hashlib
import io
import resource

import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.download import body
from imgdl_pipeline.core.download.body import kind_of, read_body
from imgdl_pipeline.core.model.outcome import FetchError, ResourceError


def answer(data):
    return urllib3.HTTPResponse(io.BytesIO(data), preload_content=False)


@given(st.integers(0, 60), st.integers(1, 20), st.integers(1, 40))
def test_a_body_comes_whole_wherever_it_is_kept(length, chunk_bytes, in_memory_bytes):
    data = b"\xff\xd8\xff" + bytes(range(length))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body, "CHUNK_BYTES", max(3, chunk_bytes))
        patch.setattr(body, "IN_MEMORY_BYTES", in_memory_bytes)
        read = read_body(answer(data), ["md5"], 100)
    with read.file:
        assert read.file.read() == data
        assert isinstance(read.file, io.BytesIO) == (len(data) <= in_memory_bytes)
    assert read.bytes == len(data)
    assert read.digests == {name: hashlib.new(name, data).hexdigest() for name in ("md5", "sha256")}


def test_a_body_of_one_chunk_is_not_copied():
    chunk = b"\xff\xd8\xff" + bytes(1000)
    chunks = iter([chunk, b""])

    class Answer:
        def read(self, *args, **options):
            return next(chunks)

    assert read_body(Answer(), [], 2000).file.read() is chunk


def test_a_body_that_goes_on_for_too_long_is_too_large():
    with pytest.raises(FetchError, match="too_large"):
        read_body(answer(b"\xff\xd8\xff" + bytes(100)), [], 50)


def test_a_disk_without_room_ends_the_run(monkeypatch):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(body, "IN_MEMORY_BYTES", 10)
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(ResourceError, match="No space left on device"):
        read_body(answer(b"\xff\xd8\xff" + bytes(100)), [], 1000)


@pytest.mark.parametrize("missing", [1, 5000, 200_000])
def test_a_disk_that_is_full_at_the_end_of_a_body_ends_the_run(monkeypatch, missing):
    size = 300_000
    monkeypatch.setattr(body, "IN_MEMORY_BYTES", 10)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, before[1]))
    try:
        with pytest.raises(ResourceError, match="File too large"):
            read_body(answer(b"\xff\xd8\xff" + bytes(size - 3)), [], size)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@given(st.binary())
def test_any_bytes_have_a_name(start):
    assert kind_of(start)
