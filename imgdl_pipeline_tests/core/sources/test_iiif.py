import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.config.galleries import Gallery
from imgdl_pipeline.core import sources
from imgdl_pipeline.core.listing.build import list_gallery, list_warnings, read_links
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.sources import client as client_module
from imgdl_pipeline.core.sources import iiif
from imgdl_pipeline.core.sources.client import SourceClient, SourceError, Unchanged
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


def serve(server, path, data):
    return server.serve(path, json.dumps(data).encode(), Content_Type="application/json")


def manifest(*names):
    """A manifest with the images of these names."""
    canvases = [canvas3(number, image3(name)) for number, name in enumerate(names)]
    return {"type": "Manifest", "label": "m", "items": canvases}


def names(links):
    return [link.url.removeprefix("https://i.org/").partition("/")[0] for link in links]


def list_to(store, server, settings=LOOPBACK, **keys):
    source = {"type": "iiif", "manifest": server.url("/manifest"), **keys}
    return list_gallery("g", Gallery(name="g", source=source).source, store, settings)


# What a manifest states about its images


def test_the_canvases_of_all_sequences_are_listed_in_order(list_manifest):
    def sequence(*paths):
        images = [{"images": [{"resource": {"@id": f"https://i.org/{path}/x.jpg"}}]} for path in paths]
        return {"@type": "sc:Sequence", "canvases": images}

    sequences = [sequence("a", "b"), None, sequence(), sequence("c")]
    assert names(list_manifest({"@type": "sc:Manifest", "sequences": sequences})) == ["a", "b", "c"]


SERVICE_2 = {"@id": "https://i.org/two", "@type": "ImageService2"}
SERVICE_3 = {"id": "https://i.org/three", "type": "ImageService3"}
AUTH = {
    "id": "https://i.org/login",
    "type": "AuthCookieService1",
    "profile": "http://iiif.io/api/auth/1/login",
}


@pytest.mark.parametrize(
    ("services", "url"),
    [
        ([SERVICE_2, SERVICE_3], "https://i.org/three/full/max/0/default.jpg"),
        ([SERVICE_3, SERVICE_2], "https://i.org/three/full/max/0/default.jpg"),
        ([AUTH, SERVICE_2], "https://i.org/two/full/full/0/default.jpg"),
        ([{"id": ""}, "https://i.org/x", SERVICE_2], "https://i.org/two/full/full/0/default.jpg"),
        (AUTH, "https://i.org/a/full/400,/0/default.jpg"),
    ],
)
def test_of_several_services_the_highest_version_is_asked(list_manifest, services, url):
    [link] = list_manifest({"type": "Manifest", "items": [canvas3(1, image3("a", service=services))]})
    assert link.url == url


def test_a_service_whose_manifest_says_max_is_asked_for_max(list_manifest):
    """Some services of version 2 know `max` only, and their manifests say so."""
    body = {"@id": "https://i.org/two/full/max/0/default.jpg", "@type": "dctypes:Image", "service": SERVICE_2}
    canvas = {"images": [{"resource": body}]}
    [link] = list_manifest({"@type": "sc:Manifest", "sequences": [{"canvases": [canvas]}]})
    assert link.url == "https://i.org/two/full/max/0/default.jpg"


CHOICE_3 = {"type": "Choice", "items": [image3("a"), image3("b"), image3("c", format="image/png")]}
CHOICE_2 = {
    "@type": "oa:Choice",
    "default": {"@id": "https://i.org/a/x.jpg", "@type": "dctypes:Image"},
    "item": [{"@id": "https://i.org/b/x.jpg", "@type": "dctypes:Image"}, "rdf:nil"],
}


@pytest.mark.parametrize(("choices", "expected"), [({}, ["a"]), ({"choices": "all"}, ["a", "b"])])
def test_of_a_choice_the_first_is_listed_or_all(list_manifest, choices, expected):
    canvas_2 = {"images": [{"resource": CHOICE_2}]}
    assert names(list_manifest({"type": "Manifest", "items": [canvas3(1, CHOICE_3)]}, **choices)) == expected
    version_2 = {"@type": "sc:Manifest", "sequences": [{"canvases": [canvas_2]}]}
    assert names(list_manifest(version_2, **choices)) == expected


def test_a_date_of_navigation_is_the_date_and_a_canvass_own_goes_first(list_manifest):
    first, second = canvas3(1, image3("a")), canvas3(2, image3("b"))
    data = {
        "type": "Manifest",
        "navDate": "1800-01-01T00:00:00Z",
        "items": [{**first, "navDate": "1805-06-07T00:00:00Z"}, second],
    }
    assert [link.attributes["date"] for link in list_manifest(data)] == [
        "1805-06-07T00:00:00Z",
        "1800-01-01T00:00:00Z",
    ]


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [
                    "id",
                    "@id",
                    "type",
                    "@type",
                    "items",
                    "body",
                    "service",
                    "label",
                    "metadata",
                    "value",
                    "sequences",
                    "canvases",
                    "images",
                    "resource",
                    "motivation",
                    "format",
                    "rights",
                    "navDate",
                ]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@given(JSON, st.sampled_from(["first", "all"]))
