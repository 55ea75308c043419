import ctypes
from types import SimpleNamespace

from imgdl_pipeline.core.model.memory import MALLOC, keep_little_memory, release_memory


def test_a_c_library_that_cannot_release_memory_is_no_trouble(monkeypatch):
    release_memory()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    release_memory()


def test_the_c_librarys_own_environment_variables_win(monkeypatch):
    called = []
    monkeypatch.setattr("ctypes.CDLL", lambda _: SimpleNamespace(mallopt=lambda *call: called.append(call)))
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    keep_little_memory()
    assert called == []
    monkeypatch.delenv("MALLOC_ARENA_MAX")
    keep_little_memory()
    assert dict(called) == MALLOC


def test_a_c_library_without_such_options_is_no_trouble(monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", lambda _: SimpleNamespace())
    keep_little_memory()
