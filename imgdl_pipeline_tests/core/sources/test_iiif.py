import json

import pytest

from imgdl_pipeline.core import sources
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.sources.client import SourceClient, SourceError
from imgdl_pipeline.core.sources.iiif import IiifSource
from imgdl_pipeline_tests.support.server import WebServer


def canvas3(number, body, **more):
    return {
        "id": f"https://m.org/canvas/{number}",
        "type": "Canvas",
        "label": {"none": [f"p. {number}"]},
        "items": [{"type": "AnnotationPage", "items": [{"motivation": "painting", "body": body, **more}]}],
    }


def image3(name, **more):
    return {"id": f"https://i.org/{name}/full/400,/0/default.jpg", "type": "Image", **more}


MANIFEST_3 = {
    "@context": "http://iiif.io/api/presentation/3/context.json",
    "id": "https://m.org/manifest",
    "type": "Manifest",
    "label": {"de": ["Buch"], "en": ["Book"]},
    "summary": {"en": ["<p>Old.</p>"]},
    "rights": "http://creativecommons.org/licenses/by/4.0/",
    "requiredStatement": {"label": {"en": ["Attribution"]}, "value": {"en": ["The Museum"]}},
    "homepage": [{"id": "https://m.org/book", "type": "Text"}],
    "metadata": [
        {"label": {"en": ["Creator"]}, "value": {"en": ["Ann"]}},
        {"label": "Date", "value": "1700"},
    ],
    "items": [
        canvas3(
            1,
            image3(
                "a",
                format="image/jpeg",
                width=4000,
                height=3000,
                service=[{"id": "https://i.org/a", "type": "ImageService3", "profile": "level1"}],
            ),
        ),
        canvas3(2, image3("b", service=[{"@id": "https://i.org/b/", "@type": "ImageService2"}])),
        canvas3(3, image3("c", format="image/jpeg")),
        canvas3(4, image3("d", format="image/png")),
        canvas3(5, {"type": "Choice", "items": [image3("e"), image3("e2")]}),
        canvas3(6, {"type": "Video", "id": "https://v.org/v.mp4", "format": "video/mp4"}),
        canvas3(7, image3("g"), motivation="commenting"),
        {"type": "Canvas"},
    ],
}

MANIFEST_2 = {
    "@context": "http://iiif.io/api/presentation/2/context.json",
    "@id": "https://m.org/2/manifest",
    "@type": "sc:Manifest",
    "label": "Map",
    "description": [{"@value": "A map", "@language": "en"}],
    "attribution": "The Library",
    "license": "http://creativecommons.org/publicdomain/mark/1.0/",
    "sequences": [
        {
            "canvases": [
                {
                    "@id": "https://m.org/2/c1",
                    "label": "1r",
                    "images": [
                        {
                            "resource": {
                                "@id": "https://i.org/2/full/full/0/native.jp2",
                                "@type": "dctypes:Image",
                                "format": "image/jp2",
                                "service": {
                                    "@context": "http://iiif.io/api/image/2/context.json",
                                    "@id": "https://i.org/2",
                                },
                            }
                        }
                    ],
                },
                {
                    "label": "1v",
                    "images": [{"resource": {"@id": "https://i.org/v.jpg", "@type": "dctypes:Image"}}],
                },
            ]
        },
        {"canvases": [{"images": [{"resource": {"@id": "https://i.org/again.jpg"}}]}]},
    ],
}


LOOPBACK = DownloadSettings(allow_addresses=("127.0.0.1/32",))


@pytest.fixture
def list_manifest(server):
    def list_(data, settings=LOOPBACK, **keys):
        text = data if isinstance(data, bytes) else json.dumps(data).encode()
        url = server.serve("/manifest", text, Content_Type="application/json")
        with SourceClient(settings, {}, sleep=lambda _: None) as client:
            return list(sources.list_links(IiifSource(type="iiif", manifest=url, **keys), client))

    return list_


def test_a_manifest_of_version_3_gives_every_canvass_full_image(list_manifest):
    links = list_manifest(MANIFEST_3)
    assert [link.url for link in links] == [
        "https://i.org/a/full/max/0/default.jpg",
        "https://i.org/b/full/full/0/default.jpg",
        "https://i.org/c/full/400,/0/default.jpg",
        "https://i.org/e/full/400,/0/default.jpg",
    ]
    assert links[0].attributes == {
        "title": "p. 1",
        "album": "Book",
        "caption": "Old.",
        "credit": "The Museum",
        "license_url": "http://creativecommons.org/licenses/by/4.0/",
        "page": "https://m.org/book",
        "author": "Ann",
        "date": "1700",
        "width": 4000,
        "height": 3000,
        "id": "https://m.org/canvas/1",
    }