def test_a_manifest_of_any_parts_lists_what_it_can(part, choices):
    for data in (
        {
            "type": "Manifest",
            "items": part,
            "label": part,
            "metadata": [part],
            "homepage": part,
            "rights": part,
        },
        {"type": "Manifest", "sequences": part},
        {"type": "Manifest", "items": [canvas3(1, part)]},
    ):
        assert all(isinstance(link.url, str) for link in iiif._of_manifest(data, choices))


# Members of collections


def test_members_that_are_gone_are_counted_in_the_lists_warnings(server, store):
    serve(server, "/1", manifest("a"))
    server.serve("/410", b"gone", 410)
    members = [{"id": server.url(path), "type": "Manifest"} for path in ("/404", "/1", "/410")]
    serve(server, "/manifest", {"type": "Collection", "items": members})
    links = list_to(store, server)
    assert names_in(store) == ["a"]
    assert list_warnings(links) == ["2 members of the collection are gone, and are passed over"]


def names_in(store):
    return [url.split("/")[3] for url in read_links(store, "g")["url"].to_pylist()]


def test_a_collection_that_is_gone_itself_is_an_error(list_manifest, server, store):
    with pytest.raises(SourceError, match=r"/manifest: the document could not be fetched \(status 404\)"):
        list_to(store, server)


def test_a_member_at_the_manifests_own_address_is_trusted_and_at_its_name_is_not(server, store):
    """A name may lead elsewhere when it is looked up again; an address may not."""
    serve(server, "/1", manifest("a"))
    serve(server, "/manifest", {"type": "Collection", "items": [{"id": "/1", "type": "Manifest"}]})
    assert list_to(store, server, DownloadSettings()).num_rows == 1
    named = server.url("/manifest").replace("127.0.0.1", "localhost")
    with pytest.raises(SourceError, match="not a public address"):
        list_to(store, server, DownloadSettings(), manifest=named)
    other = {"id": server.url("/1").replace("127.0.0.1", "127.0.0.2"), "type": "Manifest"}
    serve(server, "/manifest", {"type": "Collection", "items": [other]})
    with pytest.raises(SourceError, match="not a public address"):
        list_to(store, server, DownloadSettings())


def test_a_manifest_without_a_jpeg_is_said_aloud_with_both_numbers(server, store):
    serve(server, "/1", {"type": "Manifest", "items": [canvas3(1, image3("a", format="image/tiff"))]})
    serve(server, "/manifest", {"type": "Collection", "items": [{"id": "/1", "type": "Manifest"}]})
    assert list_warnings(list_to(store, server)) == ["g: the source has 2 entries, and 0 of them give a link"]


def test_more_manifests_than_a_gallery_may_have_are_an_error(list_manifest, server, monkeypatch):
    monkeypatch.setattr(iiif, "DOCUMENTS", 3)
    for number in range(4):
        serve(server, f"/{number}", manifest(str(number)))
    members = [{"id": f"/{number}", "type": "Manifest"} for number in range(4)]
    with pytest.raises(SourceError, match="more than 3 manifests and collections; name a smaller collection"):
        list_manifest({"type": "Collection", "items": members})


def test_a_manifest_of_more_values_than_are_parsed_is_an_error_that_names_the_bound(
    list_manifest, monkeypatch
):
    monkeypatch.setattr(client_module, "JSON_VALUES", 500)
    assert list_manifest(MANIFEST_3)
    with pytest.raises(SourceError, match="JSON_VALUES"):
        list_manifest({**MANIFEST_3, "metadata": [[]] * 500})


def test_a_manifest_that_is_too_long_is_an_error_that_says_how_long_it_may_be(list_manifest, monkeypatch):
    monkeypatch.setattr(iiif, "MANIFEST_BYTES", 1_000)
    with pytest.raises(SourceError, match="the answer is longer than 1000 bytes"):
        list_manifest(MANIFEST_3)


# Change Discovery: https://iiif.io/api/discovery/1.0/


def activity(kind, path, **more):
    return {"type": kind, "object": {"id": path, "type": "Manifest"}, **more}


@pytest.fixture
def discovery(server):
    """Serves lists of changes, the pages from the first to the last."""

    def serve_(*pages):
        for number, activities in enumerate(pages):
            page = {"type": "OrderedCollectionPage", "orderedItems": activities}
            page |= {"prev": {"id": f"/changes/{number - 1}"}} if number else {}
            serve(server, f"/changes/{number}", page)
        last = {"id": f"/changes/{len(pages) - 1}", "type": "OrderedCollectionPage"}
        serve(server, "/manifest", {"type": "OrderedCollection", "last": last, "totalItems": 9})

    for name in "abcdef":
        serve(server, f"/{name}", manifest(name))
    return serve_


