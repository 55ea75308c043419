import importlib

import pytest

from imgdl_pipeline import sources


@pytest.mark.parametrize(
    ("module", "name", "new_name"),
    [
        ("imgdl_pipeline.core.links", "Link", "Link"),
        ("imgdl_pipeline.core.settings", "SourceSettings", "SourceSettings"),
        ("imgdl_pipeline.core.settings", "Secret", "Secret"),
        ("imgdl_pipeline.core.sources", "Web", "SourceClient"),
    ],
)
def test_a_name_that_has_moved_is_found_with_a_warning_that_says_where_it_is(module, name, new_name):
    with pytest.warns(DeprecationWarning, match=f"import {new_name} from imgdl_pipeline.sources"):
        found = getattr(importlib.import_module(module), name)
    assert found is getattr(sources, new_name)


def test_a_name_that_was_never_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Lnik'"):
        getattr(importlib.import_module("imgdl_pipeline.core.links"), "Lnik")  # noqa: B009
