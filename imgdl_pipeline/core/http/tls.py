"""Make the TLS contexts that all connections share."""

import functools
import os
import ssl
from pathlib import Path

import certifi
from urllib3.util.ssl_ import create_urllib3_context

from imgdl_pipeline.core.http.deadline import DeadlineSSLSocket


@functools.cache
def tls_context(ca_bundle: str | None = None) -> ssl.SSLContext:
    """Return the shared TLS context, which verifies certificates and host names.

    The context is shared because loading the certificates takes some 30 ms, and requests would load them
    again for every new connection.

    Args:
        ca_bundle: A file or a folder of trusted certificates; None uses REQUESTS_CA_BUNDLE, or certifi's.
    """
    context = create_urllib3_context()
    context.sslsocket_class = DeadlineSSLSocket
    trusted = ca_bundle or os.environ.get("REQUESTS_CA_BUNDLE") or certifi.where()
    kind = "capath" if Path(trusted).is_dir() else "cafile"
    context.load_verify_locations(**{kind: trusted})
    return context
