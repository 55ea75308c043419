"""Scrapy's images pipeline over a list of links, with its own defaults."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import scrapy
from scrapy.crawler import CrawlerProcess


class Links(scrapy.Spider):
    name = "links"
    start_urls = ("data:,",)
    links: tuple[str, ...] = ()

    def parse(self, response: Any) -> Iterator[dict[str, list[str]]]:
        for link in self.links:
            yield {"image_urls": [link]}


def main(list_file: str, folder: str) -> None:
    settings = {
        "ITEM_PIPELINES": {"scrapy.pipelines.images.ImagesPipeline": 1},
        "IMAGES_STORE": folder,
        "LOG_LEVEL": "ERROR",
        "TELNETCONSOLE_ENABLED": False,
    }
    process = CrawlerProcess(settings)
    process.crawl(Links, links=tuple(Path(list_file).read_text().split()))
    process.start()


if __name__ == "__main__":
    main(*sys.argv[1:])
