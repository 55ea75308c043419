"""What a link leads to."""

import pytest

from imgdl_pipeline.core.download.fetch import Redirect
from imgdl_pipeline.core.model.outcome import FetchError


def fetched_from(fetcher, url, *args):
    """What a link leads to, however many hosts are on the way."""
    arrived = fetcher.fetch(url, *args)
    while isinstance(arrived, Redirect):
        arrived = fetcher.fetch(url, *args, redirect=arrived)
    return arrived


def refusal(fetcher, url, *args):
    with pytest.raises(FetchError) as caught:
        fetched_from(fetcher, url, *args)
    return caught.value
