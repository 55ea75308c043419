"""Kinds of files that users have reported, from their link to their row in the catalog."""

import json
from datetime import datetime, timezone

import pytest

from imgdl_pipeline.core.catalog.build import build_catalog
from imgdl_pipeline.core.download.run import download_gallery
from imgdl_pipeline.core.model.links import Link, links_table
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.layout import links_path
from imgdl_pipeline_tests.support.hostile import LOSSLESS, resized
from imgdl_pipeline_tests.support.pictures import jpeg, samplings
from imgdl_pipeline_tests.support.segments import segment, tiff, with_segments

PICTURE = jpeg(1, (96, 64))
COMMENT = "a photo of a cat, café"


def with_exif(tag, type_, value, order="<"):
    return with_segments(
        segment(0xE1, b"Exif\0\0" + tiff([(tag, type_, len(value), value)], order=order)), picture=PICTURE
    )


CASES = {
    "a lossless JPEG": (LOSSLESS, {"status": "invalid", "reason": "unsupported"}),
    "sampling factors 3 × 1": (samplings()["3x1.jpg"], {"status": "ok", "warning": None}),
    "subsampled CMYK": (samplings()["cmyk-2x2.jpg"], {"status": "ok", "warning": None, "mode": "CMYK"}),
    "an ICC profile twice": (
        with_segments(*[segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(99))] * 2, picture=PICTURE),
        {"status": "ok", "warning": "the pieces of its ICC profile are missing, repeated or miscounted"},
    ),
    "a stray byte between header segments": (
        PICTURE.replace(b"\xff\xdb", b"\0\xff\xdb", 1),
        {"status": "ok", "warning": "Corrupt JPEG data: 1 extraneous bytes before marker 0xdb"},
    ),
    "24 megapixels, progressive, 4:4:4": (
        jpeg(1, (6000, 4000), progressive=True, subsampling=0),
        {"status": "ok", "width": 6000},
    ),
    "more than may be decoded": (
        resized(jpeg(1, (64, 64), progressive=True, subsampling=0), 10_000, 6_000),
        {"status": "invalid", "reason": "too_much_memory"},
    ),
    "a big-endian comment in UTF-16": (
        with_exif(0x9286, 7, b"UNICODE\0" + COMMENT.encode("utf-16-be"), ">"),
        {"status": "ok", "exif": {"UserComment": COMMENT}, "embedded": {"caption": COMMENT}},
    ),
    "a comment in the other byte order": (
        with_exif(0x9286, 7, b"UNICODE\0" + COMMENT.encode("utf-16-le"), ">"),
        {"status": "ok", "exif": {"UserComment": COMMENT}},
    ),
    "a title that Windows wrote": (
        with_exif(0x9C9B, 1, "hé\0".encode("utf-16-le")),
        {"status": "ok", "exif": {"XPTitle": "hé"}, "embedded": {"title": "hé"}},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_that_a_user_has_reported_has_the_row_it_should(case, server, store, jpegs):
    data, expected = CASES[case]
    links = [Link(server.serve("/a.jpg", data))]
    store.write_table(links_path("g"), links_table(links, datetime.now(timezone.utc)))
    settings = DownloadSettings(allow_addresses=("127.0.0.0/8",), attempts=1)
    download_gallery("g", store, settings, jpegs=jpegs)
    [row] = build_catalog("g", store, settings, jpegs=jpegs).catalog.to_pylist()
    found = {
        name: json.loads(row[name]) if isinstance(value, dict) else row[name]
        for name, value in expected.items()
    }
    assert found == expected