def test_a_manifest_of_version_2_does_too(list_manifest):
    links = list_manifest(MANIFEST_2)
    assert [link.url for link in links] == [
        "https://i.org/2/full/full/0/default.jpg",
        "https://i.org/v.jpg",
        "https://i.org/again.jpg",
    ]
    assert links[0].attributes == {
        "title": "1r",
        "album": "Map",
        "caption": "A map",
        "credit": "The Library",
        "license_url": "http://creativecommons.org/publicdomain/mark/1.0/",
        "page": "https://m.org/2/manifest",
        "id": "https://m.org/2/c1",
    }


def test_a_collection_gives_its_members_each_once_though_they_contain_each_other(list_manifest, server):
    server.serve("/3", json.dumps(MANIFEST_3).encode())
    server.serve("/2", json.dumps(MANIFEST_2).encode())
    below = {
        "@type": "sc:Collection",
        "manifests": [{"@id": server.url("/2"), "@type": "sc:Manifest"}],
        "collections": [{"@id": server.url("/manifest")}],
    }
    server.serve("/below", json.dumps(below).encode())
    members = [{"id": server.url(path), "type": "Manifest"} for path in ("/3", "/below", "/3")]
    assert len(list_manifest({"type": "Collection", "items": members})) == 7
    assert server.paths() == ["/manifest", "/3", "/below", "/2"]


def test_the_pages_of_a_collection_are_followed(list_manifest, server):
    server.serve("/3", json.dumps(MANIFEST_3).encode())
    page = {"@type": "sc:Collection", "manifests": [server.url("/3")]}
    server.serve("/page1", json.dumps(page).encode())
    assert len(list_manifest({"@type": "sc:Collection", "first": server.url("/page1")})) == 4


def test_a_collection_of_many_pages_is_read_to_its_end(list_manifest, server):
    for number in range(30):
        manifest = json.dumps({**MANIFEST_3, "items": MANIFEST_3["items"][:1]})
        server.serve(f"/m{number}", manifest.replace("https://i.org/", f"https://i{number}.org/").encode())
        page = {"@type": "sc:Collection", "manifests": [server.url(f"/m{number}")]}
        page |= {"next": server.url(f"/page{number + 1}")} if number < 29 else {}
        server.serve(f"/page{number}", json.dumps(page).encode())
    assert len(list_manifest({"@type": "sc:Collection", "first": server.url("/page0")})) == 30


def test_collections_nested_without_end_are_an_error(list_manifest, server):
    for number in range(20):
        below = {"type": "Collection", "items": [{"id": server.url(f"/c{number + 1}"), "type": "Collection"}]}
        server.serve(f"/c{number}", json.dumps(below).encode())
    with pytest.raises(SourceError, match="collections within collections, more than 10 deep"):
        list_manifest({"type": "Collection", "items": [{"id": server.url("/c0"), "type": "Collection"}]})


def test_a_member_of_a_collection_may_not_lie_inside(list_manifest):
    with WebServer() as inside:
        inside.serve("/meta-data", b"secret")
        members = [{"id": inside.url("/meta-data"), "type": "Manifest"}]
        with pytest.raises(SourceError, match="not a public address"):
            list_manifest({"type": "Collection", "items": members}, DownloadSettings())
        assert inside.requests == []


def test_a_member_that_fails_fails_the_list_and_is_named(list_manifest, server):
    members = [{"id": server.serve("/secret", b"", 403), "type": "Manifest"}]
    with pytest.raises(SourceError, match=r"GET .*/secret: the document could not be fetched \(status 403\)"):
        list_manifest({"type": "Collection", "items": members})


def test_members_that_are_gone_are_counted_and_passed_over(list_manifest, server, caplog):
    server.serve("/3", json.dumps(MANIFEST_3).encode())
    paths = (server.url("/dead"), server.serve("/gone", b"", 410), server.url("/3"))
    members = [{"id": path, "type": "Manifest"} for path in paths]
    assert len(list_manifest({"type": "Collection", "items": members})) == 4
    assert "2 members of the collection are gone, and are passed over" in caplog.text


def test_no_more_is_asked_for_than_max_images_need(list_manifest, server):
    server.serve("/3", json.dumps(MANIFEST_3).encode())
    members = [{"id": server.url(path), "type": "Manifest"} for path in ("/3", "/gone")]
    assert len(list_manifest({"type": "Collection", "items": members}, max_images=4)) == 4


def test_a_member_of_a_collection_may_not_redirect_inside(list_manifest, server):
    server.redirect("/hop", server.url("/3"))
    members = [{"id": server.url("/hop"), "type": "Manifest"}]
    with pytest.raises(SourceError, match="not a public address"):
        list_manifest({"type": "Collection", "items": members}, DownloadSettings())


