import json
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.config.galleries import Gallery
from imgdl_pipeline.core import sources
from imgdl_pipeline.core.listing.build import list_gallery, list_warnings, read_links
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.sources.attributes import plain_text
from imgdl_pipeline.core.sources.client import SourceClient, SourceError
from imgdl_pipeline.core.sources.wikimedia_commons import WikimediaCommonsSource, without_tracking


def page(number, **changes):
    info = {
        "url": f"https://upload.wikimedia.org/wikipedia/commons/a/{number}.jpg?utm_source=x&utm_content=original",
        "descriptionurl": f"https://commons.wikimedia.org/wiki/File:{number}.jpg",
        "mime": "image/jpeg",
        "sha1": f"{number:040x}",
        "size": 1000 + number,
        "width": 640,
        "height": 480,
        "user": "Uploader",
        "timestamp": "2026-01-01T00:00:00Z",
        "extmetadata": {
            "Artist": {"value": '<a href="//commons.wikimedia.org/wiki/User:Ann">Ann &amp;\n Bob</a>'},
            "LicenseShortName": {"value": "CC BY-SA 4.0"},
            "LicenseUrl": {"value": "https://creativecommons.org/licenses/by-sa/4.0"},
            "ImageDescription": {"value": "<p>A <b>galaxy</b>.</p>"},
        },
    }
    return {"pageid": number, "title": f"File:{number}.jpg", "imageinfo": [{**info, **changes}]}


class Commons:
    """Answers as the MediaWiki API does: each answer is for one category, type and continuation."""

    def __init__(self, server):
        self.server = server
        self.answers = {}
        self.waits = []
        server.routes["/w/api.php"] = self.answer

    def serve(self, category, *answers, type_="file"):
        self.answers[f"Category:{category}", type_] = list(answers)

    def answer(self, handler):
        query = {key: value[0] for key, value in parse_qs(urlsplit(handler.path).query).items()}
        if query.get("prop") == "categoryinfo":
            page = {
                "title": query["titles"],
                **({"categoryinfo": {}} if "Nothing here" in query["titles"] else {}),
            }
            handler.answer(200, json.dumps({"query": {"pages": [page]}}).encode(), "application/json")
            return
        answers = self.answers.get((query["gcmtitle"], query["gcmtype"]), [{"batchcomplete": True}])
        data = answers.pop(0) if len(answers) > 1 else answers[0]
        handler.answer(200, json.dumps(data).encode(), "application/json")

    def listed(self, category, **keys):
        source = WikimediaCommonsSource(
            type="wikimedia_commons", category=category, api_url=self.server.url("/w/api.php"), **keys
        )
        with SourceClient(DownloadSettings(), {}, sleep=self.waits.append) as client:
            return list(sources.list_links(source, client))

    def queries(self):
        return [parse_qs(urlsplit(path).query) for path in self.server.paths()]


@pytest.fixture
def commons(server):
    return Commons(server)


def batch(*pages, **more):
    return {"batchcomplete": True, "query": {"pages": list(pages)}, **more}


def names(links):
    return [link.url.rpartition("/")[2] for link in links]


def test_a_category_is_listed_with_all_that_is_known(commons):
    commons.serve("Galaxies", batch(page(1)))
    [link] = commons.listed("Galaxies")
    assert link.url == "https://upload.wikimedia.org/wikipedia/commons/a/1.jpg"
    assert link.attributes == {
        "title": "1.jpg",
        "author": "Ann & Bob",
        "author_url": "https://commons.wikimedia.org/wiki/User:Ann",
        "license": "CC BY-SA 4.0",
        "license_url": "https://creativecommons.org/licenses/by-sa/4.0",
        "caption": "A galaxy.",
        "page": "https://commons.wikimedia.org/wiki/File:1.jpg",
        "sha1": f"{1:040x}",
        "bytes": 1001,
        "width": 640,
        "height": 480,
        "uploader": "Uploader",
        "uploaded": "2026-01-01T00:00:00Z",
    }


@pytest.mark.parametrize("name", ["Galaxies", "Category:Galaxies", " category:Galaxies "])
def test_the_category_may_be_named_with_or_without_its_prefix(commons, name):
    commons.serve("Galaxies", batch(page(1)))
    assert len(commons.listed(name)) == 1


