import io
import time
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from PIL import Image

from imgdl_pipeline.core.catalog.contact_sheet import LARGEST_BYTES, SIDE, contact_sheet
from imgdl_pipeline.core.model.schemas import CATALOG
from imgdl_pipeline.core.storage.layout import contact_sheets_path
from imgdl_pipeline_tests.support.pictures import jpeg, photo
from imgdl_pipeline_tests.support.rows import catalog_of

NOON = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)


def plain(colour, size=(90, 90), **options):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


@pytest.fixture
def sheet_of(store):
    def make(*pictures):
        rows = []
        for number, data in enumerate(pictures):
            store.put(f"images/g/{number}.jpg", data)
            row = {"url": f"u{number:03}", "path": f"images/g/{number}.jpg", "bytes": len(data)}
            at = NOON + timedelta(minutes=number)
            rows.append({**row, "sha256": f"{number:064}", "fetched_at": at})
        data = contact_sheet("g", [catalog_of(*rows)], store)
        return Image.open(io.BytesIO(data))

    return make


def cell(sheet, number, columns):
    """The middle of a picture's place."""
    step = SIDE + 4
    x, y = 4 + number % columns * step + SIDE // 2, 4 + number // columns * step + SIDE // 2
    return sheet.convert("RGB").getpixel((x, y))


def near(colour, other):
    return all(abs(one - two) < 30 for one, two in zip(colour, other, strict=True))


def test_the_newest_images_come_first(sheet_of):
    sheet = sheet_of(plain((200, 0, 0)), plain((0, 200, 0)), plain((0, 0, 200)))
    assert sheet.format == "JPEG"
    assert near(cell(sheet, 0, 3), (0, 0, 200))
    assert near(cell(sheet, 2, 3), (200, 0, 0))


def test_no_more_than_48_are_shown_and_it_stays_small(sheet_of, store):
    noisy = [jpeg(number, (400, 300), quality=95) for number in range(60)]
    sheet = sheet_of(*noisy)
    assert sheet.size == (8 * (SIDE + 4) + 4, 6 * (SIDE + 4) + 4)
    [kept] = store.list(contact_sheets_path("g"))
    assert kept.bytes <= LARGEST_BYTES
    assert LARGEST_BYTES * 4 / 3 < 150_000


def test_pictures_stand_the_right_way_up(sheet_of):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° to the right
    upside = Image.new("RGB", (80, 40), (200, 0, 0))
    upside.paste((0, 0, 200), (0, 0, 40, 40))
    file = io.BytesIO()
    upside.save(file, "JPEG", exif=exif.tobytes(), quality=95)
    sheet = sheet_of(file.getvalue()).convert("RGB")
    middle = 4 + SIDE // 2
    assert near(sheet.getpixel((middle, middle - 25)), (0, 0, 200))
    assert near(sheet.getpixel((middle, middle + 25)), (200, 0, 0))


def test_a_gallery_without_images_has_none(store):
    assert contact_sheet("g", [CATALOG.empty_table()], store) is None


def test_a_file_that_cannot_be_shown_is_left_out(sheet_of, store):
    sheet = sheet_of(b"no picture", plain((0, 200, 0)), jpeg(1, (50, 50), "CMYK"))
    assert sheet.size[0] == 2 * (SIDE + 4) + 4


def test_a_gallery_without_news_is_not_decoded_again(sheet_of, store):
    first = sheet_of(plain((0, 200, 0)))
    store.put("images/g/0.jpg", b"not looked at")
    rows = [{"url": "u000", "path": "images/g/0.jpg", "bytes": 1, "sha256": f"{0:064}", "fetched_at": NOON}]
    again = contact_sheet("g", [catalog_of(*rows)], store)
    assert Image.open(io.BytesIO(again)).tobytes() == first.tobytes()
    sheet_of(photo_bytes(), plain((0, 0, 0)))
    assert len(list(store.list(contact_sheets_path("g")))) == 1


def photo_bytes():
    file = io.BytesIO()
    photo(3).save(file, "JPEG")
    return file.getvalue()


def test_pictures_of_nothing_but_noise_make_a_small_sheet_all_the_same(sheet_of, store):
    random = np.random.default_rng(1)
    noise = []
    for _ in range(48):
        file = io.BytesIO()
        pixels = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, "JPEG", quality=95)
        noise.append(file.getvalue())
    sheet_of(*noise)
    [kept] = store.list(contact_sheets_path("g"))
    assert kept.bytes <= LARGEST_BYTES


def test_a_picture_of_more_pixels_than_pillow_likes_and_one_of_odd_exif_are_shown(sheet_of):
    odd = plain((0, 0, 200), (300, 300), exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    file = io.BytesIO()
    Image.new("L", (16_000, 12_000)).save(file, "JPEG")
    assert sheet_of(file.getvalue(), odd).size == (2 * (SIDE + 4) + 4, SIDE + 8)


@pytest.mark.parametrize(
    "filler",
    [b"\xff" * 3_000_000, (b"\xff\xe1\xff\xffExif\0\0II*\0" + bytes(65_523)) * 50],
    ids=["fill bytes", "EXIF segments"],
)
def test_megabytes_that_pillow_would_read_byte_by_byte_or_join_again_and_again_take_no_time(filler, store):
    picture = plain((0, 200, 0))
    data = picture[:2] + filler + picture[2:]
    store.put("images/g/0.jpg", data)
    rows = [
        {"url": f"u{number}", "path": "images/g/0.jpg", "bytes": len(data), "sha256": f"{number:064}"}
        for number in range(48)
    ]
    started = time.monotonic()
    assert contact_sheet("g", [catalog_of(*({**row, "fetched_at": NOON} for row in rows))], store)
    assert time.monotonic() - started < 30
