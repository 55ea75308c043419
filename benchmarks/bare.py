"""The least that Python threads can do: urllib3, SHA-256 and a file, and nothing else. Prints the seconds."""

import hashlib
import queue
import sys
import threading
import time
from pathlib import Path

import urllib3


def main(list_file: str, folder: str, workers: str) -> None:
    links: queue.SimpleQueue[tuple[int, str] | None] = queue.SimpleQueue()
    for numbered in enumerate(Path(list_file).read_text().split()):
        links.put(numbered)
    pool = urllib3.PoolManager(maxsize=int(workers), block=True)

    def work() -> None:
        while numbered := links.get():
            number, link = numbered
            body = pool.request("GET", link).data
            hashlib.sha256(body).hexdigest()
            (Path(folder) / f"{number:06d}.jpg").write_bytes(body)

    threads = [threading.Thread(target=work) for _ in range(int(workers))]
    for _ in threads:
        links.put(None)
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main(*sys.argv[1:])
