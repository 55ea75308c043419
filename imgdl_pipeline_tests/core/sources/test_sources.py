"""The registry of sources: ours, and those that other packages bring."""

import subprocess
import sys
import types
from typing import Literal, get_args

import pytest

from imgdl_pipeline.core import sources
from imgdl_pipeline.core.model.settings import SourceSettings
from imgdl_pipeline.core.sources import settings_type, source_of, source_types, type_name
from imgdl_pipeline.core.sources.url_list import UrlListSource

CONTRACT = {
    *("demo", "url_list", "imgur", "wikimedia_commons", "feed", "sitemap", "web_page", "iiif", "openverse"),
    "gallery_dl",
}


def test_every_source_of_the_contract_is_there():
    assert {type_name(each) for each in source_types()} == CONTRACT


def test_a_source_is_made_of_the_attributes_of_a_galleries_file():
    source = source_of({"type": "url_list", "path": "links.txt"})
    assert source == UrlListSource(type="url_list", path="links.txt")
    with pytest.raises(ValueError, match=r"must be one of demo, .* not 'url_lists'; did you mean 'url_list'"):
        source_of({"type": "url_lists"})
    with pytest.raises(ValueError, match="unknown key 'url'"):
        source_of({"type": "url_list", "url": "links.txt"})


@pytest.mark.parametrize("module", sources.OURS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_a_source_has_its_modules_name_and_describes_its_keys(module):
    settings = settings_type(module)
    assert type_name(settings) == module.__name__.rpartition(".")[2]
    assert get_args(settings.model_fields["type"].annotation) == (type_name(settings),)
    assert all(field.description for name, field in settings.model_fields.items() if name != "type")


class NoType(SourceSettings):
    pass


class Fine(SourceSettings):
    type: Literal["fine"]


def without_annotation(source, client):
    pass


def of_no_source(source: int, client: object):
    pass


def of_no_type(source: NoType, client: object):
    pass


@pytest.mark.parametrize("lister", [None, without_annotation, of_no_source, of_no_type])
def test_a_module_that_is_no_source_is_told_what_it_lacks(lister):
    module = types.ModuleType("theirs")
    if lister:
        module.list_links = lister
    with pytest.raises(TypeError, match="there must be a function list_links"):
        settings_type(module)


PLUGIN = """
from collections.abc import Iterator
from typing import Literal
from imgdl_pipeline.sources import Link, SourceClient, SourceSettings

class Shop(SourceSettings):
    type: Literal["{type}"]
    shelf: str

def list_links(source: Shop, client: SourceClient) -> Iterator[Link]:
    yield Link.from_text(f"https://shop.example/{{source.shelf}}.jpg")
"""


def run_with_plugin(tmp_path, type_, code, plugin=PLUGIN):
    """Run Python with another package installed, which brings a source `shop`."""
    (tmp_path / "shop.py").write_text(plugin.format(type=type_))
    info = tmp_path / "shop-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[imgdl_pipeline.sources]\nshop = shop\n")
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("first", ["", "import shop"], ids=["ours first", "theirs first"])
def test_another_packages_source_is_one_like_ours(tmp_path, first):
    code = f"""{first}
from imgdl_pipeline.config.galleries import Gallery, Galleries
from imgdl_pipeline.core.sources import SourceClient, list_links
gallery = Gallery.model_validate({{"name": "g", "source": {{"type": "shop", "shelf": "top"}}}})
print([link.url for link in list_links(gallery.source, None)], "shelf" in str(Galleries.editor_schema()))
"""
    run = run_with_plugin(tmp_path, "shop", code)
    assert run.stdout == "['https://shop.example/top.jpg'] True\n", run.stderr


OLD_PLUGIN = PLUGIN.replace(
    "from imgdl_pipeline.sources import Link, SourceClient, SourceSettings",
    "from imgdl_pipeline.core.links import Link\n"
    "from imgdl_pipeline.core.settings import SourceSettings\n"
    "from imgdl_pipeline.core.sources import Web as SourceClient",
)


def test_the_import_paths_of_older_plugins_work_and_say_where_the_names_are_now(tmp_path):
    code = (
        "import warnings; warnings.simplefilter('always', DeprecationWarning); import shop; print(shop.Link)"
    )
    run = run_with_plugin(tmp_path, "shop", code, OLD_PLUGIN)
    assert run.stdout == "<class 'imgdl_pipeline.core.model.links.Link'>\n", run.stderr
    for name in ("Link", "SourceSettings", "SourceClient"):
        assert f"import {name} from imgdl_pipeline.sources" in run.stderr


@pytest.mark.parametrize(
    ("type_", "words"),
    [
        ("shopp", "TypeError: its settings' type is 'shopp'"),
        ("demo", "TypeError: its settings' type is 'demo'"),
        ('shop"]; import no_such_module #', "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_another_packages_source_that_cannot_be_used_stops_its_own_galleries_only(tmp_path, type_, words):
    file = tmp_path / "galleries.yaml"
    head = "type: imgdl_pipeline.ImageGalleries\nattributes:\n  galleries:\n    - name: g\n"
    text = f"{head}      source: {{type: %s}}"
    code = f"""
from pathlib import Path
from imgdl_pipeline.config.galleries_file import GalleriesFileError, read_galleries_file
file = Path({str(file)!r})
file.write_text({text % "demo"!r})
print(read_galleries_file(file).galleries[0].name)
file.write_text({text % "shop"!r})
try:
    read_galleries_file(file)
except GalleriesFileError as error:
    print(error)
"""
    run = run_with_plugin(tmp_path, type_, code)
    told = f"{file}:5: attributes.galleries.0.source: the source 'shop' (shop): {words}"
    assert run.stdout.startswith(f"g\n{told}"), run.stderr
    assert words in run.stderr