def test_continuation_sends_back_every_key_and_the_same_query(commons):
    further = {"gcmcontinue": "page|2", "iistart": "x", "continue": "gcmcontinue||"}
    commons.serve("Galaxies", batch(page(1), **{"continue": further}), batch(page(2)))
    assert names(commons.listed("Galaxies")) == ["1.jpg", "2.jpg"]
    first, second = commons.queries()
    assert {key: [value] for key, value in further.items()}.items() <= second.items()
    assert first.items() <= second.items()
    assert first["maxlag"] == ["5"]


def test_a_page_that_comes_in_pieces_is_put_together(commons):
    bare = {"pageid": 1, "title": "File:1.jpg"}
    commons.serve(
        "Galaxies",
        {"query": {"pages": [bare]}, "continue": {"iicontinue": "x", "continue": "||"}},
        batch(page(1)),
    )
    assert names(commons.listed("Galaxies")) == ["1.jpg"]


def test_only_jpegs_that_are_there_are_listed(commons):
    missing = {"pageid": 9, "title": "File:9.jpg", "filemissing": True}
    commons.serve("Galaxies", batch(page(1, mime="image/png"), page(2), missing, page(3, mime="video/ogg")))
    assert names(commons.listed("Galaxies")) == ["2.jpg"]


def subcategories(*titles):
    pages = [{"pageid": 100 + place, "title": f"Category:{title}"} for place, title in enumerate(titles)]
    return batch(*pages)


def test_subcategories_are_followed_to_the_depth_and_loops_are_not(commons):
    commons.serve("A", batch(page(1)))
    commons.serve("A", subcategories("B", "A"), type_="subcat")
    commons.serve("B", batch(page(2)))
    commons.serve("B", subcategories("C", "A"), type_="subcat")
    commons.serve("C", batch(page(3)))
    commons.serve("C", subcategories("D"), type_="subcat")
    commons.serve("D", batch(page(4)))
    assert names(commons.listed("A")) == ["1.jpg"]
    assert names(commons.listed("A", depth=1)) == ["1.jpg", "2.jpg"]
    assert names(commons.listed("A", depth=2)) == ["1.jpg", "2.jpg", "3.jpg"]


def test_no_more_images_are_listed_or_asked_for_than_wanted(commons):
    further = {"gcmcontinue": "x", "continue": "||"}
    commons.serve("Galaxies", batch(page(1), page(2), **{"continue": further}), batch(page(3)))
    assert names(commons.listed("Galaxies", max_images=2)) == ["1.jpg", "2.jpg"]
    assert len(commons.queries()) == 1


@pytest.mark.parametrize("code", ["maxlag", "ratelimited"])
def test_a_lagging_server_is_waited_for(commons, code):
    commons.serve("Galaxies", {"error": {"code": code, "info": "wait"}}, batch(page(1)))
    assert len(commons.listed("Galaxies")) == 1
    assert commons.waits == [10.0]


def test_an_error_with_status_200_fails_the_list(commons):
    commons.serve("Galaxies", {"error": {"code": "invalidcategory", "info": "The category is invalid"}})
    with pytest.raises(SourceError, match="The category is invalid"):
        commons.listed("Galaxies")


def test_a_second_page_that_fails_fails_the_list(commons):
    further = {"gcmcontinue": "x", "continue": "||"}
    commons.serve("Galaxies", batch(page(1), **{"continue": further}), {"error": {"code": "internal"}})
    with pytest.raises(SourceError, match="internal"):
        commons.listed("Galaxies")


def test_an_empty_category_is_an_empty_list(commons):
    assert commons.listed("Nothing here") == []


def test_a_category_that_does_not_exist_is_an_error(commons):
    with pytest.raises(SourceError, match="there is no category Category:Gallaxies"):
        commons.listed("Gallaxies")


@pytest.mark.parametrize(
    "body",
    [b"<html>busy</html>", b'{"query": {"pages": [', b'{"query": {"pages": {"1": {}}}}', b'{"query": []}'],
    ids=["HTML", "cut JSON", "pages by number", "a query that is none"],
)
def test_an_answer_of_another_shape_is_an_error_that_shows_it(commons, body):
    commons.server.serve("/w/api.php", body, Content_Type="application/json")
    with pytest.raises(SourceError) as caught:
        commons.listed("Galaxies")
    assert "GET http://127.0.0.1" in str(caught.value)
    assert str(caught.value).endswith(f"(status 200): {body.decode()}")