def test_the_manifests_of_a_list_of_changes_are_listed_the_latest_first_without_the_deleted(
    discovery, server, store
):
    discovery(
        [activity("Create", "/a"), activity("Create", "/b"), activity("Create", "/c")],
        [activity("Update", "/a"), activity("Delete", "/b"), activity("Add", "/d"), activity("Remove", "/d")],
        [
            activity("Create", "/e"),
            activity("Update", "/e"),
            activity("Delete", "/f"),
            None,
            {"type": "Refresh"},
        ],
    )
    list_to(store, server)
    assert names_in(store) == ["e", "a", "c"]
    assert server.paths() == ["/manifest", "/changes/2", "/e", "/changes/1", "/a", "/changes/0", "/c"]


def test_a_manifest_that_was_deleted_and_is_back_is_listed(discovery, server, store):
    discovery([activity("Create", "/a"), activity("Delete", "/a")], [activity("Create", "/a")])
    list_to(store, server)
    assert names_in(store) == ["a"]


def test_a_manifest_that_has_moved_is_listed_where_it_is_now(discovery, server, store):
    """`object` is where it was, and `target` is where it is."""
    moved = activity("Move", "/old", target={"id": "/b", "type": "Manifest"})
    discovery([activity("Create", "/a"), activity("Create", "/old"), moved])
    links = list_to(store, server)
    assert (names_in(store), list_warnings(links)) == (["b", "a"], [])


def test_a_list_of_changes_without_new_ones_costs_two_requests_and_the_list_stays(discovery, server, store):
    pages = [[activity("Create", "/a")], [activity("Create", "/b")]]
    discovery(*pages)
    first = list_to(store, server)
    server.requests.clear()
    second = list_to(store, server)
    assert len(server.requests) <= 2
    assert second["url"].equals(first["url"])
    assert second["listed_at"][0].as_py() > first["listed_at"][0].as_py()
    pages[1].append(activity("Create", "/c"))
    discovery(*pages)
    list_to(store, server)
    assert names_in(store) == ["c", "b", "a"]
    assert list_to(store, server, max_images=1).num_rows == 1  # other keys list other links


def test_a_list_of_changes_without_new_ones_is_unchanged(discovery, server):
    discovery([activity("Create", "/a")])
    source = IiifSource(type="iiif", manifest=server.url("/manifest"))
    with SourceClient(LOOPBACK, {}) as client:
        assert len(list(sources.list_links(source, client))) == 1
        validators = client.validators
    assert "manifest" not in json.dumps(validators)
    with SourceClient(LOOPBACK, {}, validators=validators) as client:
        with pytest.raises(Unchanged):
            list(sources.list_links(source, client))
        assert client.validators == validators


def test_a_listing_that_failed_is_no_reason_to_think_that_nothing_has_changed(discovery, server, store):
    discovery([activity("Create", "/a")])
    list_to(store, server)
    discovery([activity("Create", "/a"), activity("Create", "/b")])
    server.serve("/b", b"", 403)
    for _ in range(2):
        with pytest.raises(SourceError, match=r"/b: .*status 403"):
            list_to(store, server)
    serve(server, "/b", manifest("b"))
    list_to(store, server)
    assert names_in(store) == ["b", "a"]


def test_a_list_of_changes_that_has_none_leaves_a_collections_other_members_their_own(
    discovery, server, store
):
    discovery([activity("Create", "/a")])
    serve(server, "/changes", {"type": "OrderedCollection", "last": "/changes/0"})
    members = [{"id": "/changes", "type": "OrderedCollection"}, {"id": "/b", "type": "Manifest"}]
    serve(server, "/manifest", {"type": "Collection", "items": members})
    list_to(store, server)
    assert names_in(store) == ["a", "b"]
    serve(server, "/b", manifest("b", "c"))
    list_to(store, server)
    assert names_in(store) == ["a", "b", "c"]


def test_pages_of_changes_that_go_in_circles_are_read_once(discovery, server, store):
    discovery([activity("Create", "/a")], [activity("Create", "/b")])
    page = {"type": "OrderedCollectionPage", "orderedItems": [activity("Create", "/a")], "prev": "/changes/1"}
    serve(server, "/changes/0", page)
    list_to(store, server)
    assert names_in(store) == ["b", "a"]


def test_a_page_of_changes_that_fails_leaves_the_old_list(discovery, server, store):
    discovery([activity("Create", "/a")], [activity("Create", "/b")])
    list_to(store, server)
    discovery([activity("Create", "/a")], [activity("Create", "/b"), activity("Create", "/c")])
    server.serve("/changes/0", b"<html>down</html>", 403)
    with pytest.raises(SourceError, match=r"/changes/0: .*status 403\): <html>down"):
        list_to(store, server)
    assert names_in(store) == ["b", "a"]
