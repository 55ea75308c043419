import base64
import io
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from PIL import Image

from imgdl_pipeline.core.model.outcome import ResourceError
from imgdl_pipeline.core.model.schemas import CATALOG
from imgdl_pipeline.core.storage.layout import catalog_path, resharding_path
from imgdl_pipeline.core.storage.parts import ReshardError
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.core.view.write import (
    BLOCK_ROWS,
    LARGEST_BYTES,
    SIDE,
    View,
    save_view,
    webp,
    write_view,
)
from imgdl_pipeline_tests.support.pictures import jpeg
from imgdl_pipeline_tests.support.rows import catalog_of
from imgdl_pipeline_tests.support.shards import sharded
from imgdl_pipeline_tests.support.view import HOSTILE, Page

NOON = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)


def image(number, size=9_000):
    """The row of an image that is newer than those of lower numbers."""
    at = NOON + timedelta(minutes=number)
    path = f"images/g/{number}.jpg"
    return {"url": f"https://h.org/{number}.jpg", "path": path, "bytes": size, "fetched_at": at}


@pytest.fixture
def page_of(store, jpegs):
    def page_of_(*rows, **options):
        store.write_table(catalog_path("g"), catalog_of(*rows))
        file = io.BytesIO()
        view = write_view(store, "g", file, jpegs=jpegs, **options)
        return view, Page(file.getvalue())

    return page_of_


def picture(text):
    opened = Image.open(io.BytesIO(base64.b64decode(text)))
    assert opened.format == "WEBP"
    return opened.convert("RGB")


