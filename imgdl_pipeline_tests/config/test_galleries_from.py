import json

import pytest

from imgdl_pipeline.config.galleries_file import GalleriesFileError, read_galleries_file
from imgdl_pipeline.config.galleries_from import MAX_GALLERIES, GalleriesFrom
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.sources import SourceError

TABLE = "museum,category,days\nLouvre,Paintings,7\nMusée d'Orsay,Sculptures,30\n"
FILE = """\
type: imgdl_pipeline.ImageGalleries
attributes:
  galleries:
    - {{name: demo, source: {{type: demo}}}}
  galleries_from:
    path: {path}
    name_column: museum
    gallery:
      source: {{type: wikimedia_commons, category: "{{{{ row.category }}}} of {{{{ row.museum }}}}"}}
      download: {{recheck: "{{{{ row.days }}}}"}}
"""
COLLECTION = {
    "@context": "http://iiif.io/api/presentation/3/context.json",
    "id": "c",
    "type": "Collection",
    "items": [
        {"id": "/m1", "type": "Manifest", "label": {"en": ["Maps"]}},
        {"id": "/m2", "type": "Manifest", "label": {"en": ["Maps"]}},
        {"id": "/m3", "type": "Collection", "label": {"de": ["Übersicht"]}},
    ],
}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "galleries.yaml"


def write(file, path):
    file.write_text(FILE.format(path=path))


def test_each_row_of_a_local_table_is_a_gallery_beside_those_of_the_file(file):
    (file.parent / "museums.csv").write_text(TABLE)
    write(file, file.parent / "museums.csv")
    demo, louvre, orsay = read_galleries_file(file).galleries
    assert (demo.name, louvre.name, orsay.name) == ("demo", "Louvre", "Musee-d-Orsay")
    assert orsay.source.category == "Sculptures of Musée d'Orsay"
    assert (louvre.download.recheck, louvre.trusted) == (7, True)


def test_a_row_that_makes_no_gallery_is_told_by_its_number(file):
    (file.parent / "museums.csv").write_text(TABLE.replace(",30", ",often"))
    write(file, file.parent / "museums.csv")
    with pytest.raises(GalleriesFileError) as caught:
        read_galleries_file(file)
    assert str(caught.value).startswith(f"{file}:5: attributes.galleries_from.row 2.download.recheck: ")
    assert "not 'often'" in str(caught.value)


def test_two_rows_of_one_name_are_an_error(file):
    (file.parent / "museums.csv").write_text(TABLE + "louvre,Drawings,7\n")
    write(file, file.parent / "museums.csv")
    with pytest.raises(GalleriesFileError, match="row 3: the name 'louvre' is used twice"):
        read_galleries_file(file)


def test_a_column_that_is_not_there_is_told_once_for_each_row(file):
    (file.parent / "museums.csv").write_text("museum,kind\nLouvre,art\n")
    write(file, file.parent / "museums.csv")
    with pytest.raises(GalleriesFileError) as caught:
        read_galleries_file(file)
    assert "there is no column 'category'; there are kind, museum, name" in str(caught.value)


def test_a_table_that_is_not_there_is_told_with_its_place(file):
    write(file, file.parent / "nowhere.csv")
    with pytest.raises(GalleriesFileError) as caught:
        read_galleries_file(file)
    assert str(caught.value).startswith(f"{file}:5: attributes.galleries_from: ")
    assert "nowhere.csv: there is no such file" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("{}", "give either path or collection"),
        ("{path: a.csv, collection: 'https://h.org/c'}", "give either path or collection"),
        ("{path: a.csv}", "give gallery: with the source"),
        ("{pathh: a.csv}", "unknown key 'pathh'; allowed are .*; did you mean 'path'"),
    ],
)
def test_a_wrong_key_says_what_is_allowed(file, given, words):
    file.write_text(f"type: imgdl_pipeline.ImageGalleries\nattributes:\n  galleries_from: {given}\n")
    with pytest.raises(GalleriesFileError, match=words):
        read_galleries_file(file)


