"""With the real program, which the tests' requirements install, and with programs that misbehave."""

import hashlib
import json
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from imgdl_pipeline.config.galleries import Gallery
from imgdl_pipeline.core import sources
from imgdl_pipeline.core.download.run import download_gallery
from imgdl_pipeline.core.listing.build import list_gallery, list_warnings, read_links
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.sources import gallery_dl
from imgdl_pipeline.core.sources.client import SourceClient, SourceError
from imgdl_pipeline.core.sources.gallery_dl import GalleryDlSource
from imgdl_pipeline_tests.support.pictures import jpeg

PICTURE = jpeg()
MD5 = hashlib.md5(PICTURE).hexdigest()


def listed(url, **keys):
    with SourceClient(DownloadSettings(), {}) as client:
        return list(sources.list_links(GalleryDlSource(type="gallery_dl", url=url, **keys), client))


@pytest.fixture
def booru(server, tmp_path):
    """A site that gallery-dl knows, on the tests' server: its configuration says where it is."""
    file = tmp_path / "gallery-dl.conf"
    file.write_text(json.dumps({"extractor": {"moebooru": {"ours": {"root": server.url("").rstrip("/")}}}}))
    posts = [
        {"id": 1, "file_url": server.url("/a.jpg"), "md5": MD5, "author": "Ann", "tags": "x y", "width": 320},
        {"id": 2, "file_url": server.url("/b.png"), "md5": "b" * 32},
        {"id": 3, "file_url": server.url("/c.jpeg"), "md5": MD5},
    ]
    for post in posts:
        post["created_at"] = 1700000000
    server.serve("/post.json", json.dumps(posts).encode(), Content_Type="application/json")
    return {"url": server.url("/post?tags=hills"), "config": str(file)}


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a program of that name in the real one's place."""

    def install(script):
        file = tmp_path / "bin" / "gallery-dl"
        file.parent.mkdir()
        file.write_text(f"#!{sys.executable}\nimport json, sys, time\n{script}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(gallery_dl, "PROGRAM", str(file))

    return install


def test_the_real_program_lists_a_sites_pictures(server, booru):
    first, second = listed(**booru)
    assert (first.url, second.url) == (server.url("/a.jpg"), server.url("/c.jpeg"))
    assert first.attributes == {
        "title": "a",
        "author": "Ann",
        "date": "2023-11-14 22:13:20",
        "id": "1",
        "width": 320,
        "md5": MD5,
        "site": "ours",
        "tags": ["x", "y"],
    }


def test_what_the_real_program_lists_is_downloaded_and_compared_with_its_md5(server, booru, store):
    server.serve("/a.jpg", PICTURE)
    server.serve("/c.jpeg", jpeg(2))
    settings = DownloadSettings(allow_addresses=("127.0.0.1/32",), robots_txt=False)
    list_gallery("g", Gallery(name="g", source={"type": "gallery_dl", **booru}).source, store, settings)
    rows = {row["url"]: row["reason"] for row in download_gallery("g", store, settings).ledger.to_pylist()}
    assert rows == {server.url("/a.jpg"): None, server.url("/c.jpeg"): "hash_mismatch"}


def test_the_headers_that_a_link_needs_go_with_it_and_to_its_own_host_only(server, program, store):
    def answer(handler):
        granted = handler.headers.get("Referer") == "https://h.org/album"
        handler.answer(200 if granted else 403, PICTURE if granted else b"")

    server.routes["/a.jpg"] = answer
    messages = [[3, server.url("/a.jpg"), {"_http_headers": {"Referer": "https://h.org/album"}}]]
    program(f"print(json.dumps({messages!r}))")
    settings = DownloadSettings(allow_addresses=("127.0.0.1/32",), robots_txt=False)
    source = {"type": "gallery_dl", "url": "https://h.org/album"}
    list_gallery("g", Gallery(name="g", source=source).source, store, settings)
    assert download_gallery("g", store, settings).ledger["status"].to_pylist() == ["ok"]


def test_a_page_that_the_real_program_cannot_have_is_an_error_with_its_words(server, booru):
    server.serve("/post.json", b"no", 404)
    with pytest.raises(SourceError, match=r"gallery-dl failed: .*404"):
        listed(**booru)


def test_a_site_that_the_real_program_does_not_know_is_an_error_with_its_words(server):
    with pytest.raises(SourceError, match=r"gallery-dl ended with exit code 64: .*[Uu]nsupported URL"):
        listed(server.url("/album"))


def test_a_missing_program_is_an_error_that_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(gallery_dl, "PROGRAM", "no-such-gallery-dl")
    with pytest.raises(SourceError, match=r"no-such-gallery-dl is not installed; .*: pip install gallery-dl"):
        listed("https://h.org/")


def test_only_jpegs_on_web_servers_are_listed_with_their_headers_and_facts(program):
    messages = [
        [2, {"category": "site"}],
        [3, "https://h.org/a.jpg", {
            "extension": "jpg", "title": "A", "user": {"name": "Ann"}, "date": "2026-11-22 06:00:00", "id": 7,
            "width": 640, "tags": ["x"], "category": "site",
            "_http_headers": {"Referer": "https://h.org/", "X": None},
        }],
        [3, "https://h.org/b.png", {"extension": "png"}],
        [3, "ytdl:https://h.org/c", {"extension": "jpg"}],
        [3, "https://h.org/unknown", {}],
        [6, "https://h.org/more", {}],
    ]  # fmt: skip
    program(f"print(json.dumps({messages!r}))")
    first, second = listed("https://h.org/")
    assert first.attributes == {
        "title": "A",
        "author": "Ann",
        "date": "2026-11-22 06:00:00",
        "id": "7",
        "tags": ["x"],
        "width": 640,
        "site": "site",
    }
    assert first.request_headers == {"Referer": "https://h.org/"}
    assert (second.url, second.request_headers) == ("https://h.org/unknown", {})


def test_a_failure_among_the_messages_fails_the_list_though_the_exit_code_is_0(program):
    program(
        'print(json.dumps([[3, "https://h.org/a.jpg", {}], [-1, {"error": "HttpError", "message": "403"}]]))'
    )
    with pytest.raises(
        SourceError, match=r"https://h.org/: gallery-dl failed: HttpError: 403".replace("gallery-dl", ".*")
    ):
        listed("https://h.org/")


@pytest.mark.parametrize("printed", ["", "Traceback", "{}", "[7]", "[[]]", '[[3, "https://h.org/a.jpg"'])
def test_output_that_is_no_list_of_messages_is_an_error_that_shows_it(program, printed):
    program(f"print({printed!r}); sys.stderr.write('a word'); sys.exit(1)")
    with pytest.raises(SourceError, match="ended with exit code 1: a word"):
        listed("https://h.org/")


def test_a_program_that_does_not_end_is_ended(program):
    program("time.sleep(60)")
    with pytest.raises(SourceError, match=r"did not end within 0.5 s; list_timeout allows more"):
        listed("https://h.org/", list_timeout=0.5)


def test_no_more_than_max_images_are_listed_and_the_url_is_no_option(program):
    program('print(json.dumps([[3, f"https://h.org/{n // 2}.jpg", {"title": sys.argv}] for n in range(9)]))')
    links = listed("https://h.org/?--exec", max_images=2, config="my.conf")
    assert len(links) == 2
    program_arguments = GalleryDlSource(
        type="gallery_dl", url="https://h.org/", max_images=2, config="my.conf"
    )
    command = gallery_dl._command(program_arguments)
    assert command[command.index("--range") + 1] == "1-2"
    assert command[-2:] == ["--", "https://h.org/"]
    assert "--config-ignore" in command
    assert Path(command[0]).name == "gallery-dl"


def test_the_real_program_looks_no_further_than_it_must(server, booru):
    pages = []

    def answer(handler):
        pages.append(handler.path)
        number = len(pages)
        posts = [
            {"id": n, "file_url": server.url(f"/{n}.{'png' if n % 2 else 'jpg'}"), "created_at": 1700000000}
            for n in range(number * 100, number * 100 + 40)
        ]
        handler.answer(200, json.dumps(posts if number < 9 else []).encode(), "application/json")

    server.routes["/post.json"] = answer
    assert [link.url for link in listed(**booru, max_images=3)] == [
        server.url(f"/{number}.jpg") for number in (100, 102, 104)
    ]
    assert len(pages) == 1


@pytest.mark.parametrize("printed", ["[]", '[[3, "https://h.org/a.jpg", {}]]'])
def test_an_exit_code_that_is_not_0_is_an_error_whatever_was_printed(program, printed):
    program(f"print('{printed}'); print('AuthenticationError: log in', file=sys.stderr); sys.exit(16)")
    with pytest.raises(SourceError, match="exit code 16: AuthenticationError: log in"):
        listed("https://h.org/")


def test_no_password_of_its_url_is_in_its_error(caplog):
    with pytest.raises(SourceError) as caught:
        listed("http://ann:hunter2@127.0.0.1:9/album")
    assert "hunter2" not in f"{caught.value} {caplog.text}"


def test_nothing_that_the_program_has_started_outlives_its_time(program, tmp_path):
    child = "import time, pathlib; time.sleep(20); pathlib.Path(sys.argv[1]).touch()".replace(
        "import", "import sys,"
    )
    program(f"import subprocess; subprocess.run([sys.executable, '-c', {child!r}, '{tmp_path}/alive'])")
    with pytest.raises(SourceError, match="did not end within"):
        listed("https://h.org/", list_timeout=0.3)
    ends_at = time.monotonic() + 10
    while processes_with(f"{tmp_path}/alive"):  # a killed process takes a moment to go
        assert time.monotonic() < ends_at
    assert not (tmp_path / "alive").exists()


def processes_with(word):
    """The processes that were started with that word."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if word.encode() in file.read_bytes().split(b"\0"):
                found.append(file)
    return found


def test_a_header_that_cannot_be_sent_is_left_out(program):
    headers = {"Referer": "b'https://h.org/'", "X-Name": "\u00e9\u4e2d", "X-Fine": "yes"}
    program(f"print(json.dumps([[3, 'https://h.org/a.jpg', {{'_http_headers': {headers!r}}}]]))")
    [link] = listed("https://h.org/")
    assert link.request_headers == {"Referer": "https://h.org/", "X-Fine": "yes"}


def test_no_message_among_the_files_is_an_empty_list(program):
    program("print('[]')")
    assert listed("https://h.org/") == []


def list_to(store, **keys):
    source = Gallery(name="g", source={"type": "gallery_dl", "url": "https://h.org/", **keys}).source
    return list_gallery("g", source, store, DownloadSettings())


SECRET = "s3cr3tS3CR3Ts3cr3tS3CR3T"
WITH_SECRETS = [
    3,
    "https://h.org/a.jpg",
    {"_http_headers": {"Cookie": f"sid={SECRET}; a=b", "Authorization": f"Bearer {SECRET}"}},
]


@pytest.mark.parametrize(
    "script",
    [
        "print(json.dumps([{message}])[:-9]); sys.exit(1)",
        "print(json.dumps([{message}])); sys.exit(1)",
        "print(json.dumps([{message}, 7]))",
        "print(json.dumps([{message}, [-1, {{'error': 'HttpError', 'message': str({message}[2])}}]]))",
        "print('[]'); print({message}, file=sys.stderr); sys.exit(1)",
    ],
    ids=["cut", "an exit code", "no list of messages", "among the messages", "on standard error"],
)
def test_no_header_of_a_download_is_in_an_error(program, script, caplog):
    program(script.format(message=WITH_SECRETS))
    with pytest.raises(SourceError) as caught:
        listed("https://h.org/")
    assert SECRET not in f"{caught.value} {caplog.text}"


def test_no_header_of_a_download_is_in_a_warning(program, store):
    said = f"print('sent', {WITH_SECRETS[2]}, file=sys.stderr)"
    program(f"print(json.dumps([{WITH_SECRETS}])); {said}")
    links = list_to(store)
    assert SECRET not in str(list_warnings(links))
    assert SECRET in read_links(store, "g")["request_headers"][0].as_py()


def test_what_the_program_says_aloud_and_did_not_look_into_is_in_the_lists_warnings(program, store):
    messages = [[3, "https://h.org/a.jpg", {}], [6, "https://h.org/more", {}], [6, "https://h.org/even", {}]]
    program(f"print(json.dumps({messages})); print('[warning] \\x1b[31mslow', file=sys.stderr)")
    assert list_warnings(list_to(store)) == [
        "https://h.org/: [warning]  [31mslow",
        "https://h.org/: gallery-dl did not look into 2 pages",
    ]


def test_files_that_are_no_jpegs_are_said_aloud_with_both_numbers(program, store):
    messages = [[3, f"https://h.org/{n}.png", {"extension": "png"}] for n in range(3)]
    program(f"print(json.dumps({messages}))")
    assert list_warnings(list_to(store)) == ["g: the source has 3 entries, and 0 of them give a link"]


def test_a_gallerys_own_time_limit_ends_the_program_and_the_old_list_stays(program, store):
    program(
        "time.sleep(60 if sys.argv[-1].endswith('slow') else 0); print('[[3, \"https://h.org/a.jpg\", {}]]')"
    )
    list_to(store)
    source = Gallery(name="g", source={"type": "gallery_dl", "url": "https://h.org/slow"}).source
    with pytest.raises(
        SourceError, match=r"did not (end|list its links) within 0.[45]\d* s; list_timeout allows more"
    ):
        list_gallery("g", source, store, DownloadSettings(), list_timeout=0.5)
    assert read_links(store, "g").num_rows == 1
