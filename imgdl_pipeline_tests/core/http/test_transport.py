import socket
import threading

import pytest
import requests
import trustme

from imgdl_pipeline.core.download.fetch import Fetcher
from imgdl_pipeline.core.http.address_guard import AddressGuard
from imgdl_pipeline.core.http.deadline import Deadline, deadline_scope
from imgdl_pipeline.core.http.tls import tls_context
from imgdl_pipeline.core.http.transport import get, header_text, new_session
from imgdl_pipeline.core.model.outcome import FetchError
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline_tests.support.pictures import PICTURE
from imgdl_pipeline_tests.support.tls import tls_server


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def trusted(authority, tmp_path):
    """The context of who trusts the tests' own certificate authority."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tls_context(str(tmp_path / "ca.pem"))


@pytest.fixture
def trusting(loopback, trusted):
    """A fetcher that trusts the tests' own certificate authority."""
    with Fetcher(loopback, threading.Event(), tls=trusted) as fetcher:
        yield fetcher


def test_a_trusted_certificate_lets_the_image_through(authority, trusting):
    with tls_server(authority.issue_cert("localhost")) as url, trusting.fetch(url).body as body:
        assert body.read() == PICTURE


def test_a_certificate_for_another_host_is_tls_and_says_so(authority, trusting):
    with tls_server(authority.issue_cert("other.example")) as url, pytest.raises(FetchError) as caught:
        trusting.fetch(url)
    assert caught.value.code == "tls"
    assert "Hostname mismatch" in caught.value.detail


def test_an_expired_certificate_is_tls_and_says_so(authority, trusting):
    from datetime import datetime, timezone

    expired = authority.issue_cert("localhost", not_after=datetime(2020, 1, 1, tzinfo=timezone.utc))
    with tls_server(expired) as url, pytest.raises(FetchError) as caught:
        trusting.fetch(url)
    assert caught.value.code == "tls"
    assert "expired" in caught.value.detail


def test_a_tls_handshake_that_never_ends_is_timeout(loopback, server):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = loopback.overridden_by({"timeout": 0.4})
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/a.jpg"
        with Fetcher(settings, threading.Event()) as fetcher, pytest.raises(FetchError) as caught:
            fetcher.fetch(url)
    assert caught.value.code == "timeout"


def test_the_context_is_made_once():
    assert tls_context() is tls_context()


