import sys
import time
from datetime import datetime, timedelta, timezone

import pytest

from imgdl_pipeline.core.dataset.where import GROUPS, INSTALL, Rows, WhereError, check_where, matching
from imgdl_pipeline.core.model.schemas import CATALOG
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline_tests.support.rows import catalog_of

MIDNIGHT = datetime(2026, 11, 22, tzinfo=timezone.utc)

ROWS = catalog_of(
    {
        "url": "https://a/0.jpg",
        "width": 300,
        "height": 200,
        "license_id": "CC0-1.0",
        "attributes": '{"title": "Sea", "likes": 7, "tags": ["x", "y"]}',
        "exif": '{"Make": "Canon"}',
        "fetched_at": MIDNIGHT,
        "taken_at": datetime(2024, 5, 1, 12),
    },
    {
        "url": "https://a/1.jpg",
        "width": 200,
        "height": 300,
        "duplicate_of": "https://a/0.jpg",
        "attributes": '{"title": "Land", "likes": 3}',
        "fetched_at": MIDNIGHT - timedelta(seconds=1),
    },
    {"url": "https://b/2.jpg", "attributes": "{}", "embedded": '{"author": "\\u00e9 \\ud83d\\ude00"}'},
)
"""The third has nulls nearly everywhere."""


def places_of(table, where):
    return matching(Rows.of(table), where).tolist()


@pytest.mark.parametrize(
    ("where", "places"),
    [
        ("true", [0, 1, 2]),
        ("false", []),
        ("width >= 256", [0]),
        ("width >= 256 and duplicate_of is null", [0]),
        ("not (width >= 256)", [1]),
        ("width is null or height > width", [1, 2]),
        ("WIDTH > 1 AND status = 'ok'", [0, 1]),
        ("license_id in ('CC0-1.0', 'CC-BY-4.0')", [0]),
        ("url like '%/b/%'", [2]),
        ("regexp_matches(url, '[01]\\.jpg$')", [0, 1]),
        ("attributes->>'title' = 'Sea'", [0]),
        ("(attributes->>'likes')::int between 1 and 5", [1]),
        ("attributes->'tags'->>0 = 'x'", [0]),
        ("attributes->>'$.title' is null", [2]),
        ("json_extract_string(exif, '$.Make') = 'Canon'", [0]),
        ("embedded->>'author' = 'é 😀'", [2]),
        ("taken_at < date '2025-01-01'", [0]),
        ("taken_at >= '2024-05-01 12:00:00'", [0]),
        ("fetched_at >= '2026-11-22 00:00:00+00'", [0]),
        ("year(taken_at) = 2024", [0]),
        ("width > 1 -- only those that are known", [0, 1]),
        ("width > 1 /* known */ and height > 250", [1]),
        ("width >\n  250", [0]),
        ("url in (select duplicate_of from catalog)", [0]),
    ],
)
def test_a_condition_chooses_rows_in_their_order(where, places):
    assert places_of(ROWS, where) == places
    check_where(where, with_groups=False)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("widht >= 256", 'is no DuckDB SQL.*column "widht" not found.*"width"'),
        ("width >=", "is no DuckDB SQL.*syntax error"),
        ("width >= 256)", "is no DuckDB SQL.*syntax error"),
        ("true) or (true", "syntax error"),
        ("width", "must be a condition, such as width >= 256; it is INTEGER"),
        ("url", "it is VARCHAR"),
        ("null", 'it is "NULL"'),
        ("width > 1, height > 1", "it is BOOLEAN and BOOLEAN"),
        ("width, height", "it is INTEGER and INTEGER"),
        ("true; drop table catalog", "is no DuckDB SQL"),
        ("true;", "is no DuckDB SQL"),
        ("; true", "is no DuckDB SQL"),
        ("-- nothing", "is no DuckDB SQL"),
        ("  ", "is no DuckDB SQL"),
        ("true limit 1", "is no DuckDB SQL"),
        ("true order by url", "is no DuckDB SQL"),
        ("count(*) > 1", "cannot contain aggregates"),
        ("row_number() over () = 1", "cannot contain window functions"),
        ("width > ?", "is no DuckDB SQL"),
        ("cast(url as int) > 1", "Could not convert"),
        ('"group" = 3', 'column "group" not found'),
        ("representative", 'column "representative" not found'),
    ],
)
def test_what_is_no_condition_is_an_error_in_words(where, message):
    with pytest.raises(WhereError, match=message) as caught:
        places_of(ROWS, where)
    assert "\n" not in str(caught.value)
    assert "SELECT" not in str(caught.value).replace("SELECT clause without selection list", "")


