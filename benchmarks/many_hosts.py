"""Lists as they really are: a few links to each of many hosts, over http and https.

Each host is a name and an address of loopback of its own. The names stand in a hosts file that only the
contestants see, in a mount namespace of their own, so nothing of the system is changed. TLS is nginx's, with
the certificate of a test authority for all names.
"""

import json
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import peers
import servers
from peers import Run

DOMAIN = "pictures.example"
COUNT = 4000
REQUEST_MS = 50


@dataclass(frozen=True)
class Place:
    """A list of links, and how a contestant gets at its hosts.

    Args:
        links: The list.
        hosts: The hosts file.
        authority: The certificate of the authority that all hosts' certificates are from.
    """

    links: Path
    hosts: Path
    authority: Path

    def timed(self, words: list[object], folder: Path, *, says_seconds: bool = False) -> Run:
        """Run a command that finds the hosts and trusts them; see `peers.timed`."""
        mount = 'mount --bind "$0" /etc/hosts && exec "$@"'
        inside = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, self.hosts]
        trust = {"SSL_CERT_FILE": str(self.authority), "REQUESTS_CA_BUNDLE": str(self.authority)}
        return peers.timed([*inside, *words], folder, says_seconds=says_seconds, **trust)


@contextmanager
def place(scheme: str, per_host: int, count: int = COUNT) -> Iterator[Place]:
    """So many links in random order to hosts that answer after 50 ms, each host with so many of them."""
    with tempfile.TemporaryDirectory() as name, servers.far(REQUEST_MS, 0, "0.0.0.0") as address:
        folder, port = Path(name), int(address.rpartition(":")[2])
        folder.chmod(0o755)  # nginx reads it under another name
        names = [f"h{number:04d}.{DOMAIN}" for number in range(-(-count // per_host))]
        hosts = folder / "hosts"
        places = enumerate(names, start=1)
        hosts.write_text(
            "127.0.0.1 localhost\n"
            + "".join(f"127.1.{number // 250}.{number % 250 + 1} {name}\n" for number, name in places)
        )
        _certificates(folder)
        with servers.tls(port, folder / "server.pem", folder) as tls_port:
            port = tls_port if scheme == "https" else port
            urls = [f"{scheme}://{names[n // per_host]}:{port}/{n:05d}.jpg\n" for n in range(count)]
            random.Random(1).shuffle(urls)
            (folder / "links.txt").write_text("".join(urls))
            yield Place(folder / "links.txt", hosts, folder / "ca.pem")


def _certificates(folder: Path) -> None:
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert(f"*.{DOMAIN}").private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")


def ours(where: Place, folder: Path, *, workers: int, robots_txt: bool, processes: int = 1) -> Run:
    words = [folder / "store", workers, 8, "yes" if robots_txt else "no", processes]
    command = [peers.python("ours"), peers.HERE / "ours.py", where.links, *words]
    return where.timed(command, folder, says_seconds=True)


def bare(where: Place, folder: Path, *, workers: int) -> Run:
    command = [peers.python("ours"), peers.HERE / "bare.py", where.links, folder, workers, "urllib3"]
    return where.timed(command, folder, says_seconds=True)


def curl(where: Place, folder: Path, *, workers: int) -> Run:
    return where.timed([*peers.curl_words(where.links, folder, workers), "--cacert", where.authority], folder)


def img2dataset(where: Place, folder: Path, *, workers: int) -> Run:
    """Its download alone, as the times of its shards tell; it asks for no robots.txt."""
    cores = os.cpu_count() or 1
    run = where.timed(
        peers.img2dataset_words(where.links, folder, workers // cores, shard=COUNT // 4), folder
    )
    peers.count_images(folder / "out", where.links)
    shards = [json.loads(each.read_text()) for each in (folder / "out").glob("*_stats.json")]
    seconds = max(each["end_time"] for each in shards) - min(each["start_time"] for each in shards)
    return Run(seconds, run.peak_mb, run.cpu_seconds)
