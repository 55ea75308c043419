import json
from urllib.parse import parse_qs, urlsplit

import pytest

from imgdl_pipeline.config.galleries import Gallery
from imgdl_pipeline.core import sources
from imgdl_pipeline.core.listing.build import list_gallery, list_warnings, read_links
from imgdl_pipeline.core.model.settings import DownloadSettings, MissingSecretError
from imgdl_pipeline.core.sources.client import SourceClient, SourceError
from imgdl_pipeline.core.sources.openverse import OpenverseSource


def result(number):
    return {
        "id": f"id-{number}",
        "title": f"Picture {number}",
        "url": f"https://live.staticflickr.com/{number}.jpg",
        "foreign_landing_url": f"https://www.flickr.com/photos/x/{number}",
        "creator": "Ann",
        "creator_url": "https://www.flickr.com/photos/x",
        "license": "by",
        "license_version": "2.0",
        "license_url": "https://creativecommons.org/licenses/by/2.0/",
        "attribution": '"Picture" by Ann is licensed under CC BY 2.0.',
        "provider": "flickr",
        "filesize": None,
        "filetype": "jpg",
        "width": 1024,
        "height": 768,
        "tags": [{"name": "hill", "accuracy": None}, {"name": "sea"}],
        "mature": False,
    }


class Openverse:
    """Answers as Openverse's API does, `pages` pages of two results."""

    def __init__(self, server, pages=3):
        self.server, self.pages, self.waits, self.special = server, pages, [], {}
        server.routes["/v1/images/"] = self.answer

    def answer(self, handler):
        query = {key: value[0] for key, value in parse_qs(urlsplit(handler.path).query).items()}
        page = int(query["page"])
        if page in self.special:
            status, body, headers = self.special[page].pop(0)
            if not self.special[page]:
                del self.special[page]
            handler.answer(status, body, "application/json", **headers)
            return
        results = [result(2 * page), result(2 * page + 1)] if page <= self.pages else []
        data = {"result_count": 2 * self.pages, "page_count": self.pages, "page": page, "results": results}
        handler.answer(200, json.dumps(data).encode(), "application/json")

    def listed(self, environ=None, **keys):
        source = {"type": "openverse", "q": "hills & sea", "api_url": self.server.url("/v1"), **keys}
        with SourceClient(DownloadSettings(), environ or {}, sleep=self.waits.append) as client:
            return list(sources.list_links(OpenverseSource.model_validate(source), client))

    def queries(self):
        return [
            {key: value[0] for key, value in parse_qs(urlsplit(path).query).items()}
            for path in self.server.paths()
        ]


@pytest.fixture
def openverse(server):
    return Openverse(server)


def test_every_page_is_read_within_the_anonymous_limits(openverse):
    assert [link.attributes["id"] for link in openverse.listed()] == [f"id-{n}" for n in range(2, 8)]
    assert openverse.queries() == [
        {"q": "hills & sea", "extension": "jpg", "page_size": "20", "page": str(page)} for page in (1, 2, 3)
    ]
    assert not any("Authorization" in headers for _, headers in openverse.server.requests)


def test_a_link_carries_what_openverse_says_of_it(openverse):
    [link] = openverse.listed(max_images=1)
    assert link.attributes == {
        "title": "Picture 2",
        "author": "Ann",
        "author_url": "https://www.flickr.com/photos/x",
        "license": "by 2.0",
        "license_url": "https://creativecommons.org/licenses/by/2.0/",
        "credit": '"Picture" by Ann is licensed under CC BY 2.0.',
        "page": "https://www.flickr.com/photos/x/2",
        "provider": "flickr",
        "id": "id-2",
        "tags": ["hill", "sea"],
        "width": 1024,
        "height": 768,
    }


def test_what_openverse_says_is_no_jpeg_is_left_out(openverse):
    results = [{**result(n), "filetype": kind} for n, kind in enumerate(("png", "jpg", "svg", None, "jpeg"))]
    data = {"page_count": 1, "results": results}
    openverse.special[1] = [(200, json.dumps(data).encode(), {})]
    assert [link.attributes["id"] for link in openverse.listed()] == ["id-1", "id-3", "id-4"]


def test_without_a_count_pages_are_read_until_one_is_empty(openverse):
    for page in (1, 2, 3):
        data = {"results": [result(page)] if page < 3 else []}
        openverse.special[page] = [(200, json.dumps(data).encode(), {})]
    assert len(openverse.listed()) == 2


def test_a_token_that_the_server_repeats_is_not_shown(openverse):
    openverse.special[1] = [(401, b'{"detail": "bad token Bearer s3cr3t"}', {})]
    with pytest.raises(SourceError, match=r"status 401\): {.detail.: .bad token …") as caught:
        openverse.listed({"TOKEN": "s3cr3t"}, token="{{ env.TOKEN }}")
    assert "s3cr3t" not in str(caught.value)


