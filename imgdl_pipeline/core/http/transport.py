"""requests, made to connect through the guard, within the deadline, and with one shared TLS context.

Nothing here knows what is fetched. The images, the robots.txt files, the APIs and the link lists
all go through a `Session` made by `new_session`.
"""

import functools
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import certifi
import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.ssl_ import create_urllib3_context

from imgdl_pipeline.core.http.address_guard import ANYWHERE, AddressGuard
from imgdl_pipeline.core.http.deadline import DeadlineSSLSocket, current
from imgdl_pipeline.core.http.response import StrictResponse
from imgdl_pipeline.core.model.outcome import FetchError, Reason
from imgdl_pipeline.core.model.settings import DownloadSettings


@functools.cache
def tls_context(ca_bundle: str | None = None) -> ssl.SSLContext:
    """The context of every TLS connection: certificates and host names are verified.

    One for all, because loading the certificates costs some 30 ms, and requests would do it again for
    every new connection.

    Args:
        ca_bundle: A file or a folder of trusted certificates; None takes REQUESTS_CA_BUNDLE, or certifi's.
    """
    context = create_urllib3_context()
    context.sslsocket_class = DeadlineSSLSocket
    trusted = ca_bundle or os.environ.get("REQUESTS_CA_BUNDLE") or certifi.where()
    kind = "capath" if Path(trusted).is_dir() else "cafile"
    context.load_verify_locations(**{kind: trusted})
    return context


KEPT_HOSTS = 8
"""Hosts to which a session keeps a connection open: each is a file descriptor, in every worker."""


class GuardedAdapter(HTTPAdapter):
    """Sends requests over connections that the guard opens.

    Args:
        guard: Judges every address.
        context: For TLS; None takes the shared one.
    """

    def __init__(self, guard: AddressGuard, context: ssl.SSLContext | None) -> None:
        self._guard = guard
        self._context = context
        super().__init__(pool_connections=KEPT_HOSTS, pool_maxsize=1)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pool manager whose connections are guarded."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _guarded_pools(self._guard)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """Connect to a proxy wherever it is: its address is the environment's, not a stranger's.

        Raises:
            FetchError: It is none that speaks HTTP.
        """
        if proxy in self.proxy_manager:
            return self.proxy_manager[proxy]
        scheme = proxy.partition(":")[0].lower()
        if scheme not in ("http", "https"):
            raise FetchError(
                Reason.CONNECTION, f"the environment names a proxy that speaks {scheme}, not HTTP"
            )
        if scheme == "https":  # urllib3's own context would make sockets without our deadlines
            proxy_kwargs["proxy_ssl_context"] = self._context or tls_context()
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        manager.pool_classes_by_scheme = _guarded_pools(AddressGuard(ANYWHERE))
        return manager

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """Judge what a proxy is going to connect to; without one, the connection is judged itself."""
        if not proxies:  # requests would look for one all the same, three times for each request
            host, tls = self.build_connection_pool_key_attributes(request, verify, cert)
            return self.poolmanager.connection_from_host(**host, pool_kwargs=tls)
        url = str(request.url)
        if select_proxy(url, proxies):
            self._guard.check_host(urlsplit(url).hostname or "")
        return super().get_connection_with_tls_context(request, verify, proxies, cert)

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        """What the request line names: a path, or the whole URL where a proxy is asked."""
        return super().request_url(request, proxies) if proxies else request.path_url

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: bool | str, cert: Any = None
    ) -> tuple[Any, Any]:
        """Name the shared context instead of the files it was loaded from."""
        host, tls = super().build_connection_pool_key_attributes(request, verify, cert)
        if host["scheme"] == "https":
            return host, {"ssl_context": self._context or tls_context()}
        return host, tls

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Leave the connection as it is: urllib3 reloads the files whenever their names are set."""

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        """Make the response without what nobody asks for: its cookies, and a guess at its encoding."""
        response = requests.Response()
        response.status_code, response.reason = resp.status, resp.reason
        response.headers = resp.headers
        response.raw = resp
        response.url = req.url or ""
        response.request = req
        return response


