"""Secrets of galleries are nowhere but where they belong, however their sources fail.

Each case has secrets of its own in its URL, its environment or its headers. They are looked for, as
bytes, in the store, in all of Dagster's storage, in what is printed, and in the log.
"""

import base64
import hashlib
import json
import stat
import sys
from pathlib import Path
from urllib.parse import quote

import dagster as dg
import pytest

from imgdl_pipeline.assets import build_assets
from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.core.sources import gallery_dl
from imgdl_pipeline.core.sources.client import SourceClient
from imgdl_pipeline.resources import ImageDownloads
from imgdl_pipeline_tests.support.pictures import jpeg


@pytest.fixture(scope="module")
def dagster_home(tmp_path_factory):
    return tmp_path_factory.mktemp("dagster_home")


@pytest.fixture(scope="module")
def instance(dagster_home):
    """An instance that keeps everything in SQLite, as an installation does."""
    with dg.DagsterInstance.local_temp(str(dagster_home)) as opened:
        yield opened


class Secrets:
    """The secrets of one case, and a URL that holds most of them."""

    def __init__(self, *case):
        name = " ".join(case)

        def secret(kind):
            return hashlib.sha256(f"{name} {kind}".encode()).hexdigest()[:32]

        self.password, self.token, self.signature = secret("password")[:12], secret("token"), secret("sig")
        self.unknown, self.variable, self.header = secret("unknown"), secret("variable"), secret("header")

    def url(self, url, query=True):
        own = url.replace("//", f"//ann:{self.password}@")
        words = f"access_token={self.token}&X-Amz-Signature={self.signature}&zz={self.unknown}"
        return f"{own}?{words}" if query else own

    def found_in(self, data):
        """The secrets that are in some bytes, as they are or as a header holds them."""
        basic = base64.b64encode(f"ann:{self.password}".encode()).decode().rstrip("=")
        return sorted(
            kind for kind, secret in {**vars(self), "basic": basic}.items() if secret.encode() in data
        )


@pytest.fixture
def run(tmp_path, dagster_home, instance, capfd, caplog, monkeypatch):
    """Materializes the galleries of all cases in one run; returns the result and what was kept or said."""
    caplog.set_level("INFO")
    monkeypatch.delenv("IMGDL_STORE", raising=False)
    monkeypatch.setattr(SourceClient, "_wait", lambda self, seconds: None)

    def run_(galleries, only="gallery_links"):
        assets = [
            each for one in galleries for each in build_assets(one) if each.key.path[-1].startswith(only)
        ]
        result = dg.materialize(
            assets,
            instance=instance,
            partition_key="mine",
            resources={"image_downloads": ImageDownloads(limit=None)},
            raise_on_error=False,
        )
        said = "".join(capfd.readouterr()) + "\n".join(map(str, map(vars, caplog.records))) + caplog.text
        files = [file for folder in (dagster_home, tmp_path) for file in folder.rglob("*") if file.is_file()]
        kept = [file.read_bytes() for file in files if file.name not in ("links.parquet", "gallery-dl")]
        assert sum(map(len, kept)) > 100_000
        return result, b"\n".join([said.encode("utf-8", "surrogateescape"), *kept])

    return run_


def galleries_of(name, store, source, **gallery):
    """A galleries file of one gallery, whose assets have a prefix of their own."""
    return Galleries(
        store=str(store / name),
        assets={"key_prefix": [name]},
        download={"attempts": 1, "robots_txt": False},
        galleries=[{"name": "mine", "source": source, **gallery}],
    )


SOURCES = {
    "feed": lambda url, secrets: {"url": secrets.url(url)},
    "sitemap": lambda url, secrets: {"url": secrets.url(url)},
    "web_page": lambda url, secrets: {"url": secrets.url(url)},
    "iiif": lambda url, secrets: {"manifest": secrets.url(url)},
    "url_list": lambda url, secrets: {"path": secrets.url(url), "format": "json"},
    "wikimedia_commons": lambda url, secrets: {"category": "X", "api_url": secrets.url(url)},
    "imgur": lambda url, secrets: {
        "gallery": "hot",
        "api_url": secrets.url(url, query=False),
        "client_id": "{{ env.%s }}",
    },
    "openverse": lambda url, secrets: {
        "q": "hills",
        "api_url": secrets.url(url, query=False),
        "token": "{{ env.%s }}",
    },
}


def echoed(handler, secrets):
    """A server's words, which repeat what was asked for in several ways."""
    url = secrets.url(f"http://{handler.headers['Host']}{handler.path.partition('?')[0]}")
    return (
        f"no: {handler.path} {url} <a href='{url.replace('&', '&amp;')}'>{quote(url, safe='')}</a>".encode()
    )


BROKEN = {
    "feed": b"<rss><channel><item><link>%s</link>",
    "sitemap": b"<urlset><url><loc>%s</loc>",
    "web_page": b"<img src=a.jpg><p>%s",
}


