"""Make requests connect through the address guard, within the deadline, and with one shared TLS context.

This module does not depend on what is fetched. Images, robots.txt files, APIs and link lists are all fetched
with a `Session` from `new_session`.
"""

import http.client
import ssl
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from imgdl_pipeline.core.http.address_guard import ANYWHERE, AddressGuard
from imgdl_pipeline.core.http.connections import (
    Connections,
    GuardedHTTPConnection,
    GuardedHTTPSConnection,
    Origin,
)
from imgdl_pipeline.core.http.deadline import current
from imgdl_pipeline.core.http.pace import Paces, Turn
from imgdl_pipeline.core.http.spelling import escaped_bytes, request_target, spelled
from imgdl_pipeline.core.http.tls import tls_context
from imgdl_pipeline.core.http.urls import host_of_spelled
from imgdl_pipeline.core.model.outcome import FetchError, Reason
from imgdl_pipeline.core.model.settings import DownloadSettings

KEPT_PROXIED_HOSTS = 8
"""Hosts to which a session keeps a connection open through a proxy."""


class GuardedAdapter(HTTPAdapter):
    """Sends requests over connections that the address guard opens.

    A request through one of the environment's proxies is sent by requests and urllib3. Every other one goes
    straight to a connection, which saves a third of the time that a small image costs.

    Args:
        guard: Checks every address.
        connections: The connections, which several adapters may share; None for some of its own.
        context: The TLS context; None uses the shared one.
        paces: How fast each host is asked; None for no limit.
    """

    def __init__(
        self,
        guard: AddressGuard,
        connections: Connections | None = None,
        context: ssl.SSLContext | None = None,
        paces: Paces | None = None,
    ) -> None:
        self._guard = guard
        self._connections = connections or Connections(guard, context)
        self._is_owner = connections is None
        self._context = context
        self._paces = paces
        super().__init__(pool_connections=KEPT_PROXIED_HOSTS, pool_maxsize=1)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create a pool manager that opens no connection: no request without a proxy goes past the guard."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {}

    def close(self) -> None:
        """Close the connections that are kept open, unless they are shared."""
        super().close()
        if self._is_owner:
            self._connections.close()

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request when its host's pace allows it.

        Raises:
            TooSoon: That would be a long wait.
        """
        url = str(request.url)
        turn = None if self._paces is None else self._paces.turn(host_of_spelled(url))
        if turn is not None:
            turn.check()
        if not select_proxy(url, kwargs.get("proxies")):
            return self._send_directly(request, turn)
        token = _turn.set(turn)
        try:
            return super().send(request, *args, **kwargs)
        finally:
            _turn.reset(token)

    def _send_directly(self, request: requests.PreparedRequest, turn: Turn | None) -> requests.Response:
        """Send a request without a proxy; raise the same errors as requests."""
        url = str(request.url)
        headers: Any = request.headers.items()
        try:
            answer = self._connections.get(Origin.of(url), request_target(url), headers, turn)
        except TimeoutError as error:
            raise requests.ReadTimeout(error, request=request) from error
        except ssl.SSLError as error:
            raise requests.exceptions.SSLError(error, request=request) from error
        except (http.client.HTTPException, OSError) as error:
            raise requests.ConnectionError(error, request=request) from error
        return self.build_response(request, answer)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """Return the manager of a proxy. Any address is allowed, because the environment names the proxy.

        Raises:
            FetchError: The proxy's scheme is neither http nor https.
        """
        if proxy in self.proxy_manager:
            return self.proxy_manager[proxy]
        scheme = proxy.partition(":")[0].lower()
        if scheme not in ("http", "https"):
            raise FetchError(
                Reason.CONNECTION, f"the environment names a proxy that speaks {scheme}, not HTTP"
            )
        if scheme == "https":  # urllib3's own context would create sockets that ignore the deadline
            proxy_kwargs["proxy_ssl_context"] = self._context or tls_context()
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        manager.pool_classes_by_scheme = {"http": _ProxiedHTTPPool, "https": _ProxiedHTTPSPool}
        return manager

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """Check the host that a proxy will connect to, and return the proxy's connections."""
        self._guard.check_host(urlsplit(str(request.url)).hostname or "")
        return super().get_connection_with_tls_context(request, verify, proxies, cert)

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:  # noqa: ARG002
        """Return the target of the request line: the whole URL for a proxy, or path and query within TLS."""
        url = str(request.url)
        return request_target(url, absolute=url.startswith("http:"))

    def add_headers(self, request: requests.PreparedRequest, **kwargs: Any) -> None:
        """Hand the target to the connection past urllib3, which would spell it anew."""
        request.headers[_TARGET] = self.request_url(request, kwargs["proxies"])

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: bool | str, cert: Any = None
    ) -> tuple[Any, Any]:
        """Return the connection pool's key, with the shared context in place of the certificate files."""
        host, tls = super().build_connection_pool_key_attributes(request, verify, cert)
        if host["scheme"] == "https":
            return host, {"ssl_context": self._context or tls_context()}
        return host, tls

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Do nothing: urllib3 would reload the certificate files whenever their names are set."""

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:
        """Create the response without the unused parts: its cookies, and a guess at its encoding."""
        response = requests.Response()
        response.status_code, response.reason = resp.status, resp.reason
        response.headers = resp.headers
        response.raw = resp
        response.url = req.url or ""
        response.request = req
        return response


_turn: ContextVar[Turn | None] = ContextVar("imgdl_pipeline_turn", default=None)


def _take_turn(connection: HTTPConnection) -> None:
    """Take the turn of this thread's request once its connection is open, so that it is sent at once."""
    turn = _turn.get()
    if turn is None:
        return
    if connection.sock is None:
        connection.connect()
    wait = turn.take()
    if wait > 0:
        time.sleep(wait)


