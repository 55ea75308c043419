import pytest

from imgdl_pipeline.config.file_version import FileVersion
from imgdl_pipeline.config.galleries_file import read_galleries_file

TEXT = """\
type: imgdl_pipeline.ImageGalleries
attributes:
  store: data
  galleries:
    - {name: g, source: {type: demo}}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "galleries.yaml"
    path.write_text(TEXT)
    return path


def version(file):
    return read_galleries_file(file).version


def test_the_same_file_has_the_same_version(file):
    assert version(file).digest == version(file).digest
    assert len(version(file).digest) == 16
    assert not version(file).is_old()


@pytest.mark.parametrize(
    "edited",
    [
        f"# a comment\n{TEXT}",
        TEXT.replace("{type: demo}", "{ type:  'demo' }"),
        TEXT.replace("  store: data\n", "") + "  store: data\n",
    ],
)
def test_comments_layout_and_the_order_of_keys_do_not_count(file, edited):
    loaded = version(file)
    file.write_text(edited)
    assert version(file).digest == loaded.digest
    assert not loaded.is_old()


def test_a_file_that_was_edited_is_another_version(file):
    loaded = version(file)
    file.write_text(TEXT.replace("name: g", "name: h"))
    assert version(file).digest != loaded.digest
    assert loaded.is_old()


def test_a_file_that_is_broken_by_now_says_something_else(file):
    loaded = version(file)
    file.write_text("attributes: [")
    assert loaded.is_old()


def test_a_file_that_cannot_be_read_any_more_is_not_taken_for_edited(file):
    loaded = version(file)
    file.unlink()
    assert not loaded.is_old()


def test_what_templates_render_to_does_not_count(file, monkeypatch):
    file.write_text(TEXT.replace("store: data", 'store: "{{ env.PLACE }}"'))
    monkeypatch.setenv("PLACE", "a")
    loaded = version(file)
    monkeypatch.setenv("PLACE", "b")
    assert version(file).digest == loaded.digest


def test_the_rows_that_galleries_are_made_of_count(file, tmp_path):
    table = tmp_path / "museums.csv"
    made = f"  galleries_from: {{path: {table}, gallery: {{source: {{type: demo}}}}}}\n"
    file.write_text(TEXT + made)
    table.write_text("name\nlouvre\n")
    loaded = version(file)
    table.write_text("name\nlouvre\nprado\n")
    assert version(file).digest != loaded.digest


def test_one_of_several_documents_is_found(file):
    loaded = version(file)
    file.write_text(f"type: another\nattributes: {{a: 1}}\n---\n{TEXT}")
    assert not loaded.is_old()


def test_keys_of_any_kind_have_an_order():
    one, two = FileVersion.of({1: "a", "b": None}, [], None), FileVersion.of({"b": None, 1: "a"}, [], None)
    assert one.digest == two.digest
    assert not one.is_old()
