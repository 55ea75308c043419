"""Refuses connections to addresses that are not public.

An address is judged where the socket is opened: the address that was judged is the one connected to,
so neither a redirect, nor a strange spelling, nor a name that resolves differently the second time
gets past. Names are resolved here only.
"""

import errno
import ipaddress
import socket
from collections.abc import Iterable

from imgdl_pipeline.core.http import deadline
from imgdl_pipeline.core.model.outcome import FetchError, Reason, ResourceError, UnreachableError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_IPV4_WITHIN = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "64:ff9b::/96",  # NAT64, RFC 6052
            "::ffff:0:0:0/96",  # IPv4-translated, RFC 2765
        ),
    )
)
"""Where the last four bytes are an IPv4 address that the packets go on to."""

_NOT_PUBLIC: tuple[Network, ...] = tuple(
    map(
        ipaddress.ip_network,
        (
            "168.63.129.16/32",  # Azure's platform services, in public space
            "192.0.0.0/24",  # IETF assignments, with a cloud's metadata among them
            "192.88.99.0/24",  # 6to4 relays, RFC 7526
            "64:ff9b:1::/48",  # local NAT64, RFC 8215: where its IPv4 address stands, only its owner knows
            "100::/64",  # discard, RFC 6666
            "3fff::/20",  # documentation, RFC 9637
            "5f00::/16",  # SRv6 SIDs, RFC 9602
        ),
    )
)
"""Beside what `is_global` knows, which depends on the version of Python."""
_IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")  # RFC 4291, 2.5.5.1: deprecated, still routed by some


FIRST_ADDRESSES_S = 5.0
"""The longest that an address is tried while the host has others."""


ANYWHERE = ("0.0.0.0/0", "::/0")
"""Allows every address: for what the galleries file or the environment names."""


class AddressGuard:
    """Opens connections, but only to public addresses and to those that are explicitly allowed.

    Args:
        allow_addresses: CIDRs of non-public addresses that may be connected to.
    """

    def __init__(self, allow_addresses: Iterable[str] = ()) -> None:
        self._allowed: tuple[Network, ...] = tuple(map(ipaddress.ip_network, allow_addresses))

    def check_address(self, text: str) -> None:
        """Let public and allowed addresses through.

        Raises:
            FetchError: `private_address`.
        """
        address = _embedded(ipaddress.ip_address(text.partition("%")[0]))
        if any(address.version == net.version and address in net for net in self._allowed):
            return
        if not _is_public(address):
            raise FetchError(
                Reason.PRIVATE_ADDRESS,
                f"{address} is not a public address, and allow_addresses does not list it",
            )

    def connect(self, host: str, port: int) -> socket.socket:
        """Resolve a host, judge every address it has, and connect to the first that answers.

        Raises:
            FetchError: `dns`, `private_address`, `timeout` or `connection`.
            Cancelled: The run is ending.
        """
        return _connect_to_first(host, port, self._judged(host, port))

    def check_host(self, host: str) -> None:
        """Judge a host that a proxy will connect to. A name that only the proxy knows is left to it.

        Raises:
            FetchError: `private_address` or `timeout`.
        """
        try:
            self._judged(host, 0)
        except FetchError as error:
            if error.reason is not Reason.DNS:
                raise

    def _judged(self, host: str, port: int) -> "_Found":
        """The addresses of a host, every one of them judged."""
        try:
            found = deadline.call_with_deadline(lambda: _resolve(host, port))
        except TimeoutError as error:
            raise FetchError(Reason.TIMEOUT, f"looking {host} up: {error}", retryable=True) from error
        for _, address in found:
            self.check_address(address[0])
        return found


_Found = list[tuple[socket.AddressFamily, tuple[str, int]]]


def _resolve(host: str, port: int) -> _Found:
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise FetchError(
            Reason.DNS,
            f"{host} has no address: {error.strerror}",
            retryable=error.errno == socket.EAI_AGAIN,
        ) from error
    except UnicodeError as error:  # a label of over 63 characters, for example
        raise FetchError(Reason.DNS, f"{host!r} cannot be a host's name: {error}") from error
    return [(family, address) for family, _, _, _, address in answers]  # type: ignore[misc]


def _connect_to_first(host: str, port: int, found: _Found) -> socket.socket:
    """Try each address in turn. All but the last get a part of the time only: a route may be broken."""
    failures = []
    whole = deadline.current()
    for place, (family, address) in enumerate(found, start=1):
        is_last = place == len(found)
        part = whole if is_last else whole.part(min(FIRST_ADDRESSES_S, whole.left() / 2))
        try:
            with deadline.deadline_scope(part):
                return deadline.connect(family, address)
        except TimeoutError as error:
            if is_last:
                raise UnreachableError(f"connecting to {host}: {error}", Reason.TIMEOUT) from error
            failures.append(f"{address[0]} port {port}: {error}")
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise ResourceError(f"no more connections can be opened: {error}") from error
            failures.append(f"{address[0]} port {port}: {error.strerror}")
    raise UnreachableError("; ".join(failures))


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 address leads to, where it is such a one; else itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped:
        return address.ipv4_mapped
    if address.sixtofour:
        return address.sixtofour
    is_compatible = address in _IPV4_COMPATIBLE and int(address) > 1
    if is_compatible or any(address in network for network in _IPV4_WITHIN):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address.is_site_local:
        return False
    if any(address.version == net.version and address in net for net in _NOT_PUBLIC):
        return False
    return address.is_global and not address.is_multicast