def test_a_page_has_a_picture_of_each_image_and_the_row_of_each_link(store, page_of):
    store.put("images/g/1.jpg", jpeg(1, (640, 320)))
    failed = {"url": "https://h.org/x.jpg", "status": "failed", "reason": "http_404", "detail": "gone"}
    view, page = page_of(failed, image(1))
    assert view == View(links=2, rows=2, pictures=1)
    [block] = page.blocks
    assert picture(block["pictures"][0]).size == (SIDE, SIDE // 2)
    assert block["pictures"][1] is None
    assert block["rows"][0]["path"] == "images/g/1.jpg"
    assert block["rows"][1] == {"status": "failed", "reason": "http_404", "detail": "gone"}
    assert block["missing"] == {}
    assert page.index["url"] == ["https://h.org/1.jpg", "https://h.org/x.jpg"]


def test_an_object_store_will_do(s3_bucket, jpegs):
    store = Store(f"{s3_bucket}/galleries")
    store.put("images/g/1.jpg", jpeg(1, (64, 32)))
    store.write_table(catalog_path("g"), catalog_of(image(1), image(2)))
    file = io.BytesIO()
    assert write_view(store, "g", file, jpegs=jpegs) == View(links=2, rows=2, pictures=1)
    assert Page(file.getvalue()).blocks[0]["missing"] == {"0": "its file is gone from the store"}


def test_pictures_stand_the_right_way_up(store, page_of):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° to the right
    store.put("images/g/1.jpg", jpeg(1, (80, 40), exif=exif.tobytes()))
    _, page = page_of(image(1))
    assert picture(page.blocks[0]["pictures"][0]).size == (40, 80)


def test_an_image_that_is_gone_or_cannot_be_decoded_is_a_row_that_says_why(store, page_of):
    store.put("images/g/1.jpg", b"no picture")
    view, page = page_of(image(2), image(1), {"url": "u"})
    assert view.pictures == 0
    [block] = page.blocks
    assert block["pictures"] == [None, None, None]
    assert block["missing"]["0"] == "its file is gone from the store"
    assert set(block["missing"]) == {"0", "1"}


def test_the_newest_rows_are_shown_and_the_index_knows_of_the_others(page_of):
    rows = [{"url": f"u{number}", "status": "failed", "first_seen": NOON} for number in range(5)]
    view, page = page_of(*rows, limit=3)
    assert view == View(links=5, rows=3, pictures=0)
    assert page.index["url"] == ["u0", "u1", "u2"]
    assert (page.index["rows"], page.index["links"]) == (3, 5)


def test_each_block_is_written_before_the_next_one_is_made(store, jpegs):
    rows = [{"url": f"u{number:04}", "status": "failed"} for number in range(2 * BLOCK_ROWS + 1)]
    store.write_table(catalog_path("g"), catalog_of(*rows))
    file, written = io.BytesIO(), []
    write_view(
        store,
        "g",
        file,
        jpegs=jpegs,
        on_progress=lambda progress: written.append((str(progress), file.getvalue().count(b'id="block-'))),
    )
    assert written == [
        ("250 of 501 rows written", 1),
        ("500 of 501 rows written", 2),
        ("501 of 501 rows written", 3),
    ]
    assert [len(block["rows"]) for block in Page(file.getvalue()).blocks] == [250, 250, 1]


def test_the_same_catalog_makes_the_same_page(store, jpegs):
    store.put("images/g/1.jpg", jpeg(1))
    store.write_table(catalog_path("g"), catalog_of(image(1)))
    one, two = io.BytesIO(), io.BytesIO()
    write_view(store, "g", one, jpegs=jpegs)
    write_view(store, "g", two, jpegs=jpegs)
    assert one.getvalue() == two.getvalue()


def test_text_of_strangers_is_text(page_of):
    _, page = page_of(
        *({"url": text, "attributes": text, "status": "failed", "detail": text} for text in HOSTILE)
    )
    assert {tag for tag, _ in page.tags if tag in ("img", "svg", "b")} == set()
    assert [row["detail"] for row in page.blocks[0]["rows"]] == HOSTILE


def test_a_gallery_without_a_catalog_is_an_error_and_one_without_rows_a_page(store, jpegs, page_of):
    with pytest.raises(FileNotFoundError, match=r"g has no catalog in .*: run the gallery first"):
        write_view(store, "g", io.BytesIO(), jpegs=jpegs)
    store.write_table(catalog_path("g"), CATALOG.empty_table())
    view, page = page_of()
    assert view == View(0, 0, 0)
    assert page.blocks == []


def test_a_picture_of_nothing_but_noise_is_small_all_the_same():
    noise = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    assert len(webp(Image.fromarray(noise))) <= LARGEST_BYTES
    assert len(webp(Image.new("RGB", (1, 1)))) < 100


class TestSaveView:
    @pytest.fixture
    def path(self, store, tmp_path):
        store.write_table(catalog_path("g"), catalog_of({"url": "u", "status": "failed"}))
        return tmp_path / "g.html"

    def test_an_earlier_page_is_replaced(self, store, jpegs, path):
        save_view(store, "g", path, jpegs=jpegs)
        store.write_table(catalog_path("g"), catalog_of({"url": "new", "status": "failed"}))
        save_view(store, "g", path, jpegs=jpegs)
        assert Page(path.read_bytes()).index["url"] == ["new"]
        assert [each.name for each in path.parent.iterdir() if each.name != "store"] == ["g.html"]

    def test_an_empty_file_is_replaced(self, store, jpegs, path):
        path.touch()
        assert save_view(store, "g", path, jpegs=jpegs).rows == 1

    @pytest.mark.parametrize("other", [b"galleries: []\n", b"<!doctype html>\n<title>mine</title>"])
    def test_another_file_is_left_alone(self, store, jpegs, path, other):
        path.write_bytes(other)
        with pytest.raises(FileExistsError, match=r"g.html exists and is no page of a gallery: name another"):
            save_view(store, "g", path, jpegs=jpegs)
        assert path.read_bytes() == other

    def test_a_folder_is_left_alone(self, store, jpegs, path):
        path.mkdir()
        with pytest.raises(FileExistsError, match="name another file"):
            save_view(store, "g", path, jpegs=jpegs)

    def test_a_page_that_fails_leaves_the_earlier_one(self, store, jpegs, path):
        save_view(store, "g", path, jpegs=jpegs)
        before = path.read_bytes()
        with pytest.raises(FileNotFoundError, match="other has no catalog"):
            save_view(store, "other", path, jpegs=jpegs)
        assert path.read_bytes() == before

    def test_a_folder_that_is_not_there_is_named(self, store, jpegs, path):
        with pytest.raises(ResourceError, match=r"cannot write .*none/g.html: No such file or directory"):
            save_view(store, "g", path.parent / "none" / "g.html", jpegs=jpegs)


@pytest.fixture
def shard_page(store, jpegs):
    """Three shards, whose images' numbers tell how new they are; write a page of the gallery or a shard."""
    for number, name in enumerate(sharded(store)):
        store.write_table(catalog_path(name), catalog_of(*(image(each) for each in range(number, 9, 3))))

    def written(name, **options):
        file = io.BytesIO()
        view = write_view(store, name, file, jpegs=jpegs, **options)
        page = Page(file.getvalue())
        return view, [int(url.rpartition("/")[2].partition(".")[0]) for url in page.index["url"]]

    return written


def test_a_page_of_a_gallery_with_shards_has_the_newest_rows_of_all(shard_page):
    assert shard_page("g") == (View(9, 9, 0), [8, 7, 6, 5, 4, 3, 2, 1, 0])
    assert shard_page("g", limit=4) == (View(9, 4, 0), [8, 7, 6, 5])


def test_a_page_of_one_shard_has_its_rows_only(shard_page):
    assert shard_page("g/0001") == (View(3, 3, 0), [7, 4, 1])


def test_a_shard_that_is_not_there_and_a_gallery_between_two_numbers_of_shards_have_no_page(
    store, shard_page
):
    with pytest.raises(FileNotFoundError, match="g/0005 has no catalog"):
        shard_page("g/0005")
    store.put(resharding_path("g"), b"6")
    with pytest.raises(ReshardError, match="run `imgdl reshard g 6` again"):
        shard_page("g")