def not_found(handler, secrets, source):
    handler.answer(404, echoed(handler, secrets), "text/html")


def overloaded(handler, secrets, source):
    handler.answer(503, echoed(handler, secrets), "text/html")


def page(handler, secrets, source):
    handler.answer(200, b"<html><body>Log in: " + echoed(handler, secrets), "text/html")


def broken(handler, secrets, source):
    body = BROKEN.get(source, b'{"success": true, "data": [{"url": "%s"}, "results"')
    handler.answer(200, body % echoed(handler, secrets), "application/octet-stream")


def inside(handler, secrets, source):
    handler.answer(302, b"", Location=secrets.url("http://127.0.0.2:9/inside"))


def headers(handler, secrets, source):
    handler.answer(403, f"you sent {dict(handler.headers)}".encode(), "text/plain")


def slow(handler, secrets, source):
    handler.server.release.wait(30)


FAILURES = (not_found, overloaded, page, broken, inside, slow)


def fail_by(server, secrets, source, failure):
    """Let a server fail below a path of its own; returns the URL."""
    path = f"/{source}-{failure.__name__}"

    def answer(handler):
        failure(handler, secrets, source)

    for below in ("", "/", "/images/", "/gallery/hot/viral/day/0"):
        server.routes[path + below] = answer
    return server.url(path)


@pytest.mark.parametrize("source", SOURCES)
def test_no_secret_of_a_source_is_told_however_it_fails(source, server, run, tmp_path, monkeypatch):
    cases, galleries = {}, []
    for failure in (*FAILURES, None):  # without a failure of its own, there is no server
        name = failure.__name__ if failure else "refused"
        secrets = cases[name] = Secrets(source, name)
        url = fail_by(server, secrets, source, failure) if failure else "http://127.0.0.1:9/nobody"
        keys = json.dumps(SOURCES[source](url, secrets)).replace("%s", f"SECRET_{name.upper()}")
        monkeypatch.setenv(f"SECRET_{name.upper()}", secrets.variable)
        own = {"type": source, **json.loads(keys)}
        galleries.append(galleries_of(name, tmp_path, own, list_timeout=0.3 if name == "slow" else 30))
    result, found = run(galleries)
    failed = {event.step_key.partition("__")[0] for event in result.get_step_failure_events()}
    may_succeed = {"page", "broken"} if source == "web_page" else set()
    assert failed >= set(cases) - may_succeed
    assert {name: leaks for name, each in cases.items() if (leaks := each.found_in(found))} == {}


