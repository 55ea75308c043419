import pytest

from imgdl_pipeline.core.jpeg.tiff import ExifError, Tiff
from imgdl_pipeline_tests.support.segments import tiff


def test_entries_are_read_as_far_as_they_lie_within_the_data():
    data = tiff([(0x010F, 2, 6, b"Canon\0"), (0x0112, 3, 1, b"\6\0")])
    found = Tiff.of(data)
    assert [(each.tag, found.bytes(each, 99)) for each in found.entries(8)] == [
        (0x010F, b"Canon\0"),
        (0x0112, b"\6\0"),
    ]
    assert [each.tag for each in Tiff.of(data[:-1]).entries(8)] == [0x0112]


def test_a_pointer_leads_to_another_directory_and_anything_else_nowhere():
    data = Tiff.of(tiff([(0x8769, 4, 1, None), (0x8825, 2, 4, b"abcd")], [(0x9003, 2, 2, b"x\0")]))
    entries = list(data.entries(8))
    assert [each.tag for each in data.directory(entries, 0x8769)] == [0x9003]
    assert data.directory(entries, 0x8825) == []


@pytest.mark.parametrize("data", [b"", b"II*\0", b"XX*\0\x08\0\0\0", b"II\0*\x08\0\0\0"])
def test_what_does_not_begin_as_a_structure_is_none(data):
    with pytest.raises(ExifError):
        Tiff.of(data)
