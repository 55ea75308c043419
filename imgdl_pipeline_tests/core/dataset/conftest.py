import pytest

from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support.datasets import Gallery


@pytest.fixture
def gallery(store):
    return Gallery(store)


@pytest.fixture(params=["a folder", "S3"])
def any_store(request, tmp_path):
    if request.param == "S3":
        return Store(request.getfixturevalue("s3_bucket"))
    return Store(str(tmp_path / "store"))


@pytest.fixture
def any_gallery(any_store):
    return Gallery(any_store)


@pytest.fixture
def s3_gallery(s3_bucket):
    return Gallery(Store(s3_bucket))