@pytest.mark.parametrize(
    "where",
    [
        "exists (from read_csv('{file}'))",
        "(select content from read_text('{file}')) is not null",
        "(select content from read_blob('{file}')) is not null",
        "exists (from glob('{folder}/*'))",
        "url in (select url from '{file}')",
        "exists (from read_parquet('https://127.0.0.1:1/x.parquet'))",
        "exists (from read_json('s3://bucket/x.json'))",
        "exists (from parquet_scan('{file}'))",
        "exists (from sniff_csv('{file}'))",
    ],
)
def test_a_condition_reads_no_file(where, tmp_path):
    file = tmp_path / "secret.csv"
    file.write_text("url\nhttps://a/0.jpg\n")
    with pytest.raises(WhereError, match=r"disabled by configuration|disabled through configuration"):
        places_of(ROWS, where.format(file=file, folder=tmp_path))


@pytest.mark.parametrize(
    "where",
    [
        "exists (copy catalog to '{file}')",
        "exists (attach '{file}')",
        "exists (install httpfs)",
        "exists (set enable_external_access = true)",
        "getenv('HOME') is not null",
        "exists (from ROWS)",
    ],
)
def test_a_condition_changes_nothing_and_sees_nothing_of_the_process(where, tmp_path):
    file = tmp_path / "new.db"
    with pytest.raises(WhereError):
        places_of(ROWS, where.format(file=file))
    assert not file.exists()


def test_groups_are_there_for_conditions_only_where_they_are_looked_for():
    check_where('representative and "group" is null', with_groups=True)
    with pytest.raises(WhereError, match="representative"):
        check_where("representative", with_groups=False)


def test_a_condition_is_checked_without_data():
    check_where("cast(url as int) > 1", with_groups=False)  # fails only with a row
    assert GROUPS.names == ["group", "representative"]
    assert places_of(CATALOG.empty_table(), "width > 1") == []


def test_many_rows_come_in_their_order():
    rows = catalog_of(*({"url": str(number), "width": number % 7} for number in range(20_000)))
    assert places_of(rows, "width = 3") == list(range(3, 20_000, 7))


def test_without_duckdb_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(WhereError) as caught:
        places_of(ROWS, "true")
    assert str(caught.value) == f"needs DuckDB: {INSTALL}"


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_a_condition_holds_for_the_same_rows_in_every_time_zone(zone, monkeypatch):
    """Once: DuckDB takes times without a zone for the machine's own, so that a dataset depends on it."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        places = [
            places_of(ROWS, where)
            for where in ("fetched_at >= '2026-11-22'", "fetched_at::date = '2026-11-21'")
        ]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert places == [[0], [1]]


def test_a_condition_has_the_catalogs_columns_and_no_others():
    """Once: the column that numbers the rows can be used."""
    with pytest.raises(WhereError, match="_place"):
        places_of(ROWS, "_place = 1")


def read_by(where, table=ROWS):
    """The columns that a condition has read, each time that the rows were read for it."""
    read = []

    def batches(names):
        read.append(list(names))
        yield from table.select(list(names)).to_batches(1)

    matching(Rows(table.schema, batches), where)
    return read


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("width > 1 and HEIGHT > 1", ["width", "height"]),
        ("attributes->>'title' = 'Sea'", ["attributes"]),
        ("true", ["url"]),
        ("width * height > 1", CATALOG.names),
        ("catalog is not null", CATALOG.names),
    ],
)
def test_only_columns_that_a_condition_may_use_are_read(where, names):
    assert all(each == names for each in read_by(where))


def test_what_reading_the_rows_raises_is_not_the_conditions_fault():
    def batches(names):
        yield ROWS.select(list(names)).to_batches()[0]
        raise StoreError("the disk is gone")

    with pytest.raises(StoreError, match="the disk is gone"):
        matching(Rows(ROWS.schema, batches), "width > 1")
