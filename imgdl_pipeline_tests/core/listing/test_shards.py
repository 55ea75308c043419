import pytest

from imgdl_pipeline.core.listing.build import lengths, list_gallery, read_links
from imgdl_pipeline.core.listing.shards import hosts_spread, list_shards, shards_with_work
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.sources import SourceError
from imgdl_pipeline.core.sources.url_list import UrlListSource
from imgdl_pipeline.core.storage.layout import catalog_path, links_path, shard_name
from imgdl_pipeline.core.storage.lease import GalleryBusyError, Lease
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.parts import ReshardError
from imgdl_pipeline_tests.support.rows import catalog_of

SHARDS = 3


@pytest.fixture
def listed(tmp_path, store):
    """Lists the gallery `g` of a file with some links."""

    def listed_(*links, shards=SHARDS, **more):
        file = tmp_path / "links.txt"
        file.write_text("\n".join(links))
        return list_shards(
            "g", UrlListSource(type="url_list", path=str(file)), store, DownloadSettings(), shards, **more
        )

    return listed_


def urls(store, number):
    return read_links(store, shard_name("g", number))["url"].to_pylist()


LINKS = [f"https://{host}.org/{number}.jpg" for host in "abcdefgh" for number in range(5)]


def test_every_link_is_in_one_shards_list(listed, store):
    made = listed(*LINKS, LINKS[0])
    found = [url for number in range(SHARDS) for url in urls(store, number)]
    assert sorted(found) == sorted(LINKS)
    assert made.split.given == len(LINKS) + 1
    assert made.split.links == tuple(len(urls(store, number)) for number in range(SHARDS))
    assert made.split.hosts["a.org:443"] == 5
    assert made.warnings == ()


def test_the_same_list_has_the_same_digest(listed):
    first, again = listed(*LINKS), listed(*LINKS)
    assert first.split.digest == again.split.digest != listed(*LINKS[1:]).split.digest


def test_a_source_that_suddenly_lists_nothing_fails_and_the_old_lists_stay(listed, store):
    listed(*LINKS)
    with pytest.raises(SourceError, match=f"lists nothing, and listed {len(LINKS)} links on"):
        listed()
    assert sum(len(urls(store, number)) for number in range(SHARDS)) == len(LINKS)
    assert listed(allow_empty=True).split.links == (0, 0, 0)
    assert lengths(store, shard_name("g", 0)).before is not None


def test_a_source_that_fails_leaves_the_old_lists(listed, store, tmp_path):
    listed(*LINKS)
    before = [store.get(links_path(shard_name("g", number))) for number in range(SHARDS)]
    with pytest.raises(SourceError):
        list_shards(
            "g",
            UrlListSource(type="url_list", path=str(tmp_path / "gone.txt")),
            store,
            DownloadSettings(),
            SHARDS,
        )
    assert [store.get(links_path(shard_name("g", number))) for number in range(SHARDS)] == before


def test_a_source_that_takes_too_long_fails_in_words(store, server):
    server.routes["/list.txt"] = lambda handler: server.release.wait(30)
    source = UrlListSource(type="url_list", path=server.url("/list.txt"))
    settings = DownloadSettings(allow_addresses=("127.0.0.0/8",))
    with pytest.raises(SourceError, match=r"did not list its links within 0\.2 s"):
        list_shards("g", source, store, settings, SHARDS, list_timeout=0.2)
    assert store.get(links_path(shard_name("g", 0))) is None


def test_two_lists_are_not_made_at_a_time(listed, store):
    with Lease(store, "g"), pytest.raises(GalleryBusyError):
        listed(*LINKS)


def test_a_gallery_and_a_very_large_one_cannot_have_the_same_name(listed, store, tmp_path):
    listed(*LINKS)
    source = UrlListSource(type="url_list", path=str(tmp_path / "links.txt"))
    with pytest.raises(
        StoreError, match="has the shards of a very large gallery g: give this one another name"
    ):
        list_gallery("g", source, store, DownloadSettings())
    list_gallery("h", source, store, DownloadSettings())
    with pytest.raises(StoreError, match="has a gallery h without shards: give this one another name"):
        list_shards("h", source, store, DownloadSettings(), SHARDS)


def test_another_number_of_shards_is_refused_with_the_command(listed):
    listed(*LINKS)
    with pytest.raises(ReshardError, match=r"imgdl reshard g 5"):
        listed(*LINKS, shards=5)


def test_long_attributes_and_a_missing_contact_are_said(tmp_path, store, caplog):
    file = tmp_path / "links.csv"
    file.write_text("url,title\nhttps://upload.wikimedia.org/a.jpg," + "é" * 40_000)
    source = UrlListSource(type="url_list", path=str(file))
    made = list_shards("g", source, store, DownloadSettings(), SHARDS)
    assert made.split.links.count(1) == 1
    assert "Wikimedia's hosts ask for a contact" in caplog.text


def test_hosts_are_spread_only_where_there_are_shards(listed, store):
    listed(*(f"https://large.org/{number}.jpg" for number in range(30)), "https://small.org/1.jpg")
    assert hosts_spread(store, "g/0001") == {"large.org:443": SHARDS}
    assert hosts_spread(store, "g") == {}
    with pytest.raises(StoreError, match="materialize gallery_list first"):
        hosts_spread(store, "other/0001")


def test_a_shard_has_work_until_its_catalog_is_newer_than_its_list(listed, store):
    assert shards_with_work(store, "g", SHARDS) == {}
    listed(*LINKS)
    work = shards_with_work(store, "g")
    assert work == shards_with_work(store, "g", SHARDS)
    assert sorted(work) == [0, 1, 2]
    store.write_table(catalog_path("g/0001"), catalog_of())
    assert sorted(shards_with_work(store, "g", SHARDS)) == [0, 2]
    listed(*LINKS[1:])
    assert sorted(shards_with_work(store, "g", SHARDS)) == [0, 1, 2]
    assert all(shards_with_work(store, "g", SHARDS)[number] > at for number, at in work.items())


def test_without_a_list_nobody_knows_how_many_shards_there_are(store):
    with pytest.raises(StoreError, match="g has no shards"):
        shards_with_work(store, "g")