def test_no_password_is_told_by_a_server_that_repeats_the_headers_of_a_request(
    server, run, tmp_path, monkeypatch
):
    """They hold the password of the URL as base64, which anyone can read."""
    cases, galleries = {}, []
    for source in SOURCES:
        secrets = cases[source] = Secrets(source, "headers")
        url = fail_by(server, secrets, source, headers)
        keys = json.dumps(SOURCES[source](url, secrets)).replace("%s", "SECRET_HEADER")
        galleries.append(galleries_of(source, tmp_path, {"type": source, **json.loads(keys)}))
    monkeypatch.setenv("SECRET_HEADER", "a-client-id")
    _, found = run(galleries)
    assert [source for source, each in cases.items() if "basic" in each.found_in(found)] == []


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a program in gallery-dl's place, which does what the end of its URL says."""
    file = tmp_path / "gallery-dl"
    monkeypatch.setattr(gallery_dl, "PROGRAM", str(file))

    def install(script):
        file.write_text(f"#!{sys.executable}\nimport json, sys, time\nurl = sys.argv[-1]\n{script}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    return install


PROGRAM_FAILURES = {
    "refused": "print(f'[error] {url} {headers}', file=sys.stderr); sys.exit(4)",
    "failed": "print(json.dumps([[-1, {'error': 'HttpError', 'message': f'404 for {url}'}]]))",
    "cut": "print(json.dumps([[3, url, {'_http_headers': headers}]])[:-5]); sys.exit(1)",
    "page": "print('<html>', url)",
    "odd": "print(json.dumps([[3, url, {'_http_headers': headers}], 7]))",
    "slow": "print(url, headers, file=sys.stderr, flush=True); time.sleep(30)",
    "warned": "print(json.dumps([[6, url, {}]])); print(f'[warning] {url}', file=sys.stderr)",
}


def test_no_secret_of_gallery_dl_is_told_however_it_fails(run, program, tmp_path):
    cases, galleries, script = {}, [], ""
    for name, does in PROGRAM_FAILURES.items():
        secrets = cases[name] = Secrets("gallery_dl", name)
        sent = {"Cookie": f"sid={secrets.header}", "Authorization": f"Bearer {secrets.variable}"}
        script += f"if '/{name}?' in url:\n    headers = {sent}\n    {does}\n    sys.exit(0)\n"
        own = {"type": "gallery_dl", "url": secrets.url(f"https://h.org/{name}")}
        galleries.append(galleries_of(name, tmp_path, own, list_timeout=0.5 if name == "slow" else 30))
    program(script)
    result, found = run(galleries)
    assert len({event.step_key for event in result.get_step_failure_events()}) >= len(cases) - 1
    assert {name: leaks for name, each in cases.items() if (leaks := each.found_in(found))} == {}


def test_the_headers_that_links_are_fetched_with_are_in_the_link_list_only(server, run, program, tmp_path):
    secrets = Secrets("headers", "of links")
    sent = {"Cookie": f"sid={secrets.header}", "Authorization": f"Bearer {secrets.variable}"}

    def picture(handler):
        is_known = secrets.header in handler.headers.get("Cookie", "")
        handler.answer(200 if is_known else 403, jpeg())

    server.routes["/a.jpg"] = picture
    server.routes["/b.jpg"] = lambda handler: handler.answer(
        404, f"you sent {dict(handler.headers)}".encode()
    )
    server.routes["/c.jpg"] = lambda handler: handler.answer(
        200, f"<p>{dict(handler.headers)}".encode(), "text/html"
    )
    server.routes["/d.jpg"] = lambda handler: handler.answer(
        302, b"", Location=f"http://ann:{secrets.password}@127.0.0.2/"
    )
    links = [
        [3, server.url(path), {"_http_headers": sent}] for path in ("/a.jpg", "/b.jpg", "/c.jpg", "/d.jpg")
    ]
    program(f"print(json.dumps({links}))")
    own = {"type": "gallery_dl", "url": secrets.url("https://h.org/album")}
    allowed = {"allow_addresses": ["127.0.0.1/32"]}
    result, found = run([galleries_of("whole", tmp_path, own, download=allowed)], only="gallery_")
    assert result.success
    assert len(server.requests) == 4
    [list_] = tmp_path.rglob("links.parquet")
    assert b"request_headers" in list_.read_bytes()
    assert secrets.found_in(found) == []


SUCCESSES = {
    "feed": b"<rss><channel><item><link>/p</link><enclosure url='/a.jpg'/></item></channel></rss>",
    "sitemap": b"<urlset><url><loc>/p</loc><image><loc>/a.jpg</loc></image></url></urlset>",
    "web_page": b"<img src='/a.jpg'>",
    "iiif": b'{"type": "Manifest", "items": [{"items": [{"items": [{"body": {"id": "%s/a.jpg"}}]}]}]}',
    "url_list": b'[{"url": "%s/a.jpg"}]',
}


def test_no_secret_of_a_source_that_succeeds_is_in_the_catalog_or_told(server, run, tmp_path):
    cases, galleries = {}, []
    server.serve("/a.jpg", jpeg())
    for source, body in SUCCESSES.items():
        secrets = cases[source] = Secrets("success", source)
        whole = body.replace(b"%s", server.url("").rstrip("/").encode())
        url = server.serve(f"/{source}", whole, Content_Type="text/plain", ETag='"1"')
        own = {"type": source, **SOURCES[source](url, secrets)}
        galleries.append(galleries_of(source, tmp_path, own, download={"allow_addresses": ["127.0.0.1/32"]}))
    result, found = run(galleries, only="gallery_")
    assert result.success
    assert server.paths().count("/a.jpg") == len(SUCCESSES)
    assert {name: leaks for name, each in cases.items() if (leaks := each.found_in(found))} == {}


def test_an_unset_or_unusable_secret_is_named_and_its_value_is_not(run, tmp_path, monkeypatch):
    secrets = Secrets("unusable")
    monkeypatch.setenv("SECRET_ODD", f"{secrets.variable}\x07é")
    monkeypatch.delenv("SECRET_UNSET", raising=False)
    galleries = [
        galleries_of(
            name.lower(),
            tmp_path,
            {"type": "imgur", "gallery": "hot", "client_id": f"{{{{ env.SECRET_{name} }}}}"},
        )
        for name in ("ODD", "UNSET")
    ]
    result, found = run(galleries)
    assert len(result.get_step_failure_events()) == 2
    assert b"source.client_id needs the environment variable SECRET_UNSET, which is not set" in found
    assert b"source.client_id needs printable ASCII in the environment variable SECRET_ODD" in found
    assert secrets.found_in(found) == []


def test_the_search_finds_what_is_there(run, tmp_path, dagster_home):
    """Else the tests above would prove nothing."""
    secrets = Secrets("planted")
    (tmp_path / "x").write_text(secrets.url("https://h.org/"))
    basic = base64.b64encode(f"ann:{secrets.password}".encode())
    (Path(dagster_home) / "planted.txt").write_bytes(basic)
    _, found = run([galleries_of("planted", tmp_path, {"type": "demo", "images": 1})])
    assert secrets.found_in(found) == ["basic", "password", "signature", "token", "unknown"]
