import pytest

from imgdl_pipeline.config.galleries_file import GalleriesFileError, read_galleries_file
from imgdl_pipeline.config.sharded import Shards

FILE = """\
type: imgdl_pipeline.ShardedGallery
attributes:
  name: laion
  shards: 3
  source: {type: url_list, path: links.txt}
"""


@pytest.fixture
def read(tmp_path):
    """Reads a file of a very large gallery, with more attributes."""

    def read_(*attributes, text=FILE):
        file = tmp_path / "laion.yaml"
        file.write_text(text + "".join(f"  {line}\n" for line in attributes))
        return read_galleries_file(file)

    return read_


def test_each_shard_is_a_gallery_with_the_settings_of_the_whole(read):
    shards = read("download: {per_host: 3}", "checks: {failed_warn: 0.5}", "allow_empty: true")
    assert isinstance(shards, Shards)
    assert [each.name for each in shards.galleries] == ["laion/0000", "laion/0001", "laion/0002"]
    assert [each.partition for each in shards.galleries] == ["0000", "0001", "0002"]
    for each in (*shards.galleries, shards.whole):
        assert shards.download_settings(each).per_host == 3
        assert shards.check_settings(each).failed_warn == 0.5
        assert each.allow_empty
        assert each.source == shards.whole.source
    assert shards.gallery("0002") is shards.gallery("laion/0002") is shards.galleries[2]


def test_the_gallerys_name_ends_the_key_prefix(read):
    assert read().assets.key_prefix == ("laion",)
    assert read("assets: {key_prefix: [media], pool: big}").assets.key_prefix == ("media", "laion")
    assert read("assets: {pool: big}").assets.pool == "big"


def test_shards_are_listed_every_day_unless_the_file_says_otherwise(read):
    shards = read()
    assert shards.schedule == shards.schedule_of(shards.galleries[0]) == "0 6 * * *"
    assert read("schedule: null").schedule is None


@pytest.mark.parametrize(
    ("line", "place", "words"),
    [
        ("  shards: 0", 4, "attributes.shards: Input should be greater than or equal to 1, not 0"),
        ("  shards: 10001", 4, "attributes.shards: Input should be less than or equal to 10000, not 10001"),
        ("  shards: many", 4, "attributes.shards: Input should be a valid integer"),
        ("  name: a-b", 4, "attributes.name: Value error, must be of A-Z a-z 0-9 _ only"),
        ("  galleries: []", 4, "attributes.galleries: unknown key 'galleries'"),
        ("  near_duplicates: {}", 4, "attributes.near_duplicates: unknown key"),
        ("  dataset: {format: webdataset, where: nothing = 1}", 4, "attributes.dataset.where"),
        (
            '  dataset: {format: webdataset, where: "\\"group\\" = 1"}',
            4,
            "attributes.dataset: '\"group\" = 1' is no DuckDB SQL",
        ),
        ("  store: ftp://a/b", 4, "attributes.store: Value error, 'ftp://a/b' must be a folder"),
        ("  schedule: daily-ish", 4, "attributes.schedule: 'daily-ish' is no cron expression"),
    ],
)
def test_what_is_not_allowed_is_named_with_its_line(read, line, place, words):
    key = line.strip().partition(":")[0]
    kept = [each for each in FILE.splitlines()[2:] if each.strip().partition(":")[0] != key]
    text = "\n".join([*FILE.splitlines()[:2], *kept[:1], line, *kept[1:]]) + "\n"
    with pytest.raises(GalleriesFileError) as failure:
        read(text=text)
    [problem] = failure.value.problems
    assert problem.line == place
    assert words in problem.words


def test_a_type_that_there_is_not_is_an_error_that_names_both(read):
    with pytest.raises(GalleriesFileError, match=r"ImageGalleries or imgdl_pipeline\.ShardedGallery"):
        read(text=FILE.replace("ShardedGallery", "ShardGallery"))
