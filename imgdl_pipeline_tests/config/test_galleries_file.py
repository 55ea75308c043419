import textwrap

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
            "Value error, must be never, or a number of days above 0, not 'soon'",
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
