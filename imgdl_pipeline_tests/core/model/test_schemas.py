import hashlib

import pytest

from imgdl_pipeline.core.model.schemas import (
    CATALOG,
    DOWNLOADS,
    FACTS,
    LINKS,
    REMOVED,
    SCHEMA_VERSION,
    descriptions,
)

KNOWN = {4: "88c3af2ed38e149c"}
"""By version, a digest of the names and types of all columns."""


def test_a_changed_schema_has_a_new_version():
    columns = [(each.names, [str(type_) for type_ in each.types]) for each in (LINKS, DOWNLOADS, CATALOG)]
    assert KNOWN[SCHEMA_VERSION] == hashlib.sha256(repr(columns).encode()).hexdigest()[:16]


@pytest.mark.parametrize("schema", [LINKS, DOWNLOADS, CATALOG, FACTS, REMOVED])
def test_every_column_is_described(schema):
    assert all(descriptions(schema).values())
