import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from imgdl_pipeline.config.galleries import SECRET_KEYS, Galleries
from imgdl_pipeline.core.model.settings import DownloadSettings, MissingSecretError, Secret

DEMO = {"name": "demo", "source": {"type": "demo"}}


def errors(model, data):
    with pytest.raises(ValidationError) as caught:
        model.model_validate(data)
    return [(".".join(map(str, each["loc"])), each["msg"]) for each in caught.value.errors()]


@pytest.mark.parametrize("name", ["a", "7", "Hubble_2.0-x", "x" * 100, "2024"])
def test_a_good_name_is_accepted(name):
    assert Galleries(galleries=[{**DEMO, "name": name}]).gallery(name).name == name


@pytest.mark.parametrize("name", ["", "_a", ".a", "-a", "a/b", "a b", "é", "x" * 101, "a\n"])
def test_a_bad_name_is_not(name):
    [(place, _)] = errors(Galleries, {"galleries": [{**DEMO, "name": name}]})
    assert place == "galleries.0.name"


@pytest.mark.parametrize(("one", "other"), [("demo", "demo"), ("Demo", "dEMO")])
def test_a_name_stands_once_whatever_its_case(one, other):
    [(place, message)] = errors(Galleries, {"galleries": [{**DEMO, "name": one}, {**DEMO, "name": other}]})
    assert (place, f"{other!r} is used twice" in message) == ("galleries", True)


def test_no_gallery_is_an_error():
    assert errors(Galleries, {"galleries": []}) == [("galleries", "Value error, name at least one gallery")]


@pytest.mark.parametrize(
    "changes",
    [
        *({"workers": 0}, {"workers": "many"}, {"workers": 2.5}, {"per_host": 0}, {"timeout": 0}),
        *({"attempts": 0}, {"max_bytes": 0}, {"max_pixels": -1}, {"allow_addresses": ["10.0.0.0/99"]}),
        *({"allow_addresses": ["10.0.0.1/8"]}, {"recheck": "soon"}, {"recheck": 0}, {"robots_txt": "ja"}),
        *({"processes": 0}, {"processes": 65}, {"processes": "all"}, {"processes": True}),
        *({"user_agent": "two\nlines"}, {"user_agent": ""}, {"user_agent": "é"}, {"wrokers": 8}),
    ],
)
def test_a_bad_download_setting_is_refused_at_its_place(changes):
    [(place, _)] = errors(DownloadSettings, changes)
    assert place.split(".")[0] in {*changes, ""}


def test_an_unknown_key_is_named_with_what_is_allowed():
    [(place, message)] = errors(Galleries, {"galleries": [{**DEMO, "source": {"type": "demo", "imagez": 4}}]})
    assert place == "galleries.0.source.demo"
    assert message == "unknown key 'imagez'; allowed are images, type; did you mean 'images'?"


def test_an_unknown_source_is_named_with_what_is_allowed():
    [(_, message)] = errors(Galleries, {"galleries": [{**DEMO, "source": {"type": "flickr"}}]})
    assert "'flickr'" in message
    assert "'demo', 'url_list', 'imgur', 'wikimedia_commons'" in message


@pytest.mark.parametrize("store", ["ftp://h.org/x", "http://h.org", "s4://b"])
def test_a_store_of_an_unknown_kind_is_refused(store):
    [(place, message)] = errors(Galleries, {"store": store, "galleries": [DEMO]})
    assert (place, "s3://, gs://, az://" in message) == ("store", True)


def test_a_gallery_overrides_the_file_and_a_run_overrides_both():
    galleries = Galleries(
        download={"workers": 3, "attempts": 2, "timeout": 7},
        galleries=[
            {"name": "g", "source": {"type": "url_list", "path": "x.txt"}, "download": {"workers": 5}}
        ],
    )
    gallery = galleries.gallery("g")
    settings = galleries.download_settings(gallery)
    assert (settings.workers, settings.attempts, settings.timeout) == (5, 2, 7)
    settings = galleries.download_settings(gallery, {"workers": 9, "recheck": "1.5"})
    assert (settings.workers, settings.attempts, settings.recheck) == (9, 2, 1.5)
    with pytest.raises(ValidationError):
        galleries.download_settings(gallery, {"workers": -1})


