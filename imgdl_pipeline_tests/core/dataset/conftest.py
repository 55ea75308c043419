import pytest

from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support.datasets import Gallery


@pytest.fixture
def gallery(store):
    return Gallery(store)


@pytest.fixture
def any_gallery(any_store):
    return Gallery(any_store)


@pytest.fixture
def s3_gallery(s3_bucket):
    return Gallery(Store(s3_bucket))
