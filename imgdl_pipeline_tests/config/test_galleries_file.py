import re
import textwrap

import dagster as dg
import pytest

from imgdl_pipeline.config.galleries_file import GalleriesFileError, read_galleries_file

GOOD = """\
type: imgdl_pipeline.ImageGalleries
attributes:
  store: data
  schedule: "0 6 * * *"
  download:
    workers: 8
  galleries:
    - name: demo
      source: {type: demo, images: 4}
    - name: earth
      source:
        type: imgur
        gallery: r/EarthPorn
        client_id: "{{ env.IMGUR_CLIENT_ID }}"
"""


@pytest.fixture
def read(tmp_path):
    def read_(text):
        file = tmp_path / "galleries.yaml"
        file.write_text(textwrap.dedent(text))
        return read_galleries_file(file)

    return read_


def message(read, text):
    with pytest.raises(GalleriesFileError) as caught:
        read(text)
    return str(caught.value).replace(caught.value.args[0].partition("galleries.yaml")[0], "")


def test_a_good_file_is_read(read):
    assert [gallery.name for gallery in read(GOOD).galleries] == ["demo", "earth"]


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        (
            "images: 4",
            "imagez: 4",
            "galleries.yaml:9: attributes.galleries.0.source.demo.imagez: "
            "unknown key 'imagez'; allowed are images, type",
        ),
        (
            "workers: 8",
            "workers: many",
            "galleries.yaml:6: attributes.download.workers: "
            "Input should be a valid integer, unable to parse string as an integer, not 'many'",
        ),
        (
            "workers: 8",
            "recheck: soon",
            "galleries.yaml:6: attributes.download.recheck: "
            "Value error, must be never, or a number of days above 0, or {new, stable, max_share}, "
            "not 'soon'",
        ),
        (
            "type: imgur",
            "type: flickr",
            "galleries.yaml:11: attributes.galleries.1.source: Input tag 'flickr' found using 'type' does "
            "not match any of the expected tags: 'demo', 'url_list', 'imgur', 'wikimedia_commons'",
        ),
        (
            '"0 6 * * *"',
            "daily",
            "galleries.yaml:4: attributes.schedule: 'daily' is no cron expression; "
            'give five fields, such as "0 6 * * *", or null',
        ),
        (
            "name: earth",
            "name: DEMO",
            "galleries.yaml:7: attributes.galleries: "
            "Value error, the name 'DEMO' is used twice, whatever its case: also as 'demo'",
        ),
        (
            "store: data",
            'store: "{{ env.NO_SUCH }}"',
            "galleries.yaml:3: attributes.store: the environment variable NO_SUCH is not set",
        ),
        (
            "store: data",
            'store: "{{ nothing }}"',
            "galleries.yaml:3: attributes.store: 'nothing' is undefined",
        ),
        ("store: data", 'store: "{{ 1/0 }}"', "galleries.yaml:3: attributes.store: division by zero"),
        ("store: data", "store: \x01", "galleries.yaml:1: not valid YAML: control characters"),
        ("store: data", 'store: "{{"', "galleries.yaml:3: attributes.store: unexpected 'end of template'"),
        (
            "attributes:",
            "atributes:",
            "galleries.yaml:2: atributes: unknown key 'atributes'; allowed are attributes, type",
        ),
        ("type: imgdl", "type: my", "galleries.yaml:1: type: must be imgdl_pipeline.ImageGalleries"),
        ("store: data", "store: [", "galleries.yaml:5: not valid YAML: "),
    ],
)
def test_a_wrong_file_says_where_what_and_what_is_allowed(read, old, new, error):
    told = message(read, GOOD.replace(old, new, 1))
    assert told.startswith(error)


def test_every_mistake_is_told_at_once(read):
    told = message(read, GOOD.replace("workers: 8", "workers: many").replace("images: 4", "images: 0"))
    assert [line.split(":")[1] for line in told.splitlines()] == ["6", "9"]


