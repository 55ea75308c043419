"""Refuse connections to addresses that are not public.

Addresses are checked where the socket is opened, so the checked address is the one that is connected to.
Redirects, unusual spellings and names that resolve differently the second time therefore cannot bypass
the check. Host names are resolved only here; an answer that is remembered is judged again each time.
"""

import errno
import ipaddress
import socket
from collections.abc import Iterable

from imgdl_pipeline.core.http import deadline
from imgdl_pipeline.core.http.lookups import Found, Resolver
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
"""Networks in which the last four bytes are the IPv4 address that packets are forwarded to."""

_NOT_PUBLIC: tuple[Network, ...] = tuple(
    map(
        ipaddress.ip_network,
        (
            "168.63.129.16/32",  # Azure's platform services, in public space
            "192.0.0.0/24",  # IETF assignments; includes the metadata service of one cloud
            "192.88.99.0/24",  # 6to4 relays, RFC 7526
            "64:ff9b:1::/48",  # local NAT64, RFC 8215: its operator chooses where the IPv4 address is
            "100::/64",  # discard, RFC 6666
            "3fff::/20",  # documentation, RFC 9637
            "5f00::/16",  # SRv6 SIDs, RFC 9602
        ),
    )
)
"""Non-public networks in addition to those that `is_global` knows, which vary with the Python version."""
_IPV4_COMPATIBLE = ipaddress.IPv6Network(
    "::/96"
)  # RFC 4291, 2.5.5.1: deprecated, but some networks still route it


FIRST_ADDRESSES_S = 5.0
"""Maximum seconds for connecting to one address while the host has further addresses to try."""


ANYWHERE = ("0.0.0.0/0", "::/0")
"""CIDRs that allow every address, for hosts that the galleries file or the environment names."""


class AddressGuard:
    """Opens connections only to public addresses and to explicitly allowed ones.

    Args:
        allow_addresses: CIDRs of non-public addresses to which connections are allowed.
    """

    def __init__(self, allow_addresses: Iterable[str] = ()) -> None:
        self._allowed: tuple[Network, ...] = tuple(map(ipaddress.ip_network, allow_addresses))
        self._resolver = Resolver()

    def check_address(self, text: str) -> None:
        """Check that an address is public or allowed.

        Raises:
            FetchError: `private_address` if it is neither.
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
        """Resolve a host, check all of its addresses, and connect to the first one that answers.

        Raises:
            FetchError: `dns`, `private_address`, `timeout` or `connection`.
            Cancelled: The run is ending.
        """
        try:
            return _connect_to_first(host, port, self._judged(host, port))
        except UnreachableError:
            self._resolver.forget(host)
            raise

    def check_host(self, host: str) -> None:
        """Check a host that a proxy will connect to. Accept a name that only the proxy can resolve.

        Raises:
            FetchError: `private_address` or `timeout`.
        """
        try:
            self._judged(host, 0)
        except FetchError as error:
            if error.reason is not Reason.DNS:
                raise

    def _judged(self, host: str, port: int) -> Found:
        """Return the addresses of a host after checking each of them."""
        try:
            found = self._resolver.find(host, port)
        except TimeoutError as error:
            raise FetchError(Reason.TIMEOUT, f"looking {host} up: {error}", retryable=True) from error
        for _, address in found:
            self.check_address(address[0])
        return found


def _connect_to_first(host: str, port: int, found: Found) -> socket.socket:
    """Try each address in turn. Limit the time for all but the last, because a route may be broken."""
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
    """Return the IPv4 address that is embedded in an IPv6 address, or the address itself if there is none."""
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
