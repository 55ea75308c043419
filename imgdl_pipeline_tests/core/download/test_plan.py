import pyarrow as pa

from imgdl_pipeline.core.download.host_queue import TURN_ITEMS
from imgdl_pipeline.core.download.plan import interleaved, large_hosts, plan
from imgdl_pipeline.core.model.links import Link, links_table
from imgdl_pipeline.core.storage.ledger import download_table
from imgdl_pipeline_tests.support.rows import NOW, row


def test_a_ledger_of_many_links_is_planned_column_by_column(loopback):
    """A row object for each known link would cost a gigabyte for a million of them."""
    urls = [f"https://h.org/{number}.jpg" for number in range(50_000)]
    ledger = download_table([row(url, path=url, bytes=7) for url in urls[:-5]])
    links = links_table([Link(url) for url in urls], NOW)
    stored = pa.table({"path": urls[:-10], "bytes": [6, *[7] * (len(urls) - 11)]})
    todo = plan(links, ledger, stored, loopback, NOW)
    assert todo["url"].to_pylist() == [urls[0], *urls[-10:]]


def test_hosts_take_turns_in_a_list_that_is_sorted_by_host():
    urls = [f"https://{host}.org/{number}" for host in "abc" for number in range(3)]
    table = pa.table({"url": urls})
    assert [url[8] for url in interleaved(table)["url"].to_pylist()] == list("abcabcabc")
    assert interleaved(table.slice(0, 0)).num_rows == 0
    assert interleaved(pa.table({"url": ["no link", "x\ny", ""]})).num_rows == 3


def test_so_many_hosts_take_turns_at_a_time_and_none_takes_more_than_its_turn():
    urls = [f"https://{host}.org/{number}" for host in "abcd" for number in range(2)]
    urls += [f"https://e.org/{number}" for number in range(TURN_ITEMS + 2)]
    hosts = [url[8] for url in interleaved(pa.table({"url": urls}), 2)["url"].to_pylist()]
    assert "".join(hosts) == "abab" + "cdcd" + "e" * (TURN_ITEMS + 2)
    urls += [f"https://f.org/{number}" for number in range(TURN_ITEMS + 1)]
    hosts = [url[8] for url in interleaved(pa.table({"url": urls}), 1)["url"].to_pylist()]
    assert "".join(hosts) == "aabbccdd" + "e" * TURN_ITEMS + "f" * TURN_ITEMS + "eef"


def test_only_hosts_with_many_links_to_fetch_are_shared_with_other_runs():
    urls = [
        f"https://{host}.org/{number}" for host, links in (("a", 99), ("b", 100)) for number in range(links)
    ]
    assert large_hosts(pa.table({"url": urls})) == ["b.org:443"]
    many = [f"https://h{host}.org/{number}" for host in range(40) for number in range(100)]
    assert len(large_hosts(pa.table({"url": many}))) == 32
    assert large_hosts(pa.table({"url": urls}), ["a.org:443", "b.org:443", "other.org:443"]) == [
        "b.org:443",
        "a.org:443",
    ]
