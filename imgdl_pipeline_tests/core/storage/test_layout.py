import pytest

from imgdl_pipeline.core.storage import layout

URL = "https://example.org/a/Sunrise.JPG?size=large"

PATHS = {
    "catalog_path": "catalog/gallery=laion/catalog{mark}.parquet",
    "checked_path": "catalog/gallery=laion/_checkpoints{mark}",
    "checkpoints_path": "downloads/gallery=laion/_checkpoints{mark}",
    "contact_sheets_path": "catalog/gallery=laion/_contact_sheet{mark}",
    "dataset_draft_path": "datasets/_drafts/laion{folder}",
    "dataset_leases_path": "catalog/gallery=laion/_dataset_leases{mark}",
    "dataset_path": "datasets/laion{folder}",
    "downloads_path": "downloads/gallery=laion/downloads{mark}.parquet",
    "images_path": "images/laion{folder}",
    "leases_path": "downloads/gallery=laion/_leases{mark}",
    "links_path": "links/gallery=laion/links{mark}.parquet",
    "renamed_from_path": "downloads/gallery=laion/_renamed_from{mark}",
    "replaced_dataset_path": "datasets/_replaced/laion{folder}",
    "resharding_path": "links/gallery=laion/_resharding",
    "shards_path": "links/gallery=laion/_shards.json",
    "unseen_links_path": "links/gallery=laion/_unseen{mark}",
    "validators_path": "links/gallery=laion/_validators{mark}.json",
}
"""Where each function's path of a gallery is: a shard has its number as a mark in it, or as a folder."""

OTHER = {
    "host_leases_path",
    "image_path",
    "is_catalog_path",
    "is_image_path",
    "resharded_path",
    "robots_path",
}

NO_FILES = {
    *("dataset_leases_path", "dataset_draft_path", "dataset_path", "images_path", "leases_path"),
    *("replaced_dataset_path", "resharding_path", "shards_path"),
}
"""What belongs to no shard alone, is found in another way, or is nobody's."""


def path(function, name):
    return getattr(layout, function)(name)


def test_every_function_that_gives_a_path_is_tested():
    functions = {name for name in vars(layout) if name.endswith("_path") and callable(getattr(layout, name))}
    assert functions == {*PATHS, *OTHER}


@pytest.mark.parametrize("function", PATHS)
def test_a_gallerys_path(function):
    assert path(function, "laion") == PATHS[function].format(mark="", folder="")


@pytest.mark.parametrize("function", PATHS)
def test_a_shards_path(function):
    assert path(function, "laion/0007") == PATHS[function].format(mark=".0007", folder="/0007")


@pytest.mark.parametrize("name", ["laion", "laion/0007"])
def test_an_images_path_is_told_from_other_paths(name):
    image = layout.image_path(name, URL)
    assert image.startswith(f"images/{name}/")
    assert len(image.removeprefix(f"images/{name}/").split("/")) == 2
    assert layout.is_image_path(image)
    assert not layout.is_image_path(image.replace(".jpg", ".png"))


@pytest.mark.parametrize("name", ["laion", "laion/0007"])
def test_the_folders_of_a_shard_are_its_gallerys(name):
    assert layout.gallery_folders(name) == (
        "images/laion",
        "catalog/gallery=laion",
        "downloads/gallery=laion",
        "links/gallery=laion",
        "datasets/laion",
        "datasets/_drafts/laion",
        "datasets/_replaced/laion",
    )


@pytest.mark.parametrize("function", sorted({*PATHS} - {"resharding_path", "shards_path"}))
@pytest.mark.parametrize("name", ["laion", "laion/0007"])
def test_every_path_is_in_one_of_the_gallerys_folders(function, name):
    folders = layout.gallery_folders(name)
    assert [each for each in folders if f"{path(function, name)}/".startswith(f"{each}/")]


def test_a_gallery_is_told_from_its_folders_and_a_shard_has_none():
    for folder in layout.gallery_folders("laion"):
        assert layout.gallery_of(folder) == "laion"
    for folder in ("images/laion/0007", "datasets/laion/0007", "datasets/_drafts", "images", "other/laion"):
        assert layout.gallery_of(folder) is None


@pytest.mark.parametrize("function", sorted({*PATHS} - NO_FILES))
@pytest.mark.parametrize("name", ["laion", "laion/0007", "a.0003", "a.0003/0007"])
def test_a_files_owner_is_told_from_its_path(function, name):
    where = path(function, name)
    assert layout.owner_of(where) == name
    if not where.endswith((".parquet", ".json")):
        assert layout.owner_of(f"{where}/000001-17.parquet") == name


@pytest.mark.parametrize(
    "other",
    [
        *(PATHS[function].format(mark=".0007", folder="/0007") for function in sorted(NO_FILES)),
        "downloads/gallery=laion/_leases.0007/00000001.json",
        "catalog/gallery=laion/_resharded/catalog.0007.parquet",
        "catalog/gallery=laion/catalog.7.parquet",
        "catalog/gallery=laion/mine.parquet",
        "catalog/notes.txt",
    ],
)
def test_what_is_nobodys_has_no_owner(other):
    assert layout.owner_of(other) is None


@pytest.mark.parametrize("function", ["dataset_draft_path", "dataset_path", "replaced_dataset_path"])
def test_a_shards_dataset_is_told_from_its_folder(function):
    assert layout.shard_of_dataset(path(function, "laion/0007")) == "laion/0007"
    assert layout.shard_of_dataset(f"{path(function, 'laion/0007')}/00000.tar") == "laion/0007"
    for other in ("laion", "laion/train", "laion/data", "laion/00007"):
        assert layout.shard_of_dataset(path(function, other)) is None


def test_the_names_of_shards_and_their_gallery():
    assert layout.shard_name("laion", 7) == "laion/0007"
    assert [layout.whole_gallery(name) for name in ("laion", "laion/0007")] == ["laion", "laion"]
    assert [layout.shard_mark(name) for name in ("laion", "laion/0007", "0007")] == ["", ".0007", ""]
    assert [layout.is_shard(name) for name in ("laion", "laion/0007", "0007")] == [False, True, False]


def test_a_file_of_the_next_shards_is_beside_the_one_that_it_replaces():
    made = layout.resharded_path(layout.catalog_path("laion/0007"))
    assert made == "catalog/gallery=laion/_resharded/catalog.0007.parquet"
    assert made.rpartition("/")[0] in layout.resharded_folders("laion")
    assert not layout.is_catalog_path(made)


@pytest.mark.parametrize("name", ["laion", "laion/0007"])
def test_catalogs_are_told_from_other_tables(name):
    assert layout.is_catalog_path(layout.catalog_path(name))
    assert not layout.is_catalog_path(layout.downloads_path(name))
