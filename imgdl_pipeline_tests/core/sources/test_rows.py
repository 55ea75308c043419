import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.config.galleries import is_gallery_name
from imgdl_pipeline.core.listing.build import list_gallery
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.sources import SourceError
from imgdl_pipeline.core.sources.gallery_dl import GalleryDlSource
from imgdl_pipeline.core.sources.rows import slug
from imgdl_pipeline.core.sources.url_list import UrlListSource


@given(st.text(max_size=300))
def test_every_text_becomes_a_gallerys_name(text):
    assert is_gallery_name(slug(text))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("hubble", "hubble"),
        ("New York", "New-York"),
        ("Musée d'Orsay", "Musee-d-Orsay"),
        ("../../etc/passwd", "etc-passwd"),
        ("a...b", "a.b"),
        ("東京", "gallery"),
        ("x" * 200, "x" * 100),
    ],
)
def test_a_name_stays_readable(text, name):
    assert slug(text) == name


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (UrlListSource(type="url_list", path="/etc/passwd", format="txt"), "must be an http or https URL"),
        (UrlListSource(type="url_list", path="s3://bucket/l.csv"), "must be an http or https URL"),
        (GalleryDlSource(type="gallery_dl", url="https://example.org/g"), "gallery_dl is not run"),
    ],
)
def test_a_source_that_someone_else_names_reads_no_file_and_starts_no_program(store, source, words):
    with pytest.raises(SourceError, match=words):
        list_gallery("g", source, store, DownloadSettings(), trusts_source=False)


def test_a_source_that_someone_else_names_may_not_be_at_a_private_address(store, server):
    server.serve("/l.txt", b"https://h.org/a.jpg", Content_Type="text/plain")
    source = UrlListSource(type="url_list", path=server.url("/l.txt"))
    with pytest.raises(SourceError, match=re.escape("127.0.0.1 is not a public address")):
        list_gallery("g", source, store, DownloadSettings(), trusts_source=False)
    assert server.paths() == []
    allowed = DownloadSettings(allow_addresses=("127.0.0.0/8",))
    assert list_gallery("g", source, store, allowed, trusts_source=False).num_rows == 1