def test_a_remote_table_is_asked_for_by_refresh_alone(file, server, caplog):
    server.serve("/museums.csv", TABLE.encode(), Content_Type="text/csv")
    write(file, server.url("/museums.csv"))
    before = read_galleries_file(file)
    assert [each.name for each in before.galleries] == ["demo"]
    assert "run imgdl refresh" in caplog.text
    assert server.paths() == []
    assert before.galleries_from.refresh(file, DownloadSettings()) == 2
    asked = len(server.paths())
    after = read_galleries_file(file)
    assert [each.name for each in after.galleries] == ["demo", "Louvre", "Musee-d-Orsay"]
    assert not after.galleries[1].trusted
    assert len(server.paths()) == asked
    write(file, server.url("/others.csv"))
    assert len(read_galleries_file(file).galleries) == 1, "rows of another place are not used"


def test_rows_that_cannot_be_read_again_are_fetched_anew(file, server, caplog):
    server.serve("/museums.csv", TABLE.encode(), Content_Type="text/csv")
    write(file, server.url("/museums.csv"))
    (file.parent / "galleries.state.json").write_text("{")
    assert len(read_galleries_file(file).galleries) == 1
    assert "galleries.state.json cannot be read" in caplog.text


def test_a_strangers_row_that_makes_no_gallery_is_passed_over_with_a_warning(file, server, caplog):
    rows = "museum,category,days\ndemo,Taken,7\nLouvre,Paintings,often\nPrado,Drawings,7\nPRADO,Twice,7\n"
    server.serve("/museums.csv", rows.encode(), Content_Type="text/csv")
    write(file, server.url("/museums.csv"))
    read_galleries_file(file).galleries_from.refresh(file, DownloadSettings())
    assert [each.name for each in read_galleries_file(file).galleries] == ["demo", "Prado"]
    for words in (
        "row 1: the name 'demo' is used twice",
        "row 2.download.recheck",
        "row 4: the name 'PRADO'",
    ):
        assert words in caplog.text


def test_a_table_that_has_become_empty_leaves_the_rows_of_the_last_refresh(file, server):
    server.serve("/museums.csv", TABLE.encode(), Content_Type="text/csv")
    write(file, server.url("/museums.csv"))
    made_from = read_galleries_file(file).galleries_from
    assert not made_from.is_known(file)
    made_from.refresh(file, DownloadSettings())
    server.serve("/museums.csv", b"museum,category,days\n", Content_Type="text/csv")
    with pytest.raises(SourceError, match="there are no rows, and there were 2, which stay"):
        made_from.refresh(file, DownloadSettings())
    assert made_from.is_known(file)
    assert len(read_galleries_file(file).galleries) == 3
    assert (file.parent / "galleries.state.json").stat().st_mode & 0o077 == 0


def test_very_many_wrong_rows_are_told_in_few_words(file):
    rows = "\n".join(f"m{number},c,often" for number in range(1000))
    (file.parent / "museums.csv").write_text(f"museum,category,days\n{rows}\n")
    write(file, file.parent / "museums.csv")
    with pytest.raises(GalleriesFileError) as caught:
        read_galleries_file(file)
    assert len(str(caught.value).splitlines()) == 21
    assert "and 980 more errors in rows" in str(caught.value)


def test_a_collections_galleries_keep_their_source_when_other_keys_are_given(file, server):
    server.serve("/c", json.dumps(COLLECTION).encode(), Content_Type="application/json")
    file.write_text(
        "type: imgdl_pipeline.ImageGalleries\nattributes:\n  galleries_from:\n"
        f"    collection: {server.url('/c')}\n    gallery: {{list_timeout: 60}}\n"
    )
    read_galleries_file(file).galleries_from.refresh(file, DownloadSettings())
    [first, *_] = read_galleries_file(file).galleries
    assert (first.source.type, first.list_timeout) == ("iiif", 60)


def test_a_refresh_that_fails_leaves_the_rows_of_the_last_one(file, server):
    server.serve("/museums.csv", TABLE.encode(), Content_Type="text/csv")
    write(file, server.url("/museums.csv"))
    made_from = read_galleries_file(file).galleries_from
    made_from.refresh(file, DownloadSettings())
    del server.routes["/museums.csv"]
    with pytest.raises(SourceError, match="404"):
        made_from.refresh(file, DownloadSettings())
    assert len(read_galleries_file(file).galleries) == 3


