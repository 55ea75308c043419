"""The servers that everybody downloads from: nginx, which answers at once, and one that is far away."""

import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
PORT = 18970

NGINX = """\
daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err; worker_processes 1;
events {{ worker_connections 2048; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; default_type image/jpeg;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  server {{ listen 127.0.0.1:{port}; root {root}; location ~ ^/[0-9]+/(.*)$ {{ alias {root}/$1; }} }}
}}
"""
"""The same files lie below /0/, /1/ …, so that a list may be longer than the corpus."""


@contextmanager
def fast(root: Path, folder: Path) -> Iterator[str]:
    """A running nginx over the files below a root; gives its address."""
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, root=root, port=PORT))
    with _running(["nginx", "-c", str(config)]):
        address = f"http://127.0.0.1:{PORT}"
        _wait_for(f"{address}/0/small/00000.jpg")
        yield address


def _wait_for(url: str) -> None:
    for _ in range(100):
        try:
            urllib.request.urlopen(url).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    sys.exit(f"{url} does not answer")


TLS_PORT = PORT + 1
TLS_NGINX = """\
daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err; worker_processes 1;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000; proxy_buffers 4 32k; proxy_buffer_size 32k;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  upstream behind {{ server 127.0.0.1:{behind}; keepalive 512; }}
  server {{
    listen {port} ssl backlog=4096; ssl_certificate {certificate}; ssl_certificate_key {certificate};
    location / {{ proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


@contextmanager
def tls(behind: int, certificate: Path, folder: Path) -> Iterator[int]:
    """An nginx at every address of loopback that speaks TLS for a server behind it; gives its port.

    Args:
        behind: The other server's port.
        certificate: A file with the private key and the certificates.
        folder: Where nginx may keep its files.
    """
    config = folder / "tls.conf"
    config.write_text(TLS_NGINX.format(folder=folder, behind=behind, certificate=certificate, port=TLS_PORT))
    with _running(["nginx", "-c", str(config)]):
        for _ in range(100):
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", TLS_PORT)):
                    break
            time.sleep(0.05)
        else:
            sys.exit("nginx does not answer")
        yield TLS_PORT


@contextmanager
def far(request_ms: float, connection_ms: float, host: str = "127.0.0.1") -> Iterator[str]:
    """A server that waits before each answer, and longer on a new connection; gives its address."""
    waits = ["--request-ms", str(request_ms), "--connection-ms", str(connection_ms), "--host", host]
    command = [sys.executable, str(HERE / "slow_server.py"), *waits]
    with _running(command, stdout=subprocess.PIPE, text=True) as server:
        match = re.search(r"port (\d+)", server.stdout.readline())
        yield f"http://127.0.0.1:{match[1]}"


@contextmanager
def _running(command: list[str], **options: object) -> Iterator[subprocess.Popen]:
    with subprocess.Popen(command, **options) as server:
        try:
            yield server
        finally:
            server.terminate()