def test_the_environments_proxies_and_passwords_are_not_used(server, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9/")
    session = new_session(AddressGuard(["127.0.0.1/32"]), DownloadSettings())
    with deadline_scope(Deadline(5, threading.Event())), get(session, server.url("/x")) as response:
        assert response.status_code == 404
    assert "Authorization" not in server.requests[0][1]


@pytest.mark.parametrize(("sent", "text"), [("caf\xe9", "café"), ("caf\xc3\xa9", "café"), ("a", "a")])
def test_a_header_is_utf_8_where_it_can_be(sent, text):
    assert header_text(sent) == text


def asked_through_a_proxy(url, context=None):
    """The status of an answer that came with the environment's proxies in use."""
    session = new_session(AddressGuard(["127.0.0.1/32"]), DownloadSettings(environment_proxies=True), context)
    with deadline_scope(Deadline(5, threading.Event())), get(session, url) as response:
        response.raw.read()
        return response.status_code


@pytest.fixture
def use_proxy(monkeypatch):
    """Lets the environment name a proxy."""

    def use(address):
        monkeypatch.setenv("http_proxy", address)
        monkeypatch.setenv("https_proxy", address)
        monkeypatch.setenv("no_proxy", "")

    return use


@pytest.fixture
def proxy(server, use_proxy):
    """The tests' server as a proxy: it answers for any host, and passes TLS on to where it is told."""
    use_proxy(server.url())
    return server


@pytest.fixture
def tls_proxy(authority, use_proxy):
    """The same, and one speaks TLS with the proxy itself."""
    behind_tls = tls_server(authority.issue_cert("localhost"))
    with behind_tls:
        use_proxy(f"https://localhost:{behind_tls.server.server_port}")
        yield behind_tls.server


def test_the_environments_proxies_are_used_when_asked_for(proxy):
    proxy.serve("http://pictures.invalid/a.jpg", PICTURE)
    assert asked_through_a_proxy("http://pictures.invalid/a.jpg") == 200
    assert proxy.paths() == ["http://pictures.invalid/a.jpg"]


def test_a_proxy_is_not_asked_for_a_private_address(proxy):
    for url in ("http://127.0.0.2/a.jpg", "https://169.254.169.254/", "http://[::ffff:10.0.0.1]/"):
        with pytest.raises(FetchError) as caught:
            asked_through_a_proxy(url)
        assert caught.value.code == "private_address"
    assert proxy.paths() == []


def test_a_host_of_no_proxy_is_asked_directly(proxy, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert asked_through_a_proxy(proxy.serve("/a.jpg", PICTURE)) == 200
    assert proxy.paths() == ["/a.jpg"]


def test_tls_goes_through_a_proxy_and_is_verified_at_its_end(proxy, authority, trusted):
    with tls_server(authority.issue_cert("localhost")) as url:
        assert asked_through_a_proxy(url, trusted) == 200
    with tls_server(authority.issue_cert("other.example")) as url:
        with pytest.raises(requests.exceptions.SSLError, match="Hostname mismatch"):
            asked_through_a_proxy(url, trusted)
    assert all(path.startswith("localhost:") for path in proxy.paths())


def test_a_proxy_may_speak_tls_itself(tls_proxy, authority, trusted):
    tls_proxy.serve("http://pictures.invalid/a.jpg", PICTURE)
    assert asked_through_a_proxy("http://pictures.invalid/a.jpg", trusted) == 200
    with tls_server(authority.issue_cert("localhost")) as url:
        assert asked_through_a_proxy(url, trusted) == 200


def refused_through_a_proxy(url, loopback, context=None):
    """The code of what became of a link in half a second."""
    settings = loopback.overridden_by({"environment_proxies": True, "timeout": 0.5})
    with Fetcher(settings, threading.Event(), tls=context) as fetcher, pytest.raises(FetchError) as caught:
        fetcher.fetch(url)
    return caught.value.code


@pytest.fixture
def silent_port():
    """A port that accepts connections, and at which nobody ever says anything."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield silent.getsockname()[1]


def test_a_tls_proxy_that_never_ends_its_handshake_is_timeout(use_proxy, silent_port, loopback):
    use_proxy(f"https://127.0.0.1:{silent_port}")
    for scheme in ("http", "https"):
        assert refused_through_a_proxy(f"{scheme}://pictures.invalid/a.jpg", loopback) == "timeout"


def test_tls_behind_a_tls_proxy_that_never_ends_its_handshake_is_timeout(
    tls_proxy, silent_port, loopback, trusted
):
    assert refused_through_a_proxy(f"https://127.0.0.1:{silent_port}/a.jpg", loopback, trusted) == "timeout"
    assert tls_proxy.paths() == [f"127.0.0.1:{silent_port}"]


def test_an_origin_behind_a_tls_proxy_may_take_its_time(tls_proxy, authority, trusted, monkeypatch):
    """TLS within TLS: longer than one slice of waiting, and well within the deadline."""
    monkeypatch.setattr("imgdl_pipeline.core.http.deadline.SLICE_S", 0.01)
    behind_tls = tls_server(authority.issue_cert("localhost"))

    def slow(handler):
        behind_tls.server.release.wait(0.2)
        handler.send_raw(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    with behind_tls as url:
        behind_tls.server.routes["/a.jpg"] = slow
        assert asked_through_a_proxy(url, trusted) == 204


def test_a_proxy_that_speaks_no_http_is_refused_without_its_password(use_proxy):
    use_proxy("socks5://me:secret@127.0.0.1:9")
    with pytest.raises(FetchError) as caught:
        asked_through_a_proxy("http://pictures.invalid/a.jpg")
    assert str(caught.value) == "connection: the environment names a proxy that speaks socks5, not HTTP"


@pytest.fixture
def nobody_is_trusted(monkeypatch, tmp_path):
    """The environment names an empty folder of certificates."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    tls_context.cache_clear()
    yield
    tls_context.cache_clear()  # whatever the test ends in: the others share it


def test_a_folder_of_trusted_certificates_holds_for_tls_and_for_nothing_else(
    proxy, authority, nobody_is_trusted
):
    proxy.serve("http://pictures.invalid/a.jpg", PICTURE)
    assert asked_through_a_proxy("http://pictures.invalid/a.jpg") == 200
    with tls_server(authority.issue_cert("localhost")) as url, pytest.raises(requests.exceptions.SSLError):
        asked_through_a_proxy(url)


def test_a_tls_proxy_that_drips_is_timeout(tls_proxy, loopback, trusted):
    def drip(handler):
        handler.send_raw(b"HTTP/1.1 200 OK\r\n\r\n\xff\xd8\xff")
        while not tls_proxy.release.wait(0.05):
            handler.send_raw(b"x")

    tls_proxy.forward = drip
    assert refused_through_a_proxy("http://pictures.invalid/a.jpg", loopback, trusted) == "timeout"
