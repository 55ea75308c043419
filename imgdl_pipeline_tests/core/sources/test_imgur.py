import json
import time

import pytest

from imgdl_pipeline.core import sources
from imgdl_pipeline.core.model.settings import DownloadSettings, MissingSecretError
from imgdl_pipeline.core.sources.client import SourceClient, SourceError
from imgdl_pipeline.core.sources.imgur import ImgurSource


class Api:
    """Answers as Imgur's API v3 does, from a dict of paths."""

    def __init__(self, server):
        self.server = server
        self.waits = []

    def serve(self, path, data, status=200, success=True, **headers):
        body = json.dumps({"data": data, "success": success, "status": status}).encode()
        self.server.serve(f"/3/{path}", body, status, Content_Type="application/json", **headers)

    def listed(self, gallery, environ=None, **keys):
        source = ImgurSource(
            type="imgur",
            gallery=gallery,
            client_id="{{ env.IMGUR_CLIENT_ID }}",
            api_url=self.server.url("/3"),
            **{"max_pages": 1, **keys},
        )
        environ = {"IMGUR_CLIENT_ID": "s3cret"} if environ is None else environ
        with SourceClient(DownloadSettings(), environ, sleep=self.waits.append) as client:
            return list(sources.list_links(source, client))


@pytest.fixture
def api(server):
    return Api(server)


def image(id_, **changes):
    plain = {
        "id": id_,
        "title": f"Title {id_}",
        "description": None,
        "type": "image/jpeg",
        "width": 800,
        "height": 600,
        "size": 12345,
        "account_url": "somebody",
        "datetime": 1700000000,
        "nsfw": False,
        "link": f"http://i.imgur.com/{id_}.jpg",
        "is_album": False,
    }
    return {**plain, **changes}


@pytest.mark.parametrize(
    ("gallery", "path"),
    [
        ("hot", "gallery/hot/viral/day/0"),
        ("top", "gallery/top/viral/day/0"),
        ("user", "gallery/user/viral/day/0"),
        ("random", "gallery/random/random/0"),
        ("r/EarthPorn", "gallery/r/EarthPorn/time/week/0"),
        ("a/AbCd12", "album/AbCd12/images"),
    ],
)
def test_each_gallery_is_its_own_call(api, gallery, path):
    api.serve(path, [image("one")])
    assert [link.url for link in api.listed(gallery)] == ["https://i.imgur.com/one.jpg"]


def test_a_tags_images_stand_among_its_items(api):
    api.serve("gallery/t/sunset/viral/week/0", {"name": "sunset", "items": [image("one")]})
    assert len(api.listed("t/sunset")) == 1


def test_a_link_carries_what_imgur_says_of_it(api):
    api.serve("gallery/hot/viral/day/0", [image("one", description="A caption")])
    [link] = api.listed("hot")
    assert link.attributes == {
        "title": "Title one",
        "caption": "A caption",
        "author": "somebody",
        "id": "one",
        "date": "2023-11-14T22:13:20+00:00",
        "width": 800,
        "height": 600,
        "size": 12345,
        "nsfw": False,
        "page": "https://imgur.com/one",
    }


def test_only_jpegs_are_listed_whatever_their_links_end_in(api):
    api.serve(
        "gallery/hot/viral/day/0",
        [
            image("png", type="image/png", link="https://i.imgur.com/png.jpg"),
            image("gif", type="image/gif", animated=True),
            image("mp4", type="video/mp4"),
            image("jpeg", link="https://i.imgur.com/jpeg.png"),
        ],
    )
    assert [link.attributes["id"] for link in api.listed("hot")] == ["jpeg"]


def test_pages_are_followed_until_one_is_empty(api):
    for page, names in enumerate([["a", "b"], ["c"], []]):
        api.serve(f"gallery/hot/viral/day/{page}", [image(name) for name in names])
    assert [link.attributes["id"] for link in api.listed("hot", max_pages=10)] == ["a", "b", "c"]
    assert [link.attributes["id"] for link in api.listed("hot", max_pages=1)] == ["a", "b"]


def test_an_image_that_moved_to_the_next_page_is_listed_once(api):
    api.serve("gallery/hot/viral/day/0", [image("a"), image("b")])
    api.serve("gallery/hot/viral/day/1", [image("b"), image("c")])
    api.serve("gallery/hot/viral/day/2", [])
    assert [link.attributes["id"] for link in api.listed("hot", max_pages=9)] == ["a", "b", "c"]


def album(id_, count, images=None):
    entry = {"id": id_, "is_album": True, "title": "The album", "images_count": count}
    return {**entry, "link": f"https://imgur.com/a/{id_}", **({"images": images} if images else {})}


def test_an_album_that_came_whole_is_expanded_in_place(api):
    images = [image("a", title=None), image("b")]
    api.serve("gallery/hot/viral/day/0", [album("xyz", 2, images), image("c")])
    links = api.listed("hot")
    assert [link.attributes["id"] for link in links] == ["a", "b", "c"]
    assert [link.attributes["title"] for link in links] == ["The album", "Title b", "Title c"]


@pytest.mark.parametrize("images", [None, [image("a")]])
def test_an_album_that_came_short_is_asked_for(api, images):
    api.serve("gallery/hot/viral/day/0", [album("xyz", 3, images)])
    api.serve("album/xyz/images", [image("a"), image("b"), image("c")])
    assert [link.attributes["id"] for link in api.listed("hot")] == ["a", "b", "c"]


