import io
import json

import pytest
import yaml
from markdown_it import MarkdownIt

from imgdl_pipeline.core.dataset.card import SHOWN, SIZES, write_card
from imgdl_pipeline.core.dataset.features import CARD_FEATURES
from imgdl_pipeline.core.dataset.manifest import DatasetFile
from imgdl_pipeline.core.model.opt_outs import from_json
from imgdl_pipeline_tests.support.datasets import rows_in, settings_of
from imgdl_pipeline_tests.support.rows import catalog_of


def card_of(*rows, gallery="g", shards=1, **settings):
    file = io.BytesIO()
    table = catalog_of(*({"url": "https://a.example/1", "attributes": "{}", **row} for row in rows))
    files = [DatasetFile(f"{number:05}.tar", f"{number:05}.tar", 10, "", 1) for number in range(shards)]
    write_card(file, gallery, settings_of(**settings), rows_in(table), files, "imgdl_pipeline 9")
    return file.getvalue().decode()


def front_of(card):
    before, front, _ = card.split("---\n", 2)
    assert before == ""
    return yaml.safe_load(front)


def cells_of(card):
    """The rows of a card's tables, as a reader sees them."""
    blocks = MarkdownIt("commonmark").enable("table").parse(card.split("---\n", 2)[2])
    cells = [
        "".join(inner.content for inner in b.children) for b in blocks if b.type == "inline" and b.level == 4
    ]
    return list(zip(cells[::2], cells[1::2], strict=True))


@pytest.mark.parametrize(
    ("format_", "path"),
    [("webdataset", "*.tar"), ("parquet", "data/train-*.parquet"), ("imagefolder", "train/**")],
)
def test_the_front_matter_says_which_files_hold_the_data(format_, path):
    front = front_of(card_of({}, format=format_, shards=2))
    [config] = front["configs"]
    assert config["data_files"] == [{"split": "train", "path": path}]
    assert config.get("features") == (CARD_FEATURES[format_] if format_ == "imagefolder" else None)
    assert front["dataset_info"] == {
        "features": CARD_FEATURES[format_],
        "splits": [{"name": "train", "num_bytes": 20, "num_examples": 1}],
    }


@pytest.mark.parametrize(
    ("licences", "told"),
    [
        (["CC0-1.0", "CC-BY-4.0"], {"license": ["cc-by-4.0", "cc0-1.0"]}),
        (["CC0-1.0", None], {"license": "other", "license_name": "of-each-image"}),
        (["rightsstatements:InC/1.0"], {"license": "other", "license_name": "of-each-image"}),
    ],
)
def test_the_licence_is_named_where_the_hub_knows_that_of_every_image(licences, told):
    front = front_of(card_of(*({"license_id": each} for each in licences)))
    assert {name: front.get(name) for name in told} == told


@pytest.mark.parametrize("gallery", ["no", "null", "1e3", "0x10", "2026-11-22", "a_b.c-d", "~", "Yes"])
def test_a_gallerys_name_stays_a_text(gallery):
    assert front_of(card_of({}, gallery=gallery))["pretty_name"] == gallery


@pytest.mark.parametrize(
    ("images", "size"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10_000, "10K<n<100K")]
)
def test_sizes_are_the_hubs(images, size):
    assert front_of(card_of(*[{}] * images))["size_categories"] == [size]


def test_licences_and_hosts_are_counted_the_most_frequent_first():
    rows = [
        {"url": url, "license_id": license_id}
        for url, license_id in [
            ("https://a.example/1", "CC0-1.0"),
            ("https://b.example/2", None),
            ("https://a.example/3", None),
            ("http://a.example:8080/4", "CC-BY-4.0"),
            ("https://a.example/5", None),
        ]
    ]
    card = card_of(*rows)
    assert "5 images of the gallery g, as webdataset." in card
    assert cells_of(card) == [
        *(("licence", "images"), ("no known licence", "3"), ("CC-BY-4.0", "1"), ("CC0-1.0", "1")),
        *(("host", "images"), ("a.example:443", "3"), ("a.example:8080", "1"), ("b.example:443", "1")),
    ]


def test_many_licences_are_summed_up():
    rows = [{"license_id": f"LicenseRef-{number:03}"} for number in range(50)]
    cells = cells_of(card_of(*rows, {"license_id": "CC0-1.0"}, {"license_id": "CC0-1.0"}))
    assert cells[:3] == [("licence", "images"), ("CC0-1.0", "2"), ("LicenseRef-000", "1")]
    assert cells[1 + SHOWN] == ("31 more", "31")
    assert sum(int(count) for _, count in cells[1 : 2 + SHOWN]) == 52


def test_opt_outs_that_do_not_count_for_this_purpose_are_named_all_the_same():
    heard = json.dumps([{"signal": "x-robots-tag", "value": "noai | <b>", "where": "header"}])
    assert len(from_json(heard)) == 1
    card = card_of({"opt_outs": heard}, {"opt_outs": heard}, {"opt_outs": "[]"}, {})
    assert cells_of(card)[-1] == ("x-robots-tag: noai | <b>", "2")
    assert "No owner of these images" not in card
    assert "No owner of these images" in card_of({"opt_outs": "[]"}, {})


def test_the_settings_are_shown_and_can_be_read_back():
    where = "width >= 256 and attributes->>'title' <> '---' -- a \"quoted\" # comment\n and true"
    card = card_of({}, where=where, caption="attributes.title", shard_images=7)
    shown = card.partition("with these settings:\n\n")[2]
    assert all(line.startswith("    ") for line in shown.splitlines())
    settings = yaml.safe_load(shown)
    assert settings == settings_of(where=where, caption="attributes.title", shard_images=7).model_dump(
        mode="json"
    )
    assert "By imgdl_pipeline 9, with these settings" in card


def test_a_card_of_no_images_is_whole():
    card = card_of(shards=0)
    assert "0 images of the gallery g" in card
    assert front_of(card)["size_categories"] == ["n<1K"]


def test_the_card_says_whether_the_bytes_are_the_hosts():
    assert "Their bytes are as the hosts served them." in card_of({})
    assert "They were made smaller: fill, 64 pixels." in card_of({}, resize={"side": 64, "how": "fill"})
    assert "for which `where` below holds" in card_of({}, where="width > 1")


def test_a_million_images_are_a_size_that_the_hub_has():
    assert next((name for most, name in SIZES.items() if most > 2_000_000), None) == "1M<n<10M"
