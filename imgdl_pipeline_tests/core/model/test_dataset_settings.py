import pytest
from pydantic import ValidationError

from imgdl_pipeline.core.model.dataset_settings import ResizeSettings


def test_pictures_are_fitted_in_srgb_without_metadata_unless_told_otherwise():
    assert ResizeSettings(side=256).model_dump() == {
        "side": 256,
        "how": "fit",
        "quality": 90,
        "chroma": "4:2:0",
        "color": "srgb",
        "metadata": "drop",
    }


@pytest.mark.parametrize(
    "wrong",
    [{"side": 0}, {"side": 8193}, {"quality": 0}, {"quality": 101}, {"how": "stretch"}, {"chroma": "4:1:1"}],
    ids=str,
)
def test_what_no_picture_can_be_is_an_error(wrong):
    with pytest.raises(ValidationError):
        ResizeSettings(**{"side": 256, **wrong})