@pytest.mark.parametrize("data", [b"<html>no</html>", {}, [], {"type": "Canvas"}, b'{"type": "Manifest"'])
def test_what_is_no_manifest_is_an_error_that_shows_it(list_manifest, data):
    with pytest.raises(
        SourceError, match=r"/manifest: this is no IIIF manifest or collection \(status 200\)"
    ):
        list_manifest(data)


@pytest.mark.parametrize(
    "manifest",
    [
        {"type": "Manifest"},
        {"type": "Manifest", "items": [None, 7, {"items": [None, {"items": [None, {"body": "x"}]}]}]},
        {"@type": "sc:Manifest", "sequences": [{"canvases": [{"images": [None, {"resource": None}]}]}]},
        {"type": "Manifest", "label": 7, "metadata": ["x"], "rights": [], "homepage": "h", "items": {}},
    ],
)
def test_a_manifest_of_odd_parts_lists_what_it_can(list_manifest, manifest):
    assert list_manifest(manifest) == []


def test_the_whole_image_of_a_part_is_listed(list_manifest):
    whole = image3("a", service=[{"id": "https://i.org/a", "type": "ImageService3"}])
    part = {
        "type": "SpecificResource",
        "source": whole,
        "selector": {"type": "ImageApiSelector", "rotation": "90"},
    }
    old_part = {
        "@type": "oa:SpecificResource",
        "full": {"@id": "https://i.org/b.jpg", "@type": "dctypes:Image"},
    }
    canvas_2 = {"images": [{"resource": old_part}]}
    assert [link.url for link in list_manifest({**MANIFEST_3, "items": [canvas3(1, part)]})] == [
        "https://i.org/a/full/max/0/default.jpg"
    ]
    assert [link.url for link in list_manifest({**MANIFEST_2, "sequences": [{"canvases": [canvas_2]}]})] == [
        "https://i.org/b.jpg"
    ]


@pytest.mark.parametrize(
    ("service", "end"),
    [
        (
            {
                "@id": "https://i.org/a",
                "profile": "http://library.stanford.edu/iiif/image-api/1.1/compliance.html",
            },
            "full/full/0/native.jpg",
        ),
        ({"@id": "https://i.org/a", "@type": "ImageService1"}, "full/full/0/native.jpg"),
        (
            {"@id": "https://i.org/a", "profile": "http://iiif.io/api/image/2/level2.json"},
            "full/full/0/default.jpg",
        ),
        ({"id": "https://i.org/a", "type": "ImageService3", "profile": "level0"}, "full/max/0/default.jpg"),
    ],
)
def test_each_version_of_the_image_api_is_asked_in_its_own_words(list_manifest, service, end):
    [link] = list_manifest({**MANIFEST_3, "items": [canvas3(1, image3("a", service=service))]})
    assert link.url == f"https://i.org/a/{end}"


def test_what_is_said_of_one_image_counts_for_it(list_manifest):
    own = {
        "rights": "http://rightsstatements.org/vocab/InC/1.0/",
        "requiredStatement": {"value": {"en": ["Bob"]}},
    }
    first, second = (canvas3(number, image3(str(number))) for number in (1, 2))
    links = list_manifest({**MANIFEST_3, "items": [{**first, **own}, second]})
    assert [(link.attributes["license_url"], link.attributes["credit"]) for link in links] == [
        ("http://rightsstatements.org/vocab/InC/1.0/", "Bob"),
        ("http://creativecommons.org/licenses/by/4.0/", "The Museum"),
    ]


@pytest.mark.parametrize(
    "label",
    [
        {"de": ["Buch"], "en-GB": ["Book"]},
        [{"@value": "Buch", "@language": "de"}, {"@value": "Book", "@language": "en"}],
        {"de": ["Buch"], "none": ["Book"]},
        [{"@value": "Buch", "@language": "de"}, "Book"],
        "Book",
    ],
)
def test_a_text_in_several_languages_is_read_in_english_where_there_is_some(list_manifest, label):
    link, *_ = list_manifest({**MANIFEST_3, "label": label})
    assert link.attributes["album"] == "Book"


def test_members_that_a_collection_holds_whole_are_not_asked_for(list_manifest, server):
    inner = {"type": "Collection", "id": "urn:not-on-the-web", "items": [{**MANIFEST_3, "id": "urn:neither"}]}
    assert len(list_manifest({"type": "Collection", "items": [inner]})) == len(list_manifest(MANIFEST_3))
    assert set(server.paths()) == {"/manifest"}


def test_a_members_name_may_be_relative(list_manifest, server):
    server.serve("/3", json.dumps(MANIFEST_3).encode())
    assert list_manifest({"type": "Collection", "items": [{"id": "/3", "type": "Manifest"}]})
