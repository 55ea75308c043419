import io

from PIL import Image

from imgdl_pipeline.core.catalog.contact_sheet import GAP, LARGEST_BYTES, SIDE
from imgdl_pipeline.core.near_duplicates.groups import Group, Member, NearDuplicates
from imgdl_pipeline.core.near_duplicates.sheet import near_duplicates_sheet
from imgdl_pipeline_tests.support.pictures import jpeg

CELL = SIDE + GAP


def found(store, *sizes, missing=()):
    groups = []
    for number, size in enumerate(sizes):
        members = [
            Member("g", f"u{place}", f"images/g/{number}-{place}.jpg", len(jpeg(number)))
            for place in range(size)
        ]
        for place, member in enumerate(members):
            if (number, place) not in missing:
                store.put(member.path, jpeg(number))
        groups.append(Group(number, size, tuple(members)))
    return NearDuplicates(sum(sizes), 1, 1, len(groups), sum(sizes), tuple(groups), 0.1)


def opened(sheet):
    return Image.open(io.BytesIO(sheet))


def test_each_group_has_a_row(store, jpegs):
    sheet = near_duplicates_sheet(found(store, 8, 3, 2), store, jpegs)
    picture = opened(sheet).convert("RGB")
    assert picture.size == (8 * CELL + GAP, 3 * CELL + GAP)
    middle = CELL // 2
    empty = picture.getpixel((4 * CELL + middle, CELL + middle))
    assert max(abs(a - b) for a, b in zip(empty, (32, 34, 40), strict=True)) < 10
    assert picture.getpixel((2 * CELL + middle, CELL + middle)) != empty


def test_ten_rows_of_eight_are_small_enough(store, jpegs):
    assert len(near_duplicates_sheet(found(store, *[8] * 10), store, jpegs)) <= LARGEST_BYTES


def test_a_file_that_is_gone_is_left_out(store, jpegs):
    gone = {(0, 1), (1, 0), (1, 1)}
    sheet = near_duplicates_sheet(found(store, 3, 2, missing=gone), store, jpegs)
    assert opened(sheet).size == (2 * CELL + GAP, CELL + GAP)


def test_without_groups_or_pictures_there_is_no_sheet(store, jpegs):
    assert near_duplicates_sheet(found(store), store, jpegs) is None
    store.delete_folder("images")
    assert near_duplicates_sheet(found(store, 2, missing={(0, 0), (0, 1)}), store, jpegs) is None