def test_an_album_that_is_gone_does_not_fail_the_list(api):
    api.serve("gallery/hot/viral/day/0", [album("gone", 3, [image("a")]), album("gone2", 1), image("b")])
    assert [link.attributes["id"] for link in api.listed("hot")] == ["a", "b"]


def test_a_link_on_another_host_keeps_its_scheme(api):
    api.serve("gallery/hot/viral/day/0", [image("a", link="http://127.0.0.1:8000/a.jpg")])
    assert api.listed("hot")[0].url == "http://127.0.0.1:8000/a.jpg"


def test_the_client_id_goes_to_the_api(api, server):
    api.serve("gallery/hot/viral/day/0", [])
    api.listed("hot")
    assert server.requests[0][1]["Authorization"] == "Client-ID s3cret"


def test_an_unset_client_id_names_the_variable_and_the_key(api):
    words = r"source\.client_id needs the environment variable IMGUR_CLIENT_ID, which is not set"
    with pytest.raises(MissingSecretError, match=words):
        api.listed("hot", environ={})


def busy_at_first(server, status, data, **headers):
    """Answer so twice, and well from then on."""
    answers = [(status, data, headers)] * 2

    def answer(handler):
        status, data, headers = answers.pop() if answers else (200, [image("a")], {})
        body = json.dumps({"data": data, "success": status == 200, "status": status}).encode()
        handler.answer(status, body, "application/json", **headers)

    server.routes["/3/gallery/hot/viral/day/0"] = answer


OVER_CAPACITY = {"error": "Imgur is temporarily over capacity. Please try again later."}


def test_a_limit_that_is_soon_over_is_waited_for(api, server):
    reset = str(int(time.time()) + 20)
    busy_at_first(server, 429, {}, X_RateLimit_UserReset=reset, X_RateLimit_UserRemaining="0")
    assert len(api.listed("hot")) == 1
    assert len(api.waits) == 2
    assert all(10 < wait <= 20 for wait in api.waits)


@pytest.mark.parametrize(
    ("status", "data", "headers"),
    [
        (429, {}, {"X_RateLimit_UserReset": "4102444800"}),
        (429, {}, {}),
        (403, OVER_CAPACITY, {}),
    ],
    ids=["says when", "says nothing", "over capacity"],
)
def test_a_limit_that_lasts_an_hour_fails_at_once_and_says_when_to_try_again(
    api, server, status, data, headers
):
    busy_at_first(server, status, data, **headers)
    with pytest.raises(
        SourceError, match=r"it asks to wait \d+ s: try again at 2\d\d\d-\d\d-\d\d \d\d:\d\d UTC"
    ):
        api.listed("hot")
    assert api.waits == []


def test_all_pages_are_read_by_default(api):
    for page in range(3):
        api.serve(f"gallery/hot/viral/day/{page}", [image(f"i{page}")] if page < 2 else [])
    assert len(api.listed("hot", max_pages=None)) == 2


def test_a_limit_of_pages_that_ends_the_list_is_said_aloud(api, caplog):
    api.serve("gallery/hot/viral/day/0", [image("a")])
    api.listed("hot", max_pages=1)
    assert "the list ends after 1 pages, because max_pages says so" in caplog.text


def test_pages_that_bring_nothing_new_end_in_an_error(api, server):
    body = json.dumps({"data": [image("a")], "success": True, "status": 200}).encode()
    server.forward = lambda handler: handler.answer(200, body, "application/json")
    with pytest.raises(SourceError, match=r"20 pages in a row bring nothing new \(BARREN_PAGES\)"):
        api.listed("hot", max_pages=None)


def test_a_rate_limit_is_waited_for_within_reason(api):
    api.serve("gallery/hot/viral/day/0", {"error": "Too many"}, 429, False, Retry_After="200")
    with pytest.raises(SourceError, match=r"status 429.*gave up after 200 s of waiting"):
        api.listed("hot")


def test_a_forbidden_call_fails_at_once_and_shows_no_secret(api):
    api.serve("gallery/hot/viral/day/0", {"error": "Invalid client_id"}, 403, False)
    with pytest.raises(
        SourceError, match=r"GET .*/3/gallery/hot/viral/day/0.*status 403.*Invalid client_id"
    ) as caught:
        api.listed("hot")
    assert "s3cret" not in str(caught.value)
    assert api.waits == []


def test_a_200_without_success_is_no_list(api):
    api.serve("gallery/hot/viral/day/0", {"error": "Unable to process"}, 200, False)
    with pytest.raises(SourceError, match="Unable to process"):
        api.listed("hot")


def test_html_where_json_should_be_is_shown(api, server):
    server.serve("/3/gallery/hot/viral/day/0", b"<html>blocked in your country</html>")
    with pytest.raises(SourceError, match="blocked in your country"):
        api.listed("hot")


def test_a_second_page_that_fails_fails_the_list(api):
    api.serve("gallery/hot/viral/day/0", [image("a")])
    api.serve("gallery/hot/viral/day/1", {"error": "no"}, 400, False)
    with pytest.raises(SourceError, match="status 400"):
        api.listed("hot", max_pages=3)


def test_random_says_that_it_is_no_more(api):
    with pytest.raises(SourceError, match="no longer serves gallery: random; try gallery: hot"):
        api.listed("random")