def test_a_gallery_may_set_a_default_explicitly():
    galleries = Galleries(
        download={"workers": 3},
        galleries=[
            {"name": "g", "source": {"type": "url_list", "path": "x.txt"}, "download": {"workers": 8}}
        ],
    )
    assert galleries.download_settings(galleries.gallery("g")).workers == 8


def test_the_demo_gallery_may_fetch_from_its_own_address_and_others_may_not():
    galleries = Galleries(galleries=[DEMO, {"name": "x", "source": {"type": "url_list", "path": "x.txt"}}])
    assert galleries.download_settings(galleries.gallery("demo")).allow_addresses == ("127.0.0.1/32",)
    assert galleries.download_settings(galleries.gallery("x")).allow_addresses == ()


def test_an_unknown_gallery_is_a_key_error():
    with pytest.raises(KeyError, match="nobody"):
        Galleries(galleries=[DEMO]).gallery("nobody")


@pytest.mark.parametrize("template", ["{{ env.ID }}", "{{env.ID}}", "{{ env('ID') }}", '{{ env("ID") }}'])
def test_a_secret_is_looked_up_when_it_is_used(template):
    assert Secret(template).reveal("client_id", {"ID": "s3cret"}) == "s3cret"


@pytest.mark.parametrize("environ", [{}, {"ID": ""}])
def test_an_unset_secret_names_the_variable_and_the_key(environ):
    with pytest.raises(MissingSecretError, match="client_id needs the environment variable ID, which"):
        Secret("{{ env.ID }}").reveal("client_id", environ)


def test_a_secret_is_never_shown():
    galleries = Galleries(
        galleries=[{"name": "g", "source": {"type": "imgur", "gallery": "hot", "client_id": "s3cret"}}]
    )
    shown = [repr(galleries), str(galleries), galleries.model_dump_json(), repr(galleries.model_dump())]
    assert not [text for text in shown if "s3cret" in text]


def test_an_id_of_digits_only_is_a_text():
    source = {"type": "imgur", "gallery": "hot", "client_id": 12345}
    galleries = Galleries(galleries=[{"name": "g", "source": source}])
    assert galleries.galleries[0].source.client_id.reveal("client_id", {}) == "12345"


def test_the_keys_of_secrets_are_known():
    assert {name: set(keys) for name, keys in SECRET_KEYS.items() if keys} == {
        "imgur": {"client_id"},
        "openverse": {"token"},
    }


def test_the_user_agent_says_who_we_are():
    assert DownloadSettings().user_agent_header.startswith("imgdl_pipeline/0.")
    assert DownloadSettings(user_agent="me/1").user_agent_header == "me/1"


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda each: st.lists(each) | st.dictionaries(st.text(), each)
    )
)
def test_any_yaml_is_settings_or_a_validation_error(data):
    try:
        Galleries.model_validate(data)
    except ValidationError:
        pass


@pytest.mark.parametrize("name", ["a...b", "x..."])
def test_a_name_that_dagster_does_not_take_is_refused_when_the_file_is_read(name):
    [(place, message)] = errors(Galleries, {"galleries": [{**DEMO, "name": name}]})
    assert (place, "Dagster reserves" in message) == ("galleries.0.name", True)


@pytest.mark.parametrize("recheck", [float("inf"), 1e6])
def test_no_age_is_longer_than_a_century(recheck):
    assert errors(DownloadSettings, {"recheck": recheck})


def test_a_secret_from_a_file_may_end_in_a_newline():
    assert Secret("{{ env.ID }}").reveal("client_id", {"ID": "s3cret\n"}) == "s3cret"


@pytest.mark.parametrize("value", ["s3cr\net", "s3cr\u00e9t"])
def test_a_secret_that_is_no_header_is_refused_and_not_shown(value):
    with pytest.raises(
        MissingSecretError, match=r"client_id needs printable ASCII in the .* variable ID"
    ) as caught:
        Secret("{{ env.ID }}").reveal("client_id", {"ID": value})
    assert "s3cr" not in str(caught.value)
