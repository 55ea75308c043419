import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.model.shown import SHOWN_CHARS, hide_secrets, one_line, shown

SECRET = "hush"

SECRET_NAMES = [
    *("access_token", "token", "refresh-token", "X-Amz-Security-Token", "id_token", "csrfToken"),
    *("X-Amz-Signature", "X-Goog-Signature", "Signature", "signature", "sig", "oauth_signature"),
    *("X-Amz-Credential", "X-Goog-Credential", "AWSAccessKeyId", "Key-Pair-Id", "Policy"),
    *("apikey", "api_key", "API-KEY", "key", "client_secret", "secret", "authKey"),
    *("pwd", "password", "passwd", "user_pass", "pass", "otp", "pin"),
    *("code", "auth_code", "jwt", "sid", "session", "sessionid", "session-id", "authorization", "auth"),
]


@pytest.mark.parametrize("before", ["?", "?page=2&", "?page=2;", "?page=2&amp;", "#", "#page=2&", "?&"])
@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_parameter_whose_name_says_secret_is_hidden(name, before):
    url = f"https://h.org/a.jpg{before}{name}={{}}&w=1024"
    assert hide_secrets(url.format(SECRET)) == url.format("…")


@pytest.mark.parametrize(
    "value",
    [
        "4eC39HqLyjWDarjtT1zdp7dc",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
        "0123456789abcdef0123456789abcdef",
        "00_AfBabcdefghijklmnopqrstuvwxyz-",
        "aGVsbG8gd29ybGQgYW5kIG1vcmU1==",
        "aGVsbG8%2Bd29ybGQ%3D1234567890",
        "01234567-89ab-cdef-0123-456789abcdef",
    ],
)
def test_a_long_random_value_is_hidden_whatever_its_name(value):
    url = "https://h.org/a.jpg?x={}&page=2"
    assert hide_secrets(url.format(value)) == url.format("…")


ORDINARY = [
    *(
        "page=2",
        "q=cats",
        "w=1024",
        "format=jpg",
        "h=768",
        "fit=crop",
        "per_page=100",
        "offset=1000000000000",
    ),
    *("q=cats+and+dogs", "sort=newest-first-by-day", "lang=en-GB", "id=abc123", "v=1.2.3", "quality=85"),
    *("zipcode=1234", "date=2026-11-22", "empty=", "flag", "side=left"),
]


@pytest.mark.parametrize("parameter", ORDINARY)
def test_an_ordinary_parameter_is_kept(parameter):
    for text in (f"https://h.org/a.jpg?{parameter}", f"https://h.org/a?x=1&{parameter}&y=2 (status 404)"):
        assert hide_secrets(text) == text


def test_an_escaped_phrase_is_not_taken_for_a_random_value():
    text = "https://h.org/?q=a%20cat%20on%20a%20mat&page=2"
    assert hide_secrets(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:hush@h.org/a.jpg", "https://…@h.org/a.jpg"),
        ("https://hush@h.org", "https://…@h.org"),
        ("https://me:hu@sh@h.org/", "https://…@h.org/"),
        ("https://:hush@h.org/", "https://…@h.org/"),
        ("https://@h.org/", "https://…@h.org/"),
        ("https://me:p%40ss@h.org:8080/b@c", "https://…@h.org:8080/b@c"),
        ("https:\\\\me:hush@h.org\\a", "https:\\\\…@h.org\\a"),
        ("https:/\\me:hush@h.org/", "https:/\\…@h.org/"),
        ("https:\\/me:hush@h.org/", "https:\\/…@h.org/"),
        ("https:///me:hush@h.org/", "https:///…@h.org/"),
        ("https:\\\\\\\\me:hush@h.org/", "https:\\\\\\\\…@h.org/"),
        ("//me:hush@h.org/", "//…@h.org/"),
        ("socks5h://me:hush@127.0.0.1:1080", "socks5h://…@127.0.0.1:1080"),
        ("[::1] http://me:hush@[::1]:80/", "[::1] http://…@[::1]:80/"),
    ],
)
def test_a_name_and_password_are_hidden(text, expected):
    assert hide_secrets(text) == expected


@pytest.mark.parametrize(
    "text",
    ["mail me@h.org", "https://h.org/@me", "https://h.org/a?to=me@h.org", "https://h.org me@h.org", "@", ""],
)
def test_an_at_sign_elsewhere_is_no_password(text):
    assert hide_secrets(text) == text


def test_every_url_of_a_text_is_freed_of_secrets():
    text = (
        "GET https://me:hush@a.org/x?token=hush&page=2: moved to 'https://b.org/?sig=hush' and "
        '"https://c.org/?w=1&key=hush"; see <https://hush@d.org/#access_token=hush>\nhttp://e.org/?q=cats'
    )
    assert hide_secrets(text) == (
        "GET https://…@a.org/x?token=…&page=2: moved to 'https://b.org/?sig=…' and "
        '"https://c.org/?w=1&key=…"; see <https://…@d.org/#access_token=…>\nhttp://e.org/?q=cats'
    )


