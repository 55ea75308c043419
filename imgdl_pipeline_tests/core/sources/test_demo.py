import io

import pytest
import requests
from PIL import Image

from imgdl_pipeline.core import sources
from imgdl_pipeline.core.sources.client import SourceError
from imgdl_pipeline.core.sources.demo import (
    PORT,
    TROUBLES,
    DemoHandler,
    DemoServer,
    DemoSource,
    kind_of,
    picture,
)

pytestmark = pytest.mark.usefixtures("demo_port")


def listed(images):
    return list(sources.list_links(DemoSource(type="demo", images=images), None))


def test_it_lists_as_many_links_as_asked_for_each_once():
    assert len({link.url for link in listed(250)}) == 250


def test_its_links_are_the_same_in_every_run_and_for_every_size():
    assert listed(30)[:20] == listed(20)


def test_every_link_tells_its_author_and_licence():
    assert all({"title", "author", "license", "license_url"} <= set(link.attributes) for link in listed(3))


def test_each_tenth_link_shows_one_of_the_troubles_in_turn():
    assert [kind_of(number) for number in (10, 20, 30, 40, 50)] == [*TROUBLES, TROUBLES[0]]
    assert [kind_of(number) for number in range(1, 10)] == ["hills"] * 9


def test_a_picture_is_a_jpeg_that_is_drawn_the_same_each_time():
    first = picture(7)
    picture.cache_clear()
    assert picture(7) == first != picture(8)
    assert Image.open(io.BytesIO(first)).size == (480, 320)


def test_its_server_answers_while_the_links_are_fetched_and_no_longer():
    url = listed(1)[0].url
    with sources.serving(DemoSource(type="demo")):
        assert requests.get(url, timeout=10).content == picture(1)
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=10)


@pytest.mark.parametrize(("number", "status"), [(10, 410), (20, 200), (30, 200), (40, 200)])
def test_its_troubles_are_real(number, status):
    url = listed(number)[-1].url
    with DemoServer():
        answer = requests.get(url, timeout=10)
        first = requests.get(listed(1)[0].url, timeout=10).content
    assert answer.status_code == status
    assert (answer.content == first) == (kind_of(number) == "copy")


def test_two_runs_may_serve_at_the_same_time():
    with DemoServer(), DemoServer():
        assert requests.get(listed(1)[0].url, timeout=10).ok


def test_a_port_that_another_program_has_is_named():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SourceError, match=f"127.0.0.1:{port}, which another program has"):
            DemoServer(port, DemoHandler)
    assert PORT < 32768, "ports above may be taken by any outgoing connection"
