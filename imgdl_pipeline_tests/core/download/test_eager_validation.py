import pytest

from imgdl_pipeline.core.download import eager_validation
from imgdl_pipeline.core.download.eager_validation import EagerValidator
from imgdl_pipeline.core.jpeg.facts import Limits
from imgdl_pipeline.core.model.schemas import FACTS
from imgdl_pipeline.core.storage.layout import checked_path
from imgdl_pipeline.core.storage.removed import RemovedNow
from imgdl_pipeline_tests.support.pictures import jpeg

LIMITS = Limits(max_pixels=100_000, max_decode_bytes=1_000_000)


@pytest.fixture
def eager(store, jpegs):
    return EagerValidator(store, "g", jpegs, LIMITS, RemovedNow(store))


def checked(store):
    tables = [store.read_table(file.path, FACTS) for file in store.list(checked_path("g"))]
    return sorted(url for table in tables for url in table["url"].to_pylist())


def test_what_was_checked_is_written_once_it_is_due(eager, store, jpegs, monkeypatch):
    eager.check("a", "0", jpeg())
    eager.write_due()
    assert checked(store) == []
    monkeypatch.setattr(eager_validation, "CHECKPOINT_S", -1)
    eager = EagerValidator(store, "g", jpegs, LIMITS, RemovedNow(store))
    eager.check("b", "0", jpeg())
    eager.write_due()
    assert checked(store) == ["b"]


def test_what_is_left_is_written_at_the_end(eager, store):
    eager.check("a", "0", jpeg())
    eager.write()
    assert checked(store) == ["a"]


@pytest.mark.parametrize(
    ("image", "reason"),
    [(jpeg()[:-500], "truncated"), (jpeg(1, (500, 500)), "too_many_pixels")],
    ids=["damaged", "beyond the limits"],
)
def test_the_verdict_on_an_image_that_is_not_valid_is_kept_too(eager, store, image, reason):
    eager.check("a", "0", image)
    eager.write()
    [file] = store.list(checked_path("g"))
    assert store.read_table(file.path, FACTS)["reason"].to_pylist() == [reason]