def test_a_wrong_key_at_the_top_hides_no_other_mistake(read):
    told = message(
        read,
        """\
        type: imgdl_pipeline.ImageGaleries
        requirements: {}
        atributes:
          stor: data
          schedule: daily
          download: {worker: 8, workers: many, timeout: -1}
          galleries:
            - name: a...b
              source: {type: imgr}
        """,
    )
    assert [line.split(":")[1] for line in told.splitlines()] == [*"1234566689"]
    for words in (
        "works only in a file that Dagster itself loads",
        "did you mean 'attributes'?",
        "did you mean 'store'?",
        "did you mean 'workers'?",
        "is no cron expression",
        "must not contain ...",
        "did you mean 'imgur'?",
    ):
        assert words in told


def test_a_key_that_stands_twice_is_an_error_but_a_merged_one_is_none(read):
    merged = GOOD.replace("download:", "download: &all").replace(
        "{type: demo, images: 4}", "{type: demo, images: 4}\n      download: {<<: *all, workers: 3}"
    )
    assert read(merged).galleries[0].download.workers == 3
    told = message(read, GOOD.replace("  download:\n", "  download:\n    workers: 9\n"))
    assert told == "galleries.yaml:7: workers: stands twice in the same place"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{{ env.STORE }}", 'quote a template, as in "{{ env.NAME }}"'),
        ("{[a]: 2}", "found unhashable key"),
        ("2020-13-99", "month must be in 1..12"),
    ],
)
def test_yaml_that_makes_no_values_is_an_error_for_people(read, value, words):
    told = message(read, GOOD.replace("store: data", f"store: {value}"))
    assert told.startswith("galleries.yaml:")
    assert "not valid YAML" in told
    assert words in told


def test_a_file_that_contains_itself_is_an_error_and_not_endless(read):
    assert "galleries.yaml" in message(
        read, "type: imgdl_pipeline.ImageGalleries\nattributes: &a {store: *a}\n"
    )


@pytest.mark.parametrize(
    ("assets", "words"),
    [
        ("{automation_condition: eager}", "must be a template"),
        ("{automation_condition: '{{ dg.NoSuch }}'}", "has no attribute 'NoSuch'"),
    ],
)
def test_an_automation_condition_is_made_by_a_template(read, assets, words):
    good = GOOD.replace(
        "store: data", "assets: {automation_condition: '{{ dg.AutomationCondition.eager() }}'}"
    )
    assert isinstance(read(good).assets.automation_condition, dg.AutomationCondition)
    assert words in message(read, GOOD.replace("store: data", f"assets: {assets}"))


def test_a_gallerys_own_assets_need_a_file_that_has_them(read):
    text = GOOD.replace("images: 4}", "images: 4}\n      assets: {owners: [team:space]}")
    assert message(read, text) == (
        "galleries.yaml:10: attributes.galleries.0.assets: needs asset_per_gallery: true in the file"
    )
    galleries = read(text.replace("store: data", "asset_per_gallery: true"))
    demo, earth = galleries.galleries
    assert galleries.asset_settings(demo).owners == ("team:space",)
    assert galleries.asset_settings(earth).owners == ()


def test_a_gallerys_own_schedule_goes_before_the_files(read):
    text = GOOD.replace("images: 4}", 'images: 4}\n      schedule: "0 * * * *"')
    galleries = read(text)
    assert [galleries.schedule_of(each) for each in galleries.galleries] == ["0 * * * *", "0 6 * * *"]
    galleries = read(text.replace('"0 * * * *"', "null"))
    assert galleries.schedule_of(galleries.galleries[0]) is None


def test_a_secret_of_the_wrong_kind_is_not_shown(read):
    told = message(read, GOOD.replace('"{{ env.IMGUR_CLIENT_ID }}"', "{s3cret: s3cret}"))
    assert "client_id: Value error, must be text" in told
    assert "s3cret" not in told


