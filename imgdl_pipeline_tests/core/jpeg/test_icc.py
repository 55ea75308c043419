import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageCms

from imgdl_pipeline.core.jpeg.icc import IccError, description, profile_of

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_a_profile_is_put_together_in_the_order_of_its_pieces():
    assert profile_of([b"\2\2world", b"\1\2hello "]) == b"hello world"
    assert profile_of([]) is None


@pytest.mark.parametrize(
    "chunks",
    [[b"\1\2a"], [b"\1\1a", b"\1\1a"], [b"\1\2a", b"\2\3b"], [b"\0\1a"], [b"\1"]],
    ids=["missing", "repeated", "miscounted", "number 0", "cut"],
)
def test_pieces_that_do_not_fit_say_so(chunks):
    with pytest.raises(IccError, match="missing, repeated or miscounted"):
        profile_of(chunks)


def test_a_profile_is_named_by_its_description():
    assert description(SRGB) == "sRGB built-in"


@given(st.binary(max_size=200))
def test_what_is_no_profile_says_so(rubbish):
    with pytest.raises(IccError, match="cannot be read"):
        description(rubbish)
