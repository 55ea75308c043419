import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.http.address_guard import AddressGuard, _connect_to_first
from imgdl_pipeline.core.http.deadline import Deadline, deadline_scope
from imgdl_pipeline.core.http.spelling import spelled
from imgdl_pipeline.core.http.urls import host_of, without_userinfo
from imgdl_pipeline.core.model.outcome import FetchError, Reason
from imgdl_pipeline_tests.support.server import deaf_port

NOT_PUBLIC = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1"),
    *("169.254.169.254", "100.64.0.1", "224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255"),
    *("192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "ff02::1", "fec0::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1"),
    *("2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2001:db8::1", "2001::1"),
    *("168.63.129.16", "192.0.0.192", "192.88.99.1", "64:ff9b:1::a00:1", "::ffff:0:7f00:1"),
    *("3fff::1", "5f00::1", "100::1", "64:ff9b:1:a00:1:100:808:808", "64:ff9b:1::808:808"),
]
PUBLIC = ["8.8.8.8", "198.35.26.112", "2620:0:861:ed1a::2:b", "::ffff:8.8.8.8", "64:ff9b::808:808"]


def refusal(call, *args):
    with pytest.raises(FetchError) as caught:
        call(*args)
    return caught.value


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_an_address_that_is_not_public_is_refused(address):
    assert refusal(AddressGuard().check_address, address).reason is Reason.PRIVATE_ADDRESS


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_let_through(address):
    AddressGuard().check_address(address)


def test_an_allowed_address_is_let_through_and_its_neighbour_is_not():
    guard = AddressGuard(["10.1.2.0/24", "::1/128"])
    for allowed in ("10.1.2.3", "::ffff:10.1.2.3", "::1"):
        guard.check_address(allowed)
    assert refusal(guard.check_address, "10.1.3.1").reason is Reason.PRIVATE_ADDRESS


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_the_same_in_its_ipv6_clothes(address):
    def is_refused(text):
        try:
            AddressGuard().check_address(text)
        except FetchError:
            return True
        return False

    assert is_refused(str(address)) == is_refused(f"::ffff:{address}") == is_refused(f"64:ff9b::{address}")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost"]
)
def test_no_spelling_of_loopback_is_connected_to(host):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        port = listening.getsockname()[1]
        with deadline_scope(Deadline(5, threading.Event())):
            assert refusal(AddressGuard().connect, host, port).reason is Reason.PRIVATE_ADDRESS
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_a_name_without_an_address_is_dns():
    with deadline_scope(Deadline(20, threading.Event())):
        assert refusal(AddressGuard().connect, "no-such-host.invalid", 80).reason is Reason.DNS


def test_a_name_that_cannot_be_one_is_dns():
    with deadline_scope(Deadline(20, threading.Event())):
        assert refusal(AddressGuard().connect, "x" * 80 + ".org", 80).reason is Reason.DNS


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/hostname", "ftp://h.org/a.jpg", "data:image/jpeg;base64,xxxx", "javascript:1"),
        *("/a.jpg", "", "h.org/a.jpg", "http://", "http:///", "http://[::1", "http://h.org:port/"),
    ],
)
def test_only_http_and_https_links_with_a_host_pass(url):
    assert refusal(spelled, url).reason is Reason.SCHEME


@pytest.mark.parametrize("url", ["http://h.org/", "HTTPS://H.org:8443/a.jpg?x", "http://[::1]:80/"])
def test_http_and_https_links_pass(url):
    spelled(url)


@given(st.text())
def test_any_text_is_a_link_that_passes_or_a_refusal(text):
    try:
        spelled(text)
    except FetchError as error:
        assert error.reason is Reason.SCHEME


def test_userinfo_is_cut_from_a_url():
    assert without_userinfo("https://me:secret@h.org/a?x=y@z") == "https://h.org/a?x=y@z"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://Me:x@H.org:8443/a", "h.org:8443"),
        ("http://h.org/a", "h.org:80"),
        ("https://H.ORG.:443/", "h.org:443"),
        ("no link", ""),
        ("http://[broken", ""),
    ],
)
def test_a_host_is_the_same_however_it_is_spelled(url, host):
    assert host_of(url) == host


def test_a_password_is_not_in_the_detail_of_a_broken_url():
    assert "s3cret" not in refusal(spelled, "http://bob:s3cret@ex\u2100mple.com/").detail


def test_an_address_that_does_not_answer_leaves_time_for_the_next():
    with deaf_port() as port, socket.create_server(("127.0.0.1", 0)) as good:
        found = [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET, good.getsockname())]
        with deadline_scope(Deadline(2, threading.Event())):
            connected = _connect_to_first("h.org", 80, found)
            assert connected.getpeername() == good.getsockname()
            connected.close()


def resolving_to(monkeypatch, *answers):
    """A resolver that gives another list of addresses each time, as a hostile name server does."""
    given = iter(answers)

    def resolve(host, port, **_):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in next(given)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_a_name_with_a_public_and_a_private_address_is_refused_before_a_packet(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.setblocking(False)
        resolving_to(monkeypatch, ["8.8.8.8", "127.0.0.1"])
        with deadline_scope(Deadline(2, threading.Event())):
            error = refusal(AddressGuard().connect, "rebinding.example", inside.getsockname()[1])
        assert error.reason is Reason.PRIVATE_ADDRESS
        with pytest.raises(BlockingIOError):
            inside.accept()


def test_a_name_that_resolves_differently_the_second_time_is_connected_to_where_it_was_judged(monkeypatch):
    """There is no second time: the address that was judged is the one that is connected to."""
    with socket.create_server(("127.0.0.1", 0)) as outside, socket.create_server(("127.0.0.2", 0)) as inside:
        resolving_to(monkeypatch, ["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2"])
        with deadline_scope(Deadline(2, threading.Event())):
            port = outside.getsockname()[1]
            with AddressGuard(["127.0.0.1/32"]).connect("rebinding.example", port) as connected:
                assert connected.getpeername() == outside.getsockname()
            error = refusal(
                AddressGuard(["127.0.0.1/32"]).connect, "rebinding.example", inside.getsockname()[1]
            )
        assert error.reason is Reason.PRIVATE_ADDRESS


def test_a_look_up_that_may_succeed_later_is_passing(monkeypatch):
    def resolve(*_, **__):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with deadline_scope(Deadline(2, threading.Event())):
        error = refusal(AddressGuard().connect, "h.example", 80)
    assert (error.reason, error.retryable) == (Reason.DNS, True)


@pytest.mark.parametrize(
    "host",
    [
        "\uff11\uff12\uff17.0.0.1",
        "127\u30020\u30020\u30021",
        "\u2460\u2461\u2466.0.0.1",
        "2130706433",
        "0x7f.1",
        "127.1",
    ],
)
def test_an_address_in_odd_digits_is_judged_by_what_it_leads_to(host):
    with deadline_scope(Deadline(5, threading.Event())):
        assert refusal(AddressGuard().connect, host, 80).reason in (Reason.PRIVATE_ADDRESS, Reason.DNS)