def test_a_list_that_breaks_off_after_a_page_is_an_error(commons):
    more = {"continue": {"gcmcontinue": "x", "continue": "-"}}
    commons.serve("Galaxies", batch(page(1), **more), {})
    with pytest.raises(SourceError, match="broke off in the middle of the list"):
        commons.listed("Galaxies")


def test_subcategories_are_listed_over_several_pages(commons):
    below = [{"pageid": n, "title": f"Category:{n}"} for n in range(4)]
    more = {"continue": {"gcmcontinue": "x", "continue": "-"}}
    commons.serve("Top", batch(*below[:2], **more), batch(*below[2:]), type_="subcat")
    for number in range(4):
        commons.serve(str(number), batch(page(number)))
    assert len(commons.listed("Top", depth=1)) == 4


@pytest.mark.parametrize(
    ("url", "cut"),
    [
        ("https://h.org/a.jpg?utm_source=x&utm_medium=y", "https://h.org/a.jpg"),
        ("https://h.org/a.jpg?v=2&utm_source=x", "https://h.org/a.jpg?v=2"),
        ("https://h.org/a.jpg", "https://h.org/a.jpg"),
    ],
)
def test_tracking_is_no_part_of_a_link(url, cut):
    assert without_tracking(url) == cut


@given(st.text())
def test_any_html_is_plain_text(html):
    assert "\n" not in plain_text(html)


def list_to(store, commons, category="Galaxies", **keys):
    source = {"type": "wikimedia_commons", "category": category, "api_url": commons.server.url("/w/api.php")}
    return list_gallery(
        "g",
        Gallery(name="g", source={**source, **keys}).source,
        store,
        DownloadSettings(user_agent="t/1 (m@h.org)"),
    )


def test_an_api_that_goes_in_circles_is_an_error_and_the_old_list_stays(commons, store):
    commons.serve("Galaxies", batch(page(1), page(2)))
    list_to(store, commons)
    more = {"continue": {"gcmcontinue": "x", "continue": "-"}}
    commons.serve("Galaxies", batch(page(3), **more))
    with pytest.raises(SourceError, match="the MediaWiki API goes round in circles"):
        list_to(store, commons)
    assert read_links(store, "g").num_rows == 2
    assert len(commons.queries()) == 3


def test_many_subcategories_without_files_are_no_circle(commons):
    """Categories that hold nothing but further categories are common, and dozens of them in a row."""
    empty = [f"By year {number}" for number in range(30)]
    commons.serve("Top", subcategories(*empty, "Last"), type_="subcat")
    commons.serve("Last", batch(page(1)))
    assert names(commons.listed("Top", depth=1)) == ["1.jpg"]
    assert names(commons.listed("Top", depth=2)) == ["1.jpg"]


def test_many_subcategories_of_the_same_files_are_no_circle(commons):
    commons.serve("Top", subcategories(*(f"View {number}" for number in range(30)), "Last"), type_="subcat")
    for number in range(30):
        commons.serve(f"View {number}", batch(page(1)))
    commons.serve("Last", batch(page(2)))
    assert names(commons.listed("Top", depth=1)) == ["1.jpg", "2.jpg"]


def test_a_category_without_jpegs_is_said_aloud_with_both_numbers(commons, store):
    commons.serve("Nothing here", batch(*(page(n, mime="image/png") for n in range(4))))
    links = list_to(store, commons, "Nothing here")
    assert list_warnings(links) == ["g: the source has 4 entries, and 0 of them give a link"]


def test_max_images_is_in_the_lists_warnings(commons, store):
    commons.serve("Galaxies", batch(page(1), page(2)))
    assert list_warnings(list_to(store, commons, max_images=1)) == [
        "the list ends at 1 links, because max_images says so"
    ]


@given(st.text("&?=utm_abc%./", max_size=30))
def test_any_query_keeps_its_other_parameters(query):
    cut = without_tracking(f"https://h.org/a.jpg?{query}")
    kept = [each for each in query.split("&") if each and not each.startswith("utm_")]
    assert cut == "https://h.org/a.jpg" + ("?" + "&".join(kept) if kept else "")
