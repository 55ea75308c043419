"""The textbook's design, as it is usually written: a Queue, eight threads, urllib, and nothing else.

It has no timeout, no reuse of connections and no room for an exception. Prints the seconds it took.
"""

import sys
import time
import urllib.request
from pathlib import Path
from queue import Queue
from threading import Thread


class DownloadWorker(Thread):
    def __init__(self, queue: Queue, folder: Path) -> None:
        super().__init__(daemon=True)
        self.queue = queue
        self.folder = folder

    def run(self) -> None:
        while True:
            link = self.queue.get()
            try:
                with urllib.request.urlopen(link) as answer:
                    (self.folder / Path(link).name).write_bytes(answer.read())
            finally:
                self.queue.task_done()


def main(list_file: str, folder: str, workers: str) -> None:
    links = Path(list_file).read_text().split()
    started = time.perf_counter()
    queue: Queue = Queue()
    for _ in range(int(workers)):
        DownloadWorker(queue, Path(folder)).start()
    for link in links:
        queue.put(link)
    queue.join()
    print(time.perf_counter() - started)


if __name__ == "__main__":
    main(*sys.argv[1:])
