import errno
import resource
import tempfile
from contextlib import contextmanager

import pytest

from imgdl_pipeline.core.model.outcome import ResourceError
from imgdl_pipeline.core.model.temporary import needing_room, replacing, temporary_file


@contextmanager
def full_disk(limit=0):
    """Let no file of this process grow beyond a number of bytes, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_temporary_file_is_empty_and_can_be_written_and_read():
    with temporary_file() as file:
        assert file.read() == b""
        file.write(b"abc")
        file.seek(0)
        assert file.read() == b"abc"


def test_a_full_disk_is_named():
    with temporary_file() as file, full_disk():
        with pytest.raises(ResourceError) as caught:
            with needing_room():
                file.write(b"x" * 100_000)
    assert str(caught.value) == (
        f"cannot write a temporary file in {tempfile.gettempdir()}: File too large; "
        "make room there, or let TMPDIR name another folder"
    )
    assert caught.value.__cause__.errno == errno.EFBIG


def test_a_folder_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(ResourceError, match=rf"{tmp_path}/none: No such file or directory; make room there"):
        temporary_file()


def test_that_no_folder_has_room_is_a_failure_of_the_machine(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    with full_disk(), pytest.raises(ResourceError, match="cannot write a temporary file"):
        temporary_file()


def test_an_error_without_a_number_is_shown():
    with pytest.raises(ResourceError, match=r"in .*: odd; make room there"):
        with needing_room():
            raise OSError("odd")


def test_other_errors_pass():
    with pytest.raises(ValueError, match="mine"):
        with needing_room():
            raise ValueError("mine")


class TestReplacing:
    def test_a_file_takes_its_place_when_it_is_whole(self, tmp_path):
        path = tmp_path / "page.html"
        path.write_bytes(b"before")
        with replacing(path) as file:
            file.write(b"after")
            assert path.read_bytes() == b"before"
        assert path.read_bytes() == b"after"
        assert list(tmp_path.iterdir()) == [path]

    def test_the_file_before_stays_if_the_new_one_fails(self, tmp_path):
        path = tmp_path / "page.html"
        path.write_bytes(b"before")
        with pytest.raises(ValueError, match="mine"):
            with replacing(path) as file:
                file.write(b"half")
                raise ValueError("mine")
        assert path.read_bytes() == b"before"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_link_keeps_pointing_at_its_file(self, tmp_path):
        path, link = tmp_path / "page.html", tmp_path / "link.html"
        link.symlink_to(path)
        with replacing(link) as file:
            file.write(b"whole")
        assert link.is_symlink()
        assert path.read_bytes() == b"whole"

    def test_a_folder_that_is_not_there_is_named(self, tmp_path):
        path = tmp_path / "none" / "page.html"
        with pytest.raises(ResourceError, match=rf"cannot write {path}: No such file or directory"):
            with replacing(path):
                raise AssertionError("unreachable")

    def test_a_full_disk_is_named(self, tmp_path):
        path = tmp_path / "page.html"
        with (
            full_disk(),
            pytest.raises(ResourceError, match=rf"cannot write {path}: File too large; make room"),
        ):
            with replacing(path) as file:
                file.write(b"x" * 100_000)
        assert not list(tmp_path.iterdir())

    def test_other_errors_of_the_system_pass(self, tmp_path):
        with pytest.raises(ConnectionResetError):
            with replacing(tmp_path / "page.html"):
                raise ConnectionResetError