def test_a_licence_is_asked_for_and_no_more_pages_than_needed(openverse):
    openverse.listed(license="cc0,by", max_images=3)
    assert [query["license"] for query in openverse.queries()] == ["cc0,by"] * 2


def test_a_token_goes_to_the_api_and_an_unset_one_is_named(openverse):
    openverse.listed({"TOKEN": "t0k"}, token="{{ env.TOKEN }}", max_images=1)
    assert openverse.server.requests[0][1]["Authorization"] == "Bearer t0k"
    with pytest.raises(MissingSecretError, match=r"source.token needs the environment variable TOKEN"):
        openverse.listed(token="{{ env.TOKEN }}")


def test_a_rate_limit_is_waited_for_as_it_asks(openverse):
    openverse.special[2] = [(429, b'{"detail": "throttled"}', {"Retry_After": "60"})]
    assert len(openverse.listed()) == 6
    assert openverse.waits == [60.0]


def test_a_rate_limit_of_an_hour_fails_and_says_so(openverse):
    openverse.special[2] = [(429, b'{"detail": "throttled"}', {"Retry_After": "3000"})]
    with pytest.raises(SourceError, match=r"page=2: the server is busy \(status 429\): .*throttled"):
        openverse.listed()


def test_pages_that_are_counted_but_not_given_end_the_list(openverse):
    openverse.pages = 99
    openverse.special[13] = [(401, b'{"detail": "too deep"}', {})]
    assert len(openverse.listed()) == 24


def test_a_token_that_expires_halfway_fails_the_list(openverse):
    openverse.special[3] = [(401, b'{"detail": "expired"}', {})]
    with pytest.raises(SourceError, match=r"page=3: .*status 401.*expired"):
        openverse.listed()


def test_an_empty_page_is_the_last_whatever_is_counted(openverse):
    openverse.answer_pages, openverse.pages = 1, 1
    data = {"page_count": 10**12, "results": []}
    openverse.special[1] = [(200, json.dumps(data).encode(), {})]
    assert openverse.listed() == []
    assert len(openverse.queries()) == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, b'{"detail": "no"}'),
        (200, b"<html>blocked"),
        (200, b"{}"),
        (200, b'{"results": 7}'),
        (200, b"["),
    ],
)
def test_a_first_page_that_is_none_is_an_error_that_shows_it(openverse, status, body):
    openverse.special[1] = [(status, body, {})]
    with pytest.raises(SourceError, match=rf"GET .*page=1: .* \(status {status}\): "):
        openverse.listed()


def test_a_second_page_that_fails_fails_the_list(openverse):
    openverse.special[2] = [(500, b"oops", {})] * 3
    with pytest.raises(SourceError, match=r"page=2: the server is busy \(status 500\): oops"):
        openverse.listed()


def test_a_search_without_results_lists_nothing(server):
    assert Openverse(server, pages=0).listed() == []


def list_to(store, openverse, **keys):
    source = {"type": "openverse", "q": "hills", "api_url": openverse.server.url("/v1"), **keys}
    return list_gallery("g", Gallery(name="g", source=source).source, store, DownloadSettings())


def test_pages_that_repeat_are_an_error_and_the_old_list_stays(openverse, store):
    assert list_to(store, openverse).num_rows == 6
    data = json.dumps({"results": [result(1), result(2)]}).encode()
    openverse.server.routes["/v1/images/"] = lambda handler: handler.answer(200, data, "application/json")
    with pytest.raises(SourceError, match=r"20 pages in a row bring nothing new \(BARREN_PAGES\)"):
        list_to(store, openverse)
    assert read_links(store, "g").num_rows == 6


def test_the_limits_of_a_search_are_in_the_lists_warnings(openverse, store):
    openverse.pages = 99
    openverse.special[13] = [(401, b"{}", {})]
    links = list_to(store, openverse)
    assert (links.num_rows, list_warnings(links)) == (24, ["hills: Openverse gives no more than 12 pages"])
    assert list_warnings(list_to(store, openverse, max_images=3)) == [
        "the list ends at 3 links, because max_images says so"
    ]


def test_results_that_are_no_jpegs_are_said_aloud_with_both_numbers(openverse, store):
    results = [{**result(n), "filetype": "png"} for n in range(5)] + [{"id": "no url"}, "odd"]
    openverse.special[1] = [(200, json.dumps({"page_count": 1, "results": results}).encode(), {})]
    assert list_warnings(list_to(store, openverse)) == [
        "g: the source has 6 entries, and 0 of them give a link"
    ]


@pytest.mark.parametrize(
    "changes",
    [{"tags": 7}, {"tags": [7, {"name": None}]}, {"license": None}, {"width": "wide"}, {"id": None}],
)
def test_an_odd_result_is_listed_all_the_same(openverse, changes):
    openverse.special[1] = [
        (200, json.dumps({"page_count": 1, "results": [{**result(1), **changes}]}).encode(), {})
    ]
    assert len(openverse.listed()) == 1
