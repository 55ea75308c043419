"""The least that Python threads can do with a library: a request, SHA-256 and a file.

Prints the processor's seconds, and the seconds that it took.
"""

import hashlib
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import requests
import urllib3


def getter(library: str, workers: int) -> Callable[[str], bytes]:
    """What fetches a URL: urllib3's pool for all threads, or a session of requests for each."""
    if library == "urllib3":
        pool = urllib3.PoolManager(256, maxsize=workers, block=True, ca_certs=os.environ.get("SSL_CERT_FILE"))
        return lambda link: pool.request("GET", link).data
    sessions = threading.local()

    def get(link: str) -> bytes:
        if not hasattr(sessions, "own"):
            sessions.own = requests.Session()
        return sessions.own.get(link).content

    return get


def main(list_file: str, folder: str, workers: str, library: str) -> None:
    get = getter(library, int(workers))
    links: queue.SimpleQueue[tuple[int, str] | None] = queue.SimpleQueue()
    for numbered in enumerate(Path(list_file).read_text().split()):
        links.put(numbered)

    def work() -> None:
        while numbered := links.get():
            number, link = numbered
            body = get(link)
            hashlib.sha256(body).hexdigest()
            (Path(folder) / f"{number:06d}.jpg").write_bytes(body)

    threads = [threading.Thread(target=work) for _ in range(int(workers))]
    for _ in threads:
        links.put(None)
    started, before = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(time.process_time() - before, time.perf_counter() - started)


if __name__ == "__main__":
    main(*sys.argv[1:])