def test_an_unset_secret_does_not_stop_the_file(read, monkeypatch):
    monkeypatch.delenv("IMGUR_CLIENT_ID", raising=False)
    assert read(GOOD).gallery("earth").name == "earth"


def test_templates_are_rendered_as_text(read, monkeypatch):
    monkeypatch.setenv("NAME", "2024")
    monkeypatch.setenv("WORKERS", "3")
    text = GOOD.replace("name: demo", 'name: "{{ env.NAME }}"').replace(
        "workers: 8", "workers: \"{{ env('WORKERS') }}\""
    )
    galleries = read(text.replace("store: data", "store: \"{{ env('NO_SUCH', 'default') }}/x\""))
    assert (galleries.galleries[0].name, galleries.download.workers) == ("2024", 3)
    assert galleries.store == "default/x"


def test_a_schedule_of_null_is_none(read):
    assert read(GOOD.replace('"0 6 * * *"', "null")).schedule is None


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(GalleriesFileError, match=r"none\.yaml: cannot be read: No such file"):
        read_galleries_file(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["", "just text", "- a list", "type: imgdl_pipeline.ImageGalleries"])
def test_a_file_of_another_shape_is_an_error_for_people(read, text):
    with pytest.raises(GalleriesFileError, match=r"galleries\.yaml:1: "):
        read(text)


def test_bytes_that_are_no_text_are_an_error_for_people(tmp_path):
    file = tmp_path / "galleries.yaml"
    file.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(GalleriesFileError, match="not UTF-8"):
        read_galleries_file(file)


@pytest.mark.parametrize(
    ("key", "value"),
    [("tags", "{'a b': c}"), ("tags", "{domain: two words}"), ("kinds", "['s3 x']"), ("owners", "[a@b]")],
)
def test_what_dagster_does_not_take_is_told_with_its_place(tmp_path, key, value):
    file = tmp_path / "galleries.yaml"
    file.write_text(
        "type: imgdl_pipeline.ImageGalleries\nattributes:\n  assets:\n"
        f"    {key}: {value}\n  galleries: [{{name: demo, source: {{type: demo}}}}]\n"
    )
    with pytest.raises(GalleriesFileError) as caught:
        read_galleries_file(file)
    assert str(caught.value).startswith(f"{file}:4: attributes.assets.{key}")


WITH_DATASET = """\
type: imgdl_pipeline.ImageGalleries
attributes:
  near_duplicates:
    distance: 8
  galleries:
    - name: plain
      source: {type: demo}
    - name: demo
      source: {type: demo}
      dataset:
        format: webdataset
        where: width >= 256 and representative
        resize:
          side: 256
        caption: attributes.title
"""


def test_a_file_with_a_dataset_is_read(read):
    galleries = read(WITH_DATASET)
    plain, demo = galleries.galleries
    assert plain.dataset is None
    assert galleries.near_duplicates.distance == 8
    assert demo.dataset.model_dump() == {
        "format": "webdataset",
        "where": "width >= 256 and representative",
        "resize": {
            "side": 256, "how": "fit", "quality": 90, "chroma": "4:2:0", "color": "srgb", "metadata": "drop"
        },
        "shard_images": 10_000,
        "caption": "attributes.title",
    }  # fmt: skip