@pytest.mark.parametrize(
    "text",
    [
        "https://p.org/?url=https://h.org/a.jpg?token=hush",
        "https://p.org/?w=1,https://h.org/a.jpg?token=hush",
        "https://p.org/?w=1&u=https://h.org/?x=y?sig=hush",
    ],
)
def test_secrets_of_a_url_inside_another_ones_parameter_are_hidden(text):
    assert SECRET not in hide_secrets(text)


def test_secrets_behind_an_ampersand_that_json_escapes_are_hidden():
    assert SECRET not in hide_secrets(r'{"error": "https://h.org/a.jpg?w=1\u0026token=hush"}')


def test_further_secrets_are_hidden_wherever_they_are():
    assert hide_secrets("Client-ID abc was refused: abc", ["abc", ""]) == "Client-ID … was refused: …"


PIECES = [
    *(
        "https://",
        "http:\\\\",
        "//",
        "h.org",
        "/",
        "\\",
        "?",
        "&",
        "&amp;",
        ";",
        "#",
        "=",
        "@",
        ":",
        " ",
        "\n",
    ),
    *("token", "sig", "page", "x", "hush", "2", "4eC39HqLyjWDarjtT1zdp7dc", "me:pw@", "a=1", "…", "'"),
]


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_hiding_twice_hides_no_more(text):
    once = hide_secrets(text)
    assert hide_secrets(once) == once


@given(st.text(st.characters()))
def test_any_text_may_be_shown(text):
    assert shown(text).isprintable()


@given(
    st.sampled_from(["https", "http", "s3", "socks5"]),
    st.text(
        st.characters(codec="utf-8", exclude_characters="/\\?#@", exclude_categories=["Z", "C"]), min_size=1
    ),
    st.sampled_from(SECRET_NAMES),
)
def test_no_url_shows_what_is_secret(scheme, password, name):
    secret = f"<{SECRET}{password}>"
    text = f"{scheme}://me:{secret}@h.org/a.jpg?page=2&{name}={SECRET}"
    assert shown(text) == f"{scheme}://…@h.org/a.jpg?page=2&{name}=…"


N = 400_000

HUGE = {
    "slashes": "/" * N,
    "backslashes": "\\" * N,
    "at signs": "//" + "@" * N,
    "at signs and letters": "//" + "a@" * (N // 2),
    "slashes and letters": "//a" * (N // 3),
    "no end of a name": "//" + "a" * N,
    "question marks": "?" * N,
    "ampersands": "&a" * (N // 2),
    "equals signs": "?a=" + "=" * N,
    "parameters without a value": "?" + "a=&" * (N // 3),
    "a name without an end": "?" + "a" * N,
    "names of a hundred characters": ("?" + "a" * 100) * (N // 101),
    "a long value without digits": "?a=" + "a" * N,
    "a long value without letters": "?a=" + "1" * N,
    "a long value with an odd end": "?a=" + "a1" * (N // 2) + "!",
    "blanks": " " * N,
    "half a name": "?" + "acces" * (N // 5) + "=1",
}


@pytest.mark.parametrize("name", HUGE)
def test_a_text_of_many_characters_is_no_trouble(name):
    text = HUGE[name]
    safe = hide_secrets(text + " https://me:hush@h.org/?token=hush")
    assert safe.endswith(" https://…@h.org/?token=…")
    assert len(shown(text)) <= SHOWN_CHARS


@pytest.mark.parametrize(
    "character",
    [
        *("\0", "\n", "\r", "\t", "\v", "\f", "\x1b", "\x7f", "\x85", "\x9b", "\u2028", "\u2029", "\ufeff"),
        *("\u200e", "\u200f", "\u202a", "\u202e", "\u2066", "\u2069", "\u061c", "\u200b", "\ud800", "\xad"),
    ],
)
def test_a_character_that_controls_is_shown_as_a_blank(character):
    assert one_line(f"a{character}b") == shown(f"a{character}b") == "a b"


def test_characters_of_all_scripts_are_kept():
    assert shown("café 猫 кот قطة 😀 «x» …") == "café 猫 кот قطة 😀 «x» …"


def test_a_shown_text_is_cut():
    assert shown("x" * 10_000) == one_line("x" * 10_000) == "x" * SHOWN_CHARS
    assert shown("x" * 10, 3) == one_line("x" * 10, 3) == "xxx"
    assert shown("", 3) == one_line("", 3) == ""


@pytest.mark.parametrize("length", [100, SHOWN_CHARS, 3 * SHOWN_CHARS, 5 * SHOWN_CHARS, 100_000])
def test_a_secret_is_hidden_however_long_it_is(length):
    secret = "p" * length
    assert "pp" not in shown(f"https://me:{secret}@h.org/a.jpg")
    assert "pp" not in shown(f"https://h.org/a.jpg?token={secret}&page=2")


def test_a_secret_is_hidden_where_the_text_is_cut():
    for length in range(SHOWN_CHARS):
        assert "hus" not in shown(f"{'x' * length} https://me:hush@h.org/?token=hush&sig=hush")