def test_each_member_of_a_iiif_collection_is_a_gallery_with_a_name_of_its_own(file, server):
    server.serve("/c", json.dumps(COLLECTION).encode(), Content_Type="application/json")
    made_from = GalleriesFrom(collection=server.url("/c"), state=str(file.parent / "kept" / "rows.json"))
    assert made_from.refresh(file, DownloadSettings()) == 3
    rows = made_from.rows(file)
    assert [row["name"].rpartition("-")[0] for row in rows] == ["Maps", "Maps", "Ubersicht"]
    assert len({row["name"] for row in rows}) == 3
    assert rows[2]["manifest"] == server.url("/m3")
    file.write_text(
        "type: imgdl_pipeline.ImageGalleries\nattributes:\n"
        f"  galleries_from: {{collection: '{server.url('/c')}', state: {made_from.state}}}\n"
    )
    [first, *_] = read_galleries_file(file).galleries
    assert (first.source.type, first.source.manifest, first.trusted) == ("iiif", server.url("/m1"), False)


def test_what_is_no_collection_says_so(file, server):
    manifest = {"@context": "http://iiif.io/api/presentation/3/context.json", "id": "m", "type": "Manifest"}
    server.serve("/m", json.dumps(manifest).encode(), Content_Type="application/json")
    with pytest.raises(SourceError, match="this is no IIIF collection, and has no members"):
        GalleriesFrom(collection=server.url("/m")).refresh(file, DownloadSettings())


def test_more_rows_than_dagster_can_show_are_an_error(file):
    table = file.parent / "many.txt"
    table.write_text("\n".join(f"g{number}" for number in range(MAX_GALLERIES + 1)))
    made_from = GalleriesFrom(path=str(table), gallery={"source": {"type": "demo"}})
    with pytest.raises(SourceError, match="more than 10000 rows"):
        made_from.rows(file)


DATASET_OF_A_ROW = """\
type: imgdl_pipeline.ImageGalleries
attributes:
  galleries:
    - {{name: demo, source: {{type: demo}}}}
  galleries_from:
    path: {path}
    name_column: museum
    gallery:
      source: {{type: wikimedia_commons, category: "{{{{ row.category }}}}"}}
      dataset:
        format: parquet
        where: "{{{{ row.where }}}}"
        shard_images: "{{{{ row.images }}}}"
        caption: attributes.title
"""
DATASETS = "museum,category,where,images\nLouvre,Paintings,width > 200,100\nPrado,Drawings,height > 9,50\n"


def test_each_row_may_make_a_gallery_with_a_dataset_of_its_own(file):
    (file.parent / "museums.csv").write_text(DATASETS)
    file.write_text(DATASET_OF_A_ROW.format(path=file.parent / "museums.csv"))
    demo, louvre, prado = read_galleries_file(file).galleries
    assert demo.dataset is None
    assert [(each.dataset.where, each.dataset.shard_images) for each in (louvre, prado)] == [
        ("width > 200", 100),
        ("height > 9", 50),
    ]


def test_a_row_whose_dataset_is_wrong_is_told_by_its_number(file):
    (file.parent / "museums.csv").write_text(DATASETS.replace(",50", ",0"))
    file.write_text(DATASET_OF_A_ROW.format(path=file.parent / "museums.csv"))
    with pytest.raises(GalleriesFileError) as caught:
        read_galleries_file(file)
    place = f"{file}:5: attributes.galleries_from.row 2.dataset.shard_images: Input should be greater than"
    assert str(caught.value).startswith(place)


def test_a_row_whose_condition_is_wrong_is_told_by_its_number(file):
    (file.parent / "museums.csv").write_text(DATASETS.replace("height > 9", "hieght > 9"))
    file.write_text(DATASET_OF_A_ROW.format(path=file.parent / "museums.csv"))
    with pytest.raises(GalleriesFileError) as caught:
        read_galleries_file(file)
    assert str(caught.value).startswith(f"{file}:5: attributes.galleries_from.row 2.dataset.where: ")


def test_a_strangers_row_whose_condition_is_wrong_is_passed_over_with_a_warning(file, server, caplog):
    rows = DATASETS.replace("height > 9", "hieght > 9")
    server.serve("/museums.csv", rows.encode(), Content_Type="text/csv")
    file.write_text(DATASET_OF_A_ROW.format(path=server.url("/museums.csv")))
    read_galleries_file(file).galleries_from.refresh(file, DownloadSettings())
    assert [each.name for each in read_galleries_file(file).galleries] == ["demo", "Louvre"]
    assert "row 2.dataset.where" in caplog.text
