"""Galleries with shards, as lists and runs leave them, without network and decoder."""

from datetime import datetime, timezone

from imgdl_pipeline.core.listing.split import split
from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.schemas import LINKS
from imgdl_pipeline.core.storage.layout import catalog_path, links_path, shard_name
from imgdl_pipeline.core.storage.ledger import Ledger
from imgdl_pipeline_tests.support.datasets import Gallery, url_of
from imgdl_pipeline_tests.support.rows import catalog_of, row

MONDAY = datetime(2026, 11, 16, 6, tzinfo=timezone.utc)


def urls(host, count, start=0):
    return [f"https://{host}.org/{number}.jpg" for number in range(start, start + count)]


def split_urls(store, listed, shards=4):
    return split("g", store, map(Link, listed), shards, MONDAY)


def shard_of(store, shards=4):
    """Which shard each link is in; every link is in one only."""
    found = {}
    for number in range(shards):
        for url in store.read_table(links_path(shard_name("g", number)), LINKS)["url"].to_pylist():
            assert url not in found
            found[url] = number
    return found


def hosts_of(found):
    places = {}
    for url, shard in found.items():
        places.setdefault(url.split("/")[2], set()).add(shard)
    return places


MANY = [url for number in range(200) for url in urls(f"h{number}", 10)]
"""Links of 200 hosts, ten of each."""


def sharded(store, shards=3, images=12, gallery="g"):
    """A gallery with shards as runs leave it: lists, images, ledgers and catalogs; return its shards by name.

    All links are of one host, which is in all shards.
    """
    split(gallery, store, [Link(url_of(number)) for number in range(images)], shards, MONDAY)
    made = {}
    for name in (shard_name(gallery, number) for number in range(shards)):
        listed = store.read_table(links_path(name), LINKS)["url"].to_pylist()
        made[name] = Gallery(store, name).put(
            *(number for number in range(images) if url_of(number) in listed)
        )
        rows = made[name].rows.values()
        store.write_table(catalog_path(name), catalog_of(*rows))
        with Ledger(store, name) as ledger:
            for each in rows:
                ledger.add(row(**{key: each[key] for key in ("url", "path", "sha256", "bytes")}))
    return made