def _guarded_pools(guard: AddressGuard) -> dict[str, Any]:
    """Connection pools by scheme whose new connections come from the guard."""

    class GuardedHTTPConnection(HTTPConnection):
        response_class = StrictResponse

        def _new_conn(self) -> Any:
            return guard.connect(self.host, self.port or 80)

    class GuardedHTTPSConnection(HTTPSConnection):
        response_class = StrictResponse

        def _new_conn(self) -> Any:
            return guard.connect(self.host, self.port or 443)

    class GuardedHTTPPool(HTTPConnectionPool):
        ConnectionCls = GuardedHTTPConnection

    class GuardedHTTPSPool(HTTPSConnectionPool):
        ConnectionCls = GuardedHTTPSConnection

    return {"http": GuardedHTTPPool, "https": GuardedHTTPSPool}


def new_session(
    guard: AddressGuard, settings: DownloadSettings, context: ssl.SSLContext | None = None
) -> requests.Session:
    """A session for one thread.

    Args:
        guard: Judges every address.
        settings: The User-Agent, and whether the environment's proxies are used.
        context: For TLS; None takes the shared one.
    """
    session = requests.Session()
    session.trust_env = settings.environment_proxies
    adapter = GuardedAdapter(guard, context)
    session.adapters.clear()
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.headers = requests.structures.CaseInsensitiveDict(
        {"User-Agent": settings.user_agent_header, "Accept-Encoding": "identity", "Accept": "*/*"}
    )
    return session


def prepared(url: str) -> requests.PreparedRequest:
    """A request whose `url` is spelled as it will be sent.

    That spelling is to be judged, and no other: parsers of URLs disagree about backslashes and dots, and the
    host that is connected to is this one's.

    Raises:
        requests.RequestException: It is no URL.
    """
    request = requests.PreparedRequest()
    request.prepare_method("GET")
    request.prepare_url(url, None)
    return request


def get(session: requests.Session, url: str, headers: Mapping[str, str] | None = None) -> requests.Response:
    """Ask for a URL; see `send`."""
    return send(session, prepared(url), headers)


def send(
    session: requests.Session, request: requests.PreparedRequest, headers: Mapping[str, str] | None = None
) -> requests.Response:
    """Send a request and return once the headers are there; the body is read from `raw`.

    The request goes straight to the adapter. So no cookie is kept, no redirect is followed (requests
    would read the whole body of one, however long), no password is taken from the environment, and a third
    of the time that requests spends on a small image is saved.

    Raises:
        FetchError: The guard's.
        requests.RequestException, urllib3.exceptions.HTTPError, OSError: Anything else went wrong.
    """
    request.prepare_headers({**session.headers, **(headers or {})})
    url = str(request.url)
    if "@" in url:
        request.prepare_auth(None)
    proxies = get_environ_proxies(url) if session.trust_env else None
    return session.get_adapter(url).send(request, stream=True, timeout=current().left(), proxies=proxies)


def redirect_target(response: requests.Response) -> str | None:
    """Where a redirect leads, spelled as it would be sent; None for an answer that is none.

    Raises:
        FetchError: `scheme`: its Location is no URL.
    """
    if not response.is_redirect:
        return None
    location = header_text(response.headers["Location"])
    try:
        return str(prepared(urljoin(response.url, location)).url)
    except (ValueError, requests.RequestException) as error:
        raise FetchError(Reason.SCHEME, "redirected to what is no valid URL") from error


def header_text(value: str) -> str:
    """A header's value as text: servers send UTF-8 where Latin-1 is the rule."""
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


@dataclass(frozen=True, slots=True)
class Validators:
    """What the server gave with an earlier answer, to ask for the bytes only if they have changed."""

    etag: str | None = None
    last_modified: str | None = None

    def headers(self) -> dict[str, str]:
        """The request headers (RFC 9110, 13.1), none where there is nothing to compare with."""
        given = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in given.items() if value and value.isascii()}

    @staticmethod
    def of(response_headers: Mapping[str, str]) -> "Validators":
        """Those that an answer came with."""
        return Validators(response_headers.get("ETag"), response_headers.get("Last-Modified"))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a Retry-After header asks for, given as a number or a date (RFC 9110, 10.2.3)."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=timezone.utc)
    return max(0.0, (at - datetime.now(timezone.utc)).total_seconds())
