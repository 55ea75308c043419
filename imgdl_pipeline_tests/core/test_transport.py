import threading

import pytest
import requests
import trustme

from imgdl_pipeline.core.deadline import Deadline, working_until
from imgdl_pipeline.core.fetch import Fetcher
from imgdl_pipeline.core.guard import AddressGuard
from imgdl_pipeline.core.outcome import FetchError
from imgdl_pipeline.core.settings import DownloadSettings
from imgdl_pipeline.core.transport import get, header_text, new_session, tls_context
from imgdl_pipeline_tests.core.test_fetch import PICTURE, tls_server


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def trusting(authority, loopback, tmp_path):
    """A fetcher that trusts the tests' own certificate authority."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = tls_context(str(tmp_path / "ca.pem"))
    with Fetcher(loopback, threading.Event(), tls=context) as fetcher:
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
    import socket

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
    with working_until(Deadline(5, threading.Event())), get(session, server.url("/x")) as response:
        assert response.status_code == 404
    assert "Authorization" not in server.requests[0][1]


@pytest.mark.parametrize(("sent", "text"), [("caf\xe9", "café"), ("caf\xc3\xa9", "café"), ("a", "a")])
def test_a_header_is_utf_8_where_it_can_be(sent, text):
    assert header_text(sent) == text


def asked_through_a_proxy(proxy, url, context=None, **settings):
    """The status of an answer that came with the environment's proxies in use."""
    session = new_session(
        AddressGuard(["127.0.0.1/32"]), DownloadSettings(environment_proxies=True, **settings), context
    )
    with working_until(Deadline(5, threading.Event())), get(session, url) as response:
        return response.status_code


@pytest.fixture
def proxy(server, monkeypatch):
    """The tests' server as a proxy: it answers for any host, and passes TLS on to where it is told."""
    monkeypatch.setenv("http_proxy", server.url())
    monkeypatch.setenv("https_proxy", server.url())
    monkeypatch.setenv("no_proxy", "")
    return server


def test_the_environments_proxies_are_used_when_asked_for(proxy):
    proxy.serve("http://pictures.invalid/a.jpg", PICTURE)
    assert asked_through_a_proxy(proxy, "http://pictures.invalid/a.jpg") == 200
    assert proxy.paths() == ["http://pictures.invalid/a.jpg"]


def test_a_proxy_is_not_asked_for_a_private_address(proxy):
    for url in ("http://127.0.0.2/a.jpg", "https://169.254.169.254/", "http://[::ffff:10.0.0.1]/"):
        with pytest.raises(FetchError) as caught:
            asked_through_a_proxy(proxy, url)
        assert caught.value.code == "private_address"
    assert proxy.paths() == []


def test_a_host_of_no_proxy_is_asked_directly(proxy, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert asked_through_a_proxy(proxy, proxy.serve("/a.jpg", PICTURE)) == 200
    assert proxy.paths() == ["/a.jpg"]


def test_tls_goes_through_a_proxy_and_is_verified_at_its_end(proxy, authority, tmp_path):
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = tls_context(str(tmp_path / "ca.pem"))
    with tls_server(authority.issue_cert("localhost")) as url:
        assert asked_through_a_proxy(proxy, url, context) == 200
    with tls_server(authority.issue_cert("other.example")) as url:
        with pytest.raises(requests.exceptions.SSLError, match="Hostname mismatch"):
            asked_through_a_proxy(proxy, url, context)
    assert all(path.startswith("localhost:") for path in proxy.paths())
