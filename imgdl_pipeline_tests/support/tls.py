"""A web server that speaks TLS."""

import ssl

from imgdl_pipeline_tests.support.pictures import PICTURE
from imgdl_pipeline_tests.support.server import WebServer


class tls_server:  # noqa: N801 -- reads as a function at its call
    """A TLS server on loopback that answers every request with a picture."""

    def __init__(self, cert):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        cert.configure_cert(self.context)

    def __enter__(self):
        self.server = WebServer()
        self.server.serve("/a.jpg", PICTURE)
        self.server.socket = self.context.wrap_socket(
            self.server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.server.__enter__()
        return f"https://localhost:{self.server.server_port}/a.jpg"

    def __exit__(self, *exc):
        self.server.__exit__(*exc)