_TARGET = ":target"
"""Key of the target among a request's headers.

No header can have such a name: requests accepts none in a link's headers, and if a connection did not take
this one out, http.client would raise a ValueError instead of sending it.
"""


def _with_target(url: str, headers: Mapping[str, str] | None) -> tuple[str, dict[str, str]]:
    """Return the target that the adapter set, or else `url`, and the headers without it."""
    others = dict(headers or {})
    return others.pop(_TARGET, url), others


_ANYWHERE = AddressGuard(ANYWHERE)
"""For proxies, which the environment names."""


class _Proxied(HTTPConnection):
    """A connection to a proxy, or through it, to which urllib3's pools hand requests."""

    guard = _ANYWHERE

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **kwargs: Any) -> None:
        target, others = _with_target(url, headers)
        super().request(method, target, body, others, **kwargs)

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        _take_turn(self)
        super().endheaders(*args, **kwargs)


class _ProxiedHTTPConnection(_Proxied, GuardedHTTPConnection):
    pass


class _ProxiedHTTPSConnection(_Proxied, GuardedHTTPSConnection):
    pass


class _ProxiedHTTPPool(HTTPConnectionPool):
    ConnectionCls = _ProxiedHTTPConnection


class _ProxiedHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _ProxiedHTTPSConnection


def new_session(
    guard: AddressGuard,
    settings: DownloadSettings,
    context: ssl.SSLContext | None = None,
    paces: Paces | None = None,
    connections: Connections | None = None,
) -> requests.Session:
    """Return a new session for one thread.

    Args:
        guard: Checks every address.
        settings: The User-Agent, and whether the environment's proxies are used.
        context: The TLS context; None uses the shared one.
        paces: How fast each host is asked; None for no limit.
        connections: The connections, to be closed by the caller; None for some of its own.
    """
    session = requests.Session()
    session.trust_env = settings.environment_proxies
    adapter = GuardedAdapter(guard, connections, context, paces)
    session.adapters.clear()
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.headers = requests.structures.CaseInsensitiveDict(
        {"User-Agent": settings.user_agent_header, "Accept-Encoding": "identity", "Accept": "*/*"}
    )
    return session


def prepared(url: str) -> requests.PreparedRequest:
    """Return a GET request whose `url` is spelled as it will be sent.

    All checks must use this spelling: URL parsers disagree about backslashes and dots, and the connection
    goes to the host of this spelling.

    Raises:
        FetchError: `scheme` if it is not an http or https URL with a valid host.
    """
    request = requests.PreparedRequest()
    request.prepare_method("GET")
    request.url = spelled(url)
    return request


def get(session: requests.Session, url: str, headers: Mapping[str, str] | None = None) -> requests.Response:
    """Request a URL; see `send`."""
    return send(session, prepared(url), headers)


def send(
    session: requests.Session, request: requests.PreparedRequest, headers: Mapping[str, str] | None = None
) -> requests.Response:
    """Send a request and return when the headers have arrived; read the body from `raw`.

    The request goes directly to the adapter. So no cookie is stored, no redirect is followed (requests
    would read its whole body, of any length), no password is taken from the environment, and a third
    of the time that requests spends on a small image is saved.

    Raises:
        FetchError: The guard refused the address or could not connect.
        requests.RequestException, urllib3.exceptions.HTTPError, OSError: The request failed otherwise.
    """
    url = str(request.url)
    proxies = get_environ_proxies(url) if session.trust_env else None
    if headers or proxies or "@" in url:
        request.prepare_headers({**session.headers, **(headers or {})})
    else:
        headers_of_all: Any = session.headers  # which need not be checked every time
        request.headers = headers_of_all
    if "@" in url:
        request.prepare_auth(None)
    return session.get_adapter(url).send(request, stream=True, timeout=current().left(), proxies=proxies)


def redirect_target(response: requests.Response) -> str | None:
    """Return a redirect's target, spelled as it would be sent, or None if the response is not a redirect.

    Raises:
        FetchError: `scheme` if the Location header is not a URL.
    """
    if not response.is_redirect:
        return None
    return spelled(escaped_bytes(_location(response)), response.url)


def _location(response: requests.Response) -> str:
    """Return the Location; if there are several, they are joined by commas and must be the same."""
    given: list[str] = response.raw.headers.getlist("Location")
    return given[0] if len(set(given)) == 1 else str(response.headers["Location"])


def header_text(value: str) -> str:
    """Return a header's value as text. Decode UTF-8, which servers send although Latin-1 is the rule."""
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


@dataclass(frozen=True, slots=True)
class Validators:
    """The validators of an earlier response, for requesting the bytes only if they have changed."""

    etag: str | None = None
    last_modified: str | None = None

    def headers(self) -> dict[str, str]:
        """Return the conditional request headers (RFC 9110, 13.1); empty without usable validators."""
        given = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in given.items() if value and value.isascii()}

    @staticmethod
    def of(response_headers: Mapping[str, str]) -> "Validators":
        """Return the validators in a response's headers."""
        return Validators(response_headers.get("ETag"), response_headers.get("Last-Modified"))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a Retry-After header gives, as a number or a date (RFC 9110, 10.2.3)."""
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