DATASET = "attributes.galleries.1.dataset"
SQL = "is no DuckDB SQL over the catalog's columns"
WHERE, FORMAT, SIDE, DISTANCE = (
    "width >= 256 and representative",
    "format: webdataset",
    "side: 256",
    "distance: 8",
)
NEAR = "attributes.near_duplicates"


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        (WHERE, "widht >= 256", f"12: {DATASET}.where: 'widht >= 256' {SQL}: "),
        (WHERE, "width >=", f"12: {DATASET}.where: 'width >=' {SQL}: Parser Error"),
        (
            WHERE,
            "width + 1",
            f"12: {DATASET}.where: 'width + 1' must be a condition, such as width >= 256; it is INTEGER",
        ),
        (
            WHERE,
            "url in (select content from read_text('/etc/passwd'))",
            f"12: {DATASET}.where: ",
        ),
        (WHERE, '""', f"12: {DATASET}.where: String should have at least 1"),
        (WHERE, "[a]", f"12: {DATASET}.where: Input should be a valid string"),
        (
            "attributes.title",
            "titel",
            f"15: {DATASET}.caption: Value error, must be a column of the catalog, or one of "
            "attributes.<name>, embedded.<name>, exif.<name>",
        ),
        ("attributes.title", "widht", f"15: {DATASET}.caption: Value error, must be a column of the catalog"),
        ("attributes.title", "url.host", f"15: {DATASET}.caption: Value error, must be a column of the "),
        (
            FORMAT,
            "format: tar",
            f"11: {DATASET}.format: Input should be 'webdataset', 'parquet' or 'imagefolder', not 'tar'",
        ),
        ("        format: webdataset\n", "", f"10: {DATASET}.format: Field required"),
        (SIDE, "side: 0", f"14: {DATASET}.resize.side: Input should be greater than or equal to 1"),
        (SIDE, "sides: 256", f"14: {DATASET}.resize.sides: unknown key 'sides'"),
        (SIDE, "side: 9\n          how: crop", f"15: {DATASET}.resize.how: Input should be 'fit', "),
        (SIDE, "side: 9\n          quality: 101", f"15: {DATASET}.resize.quality: Input should be less"),
        (SIDE, "side: 9\n          chroma: 4:1:1", f"15: {DATASET}.resize.chroma: Input should be '4:4:4'"),
        (FORMAT, "format: parquet\n        wheer: x", f"12: {DATASET}.wheer: unknown key 'wheer'"),
        (DISTANCE, "distance: 17", f"4: {NEAR}.distance: Input should be less than or"),
        (DISTANCE, "distance: -1", f"4: {NEAR}.distance: Input should be greater"),
        (DISTANCE, "distance: near", f"4: {NEAR}.distance: Input should be a valid int"),
        (DISTANCE, "distence: 8", f"4: {NEAR}.distence: unknown key 'distence'"),
    ],
)
def test_a_wrong_dataset_says_where_what_and_what_is_allowed(read, old, new, error):
    assert f"galleries.yaml:{error}" in message(read, WITH_DATASET.replace(old, new, 1))


@pytest.mark.parametrize("where", ["representative", "'\"group\" is null'"])
def test_groups_need_near_duplicates_in_the_file(read, where):
    text = re.sub("width >= 256 and representative", where, WITH_DATASET)
    assert read(text).galleries[1].dataset.where == where.strip("'")
    told = message(read, text.replace("  near_duplicates:\n    distance: 8\n", ""))
    assert told.startswith(f"galleries.yaml:10: {DATASET}.where: ")
    assert "is no DuckDB SQL over the catalog's columns: Binder Error" in told


def test_every_wrong_condition_is_told_at_once(read):
    text = WITH_DATASET.replace("and representative", "and")
    again = text.partition("    - name: demo\n")[2]
    told = message(read, f"{text}    - name: other\n{again}")
    assert [line.split(":")[1] for line in told.splitlines()] == ["12", "20"]


def test_a_dataset_of_null_is_none(read):
    text = WITH_DATASET.partition("      dataset:")[0]
    assert read(f"{text}      dataset: null\n").galleries[1].dataset is None
    assert (
        read(text.replace("near_duplicates:\n    distance: 8", "near_duplicates: null")).near_duplicates
        is None
    )


def test_a_condition_and_a_side_may_come_from_the_environment(read, monkeypatch):
    monkeypatch.setenv("LEAST", "300")
    text = WITH_DATASET.replace("width >= 256", '"width >= {{ env.LEAST }} "').replace(
        "side: 256", 'side: "{{ env.LEAST }}"'
    )
    text = text.replace('" and representative', 'and representative"')
    dataset = read(text).galleries[1].dataset
    assert (dataset.where, dataset.resize.side) == ("width >= 300 and representative", 300)
