from collections import Counter

import pyarrow as pa
import pytest

from imgdl_pipeline.core.download import shares
from imgdl_pipeline.core.download.shares import LINKS_PER_PROCESS, HostShares
from imgdl_pipeline.core.http.urls import host_of


def todo(links):
    """A plan with so many links of each host, in turn."""
    most = max(links.values())
    return pa.table(
        {"url": [f"http://{host}/{n}.jpg" for n in range(most) for host in links if n < links[host]]}
    )


def test_each_host_is_in_one_part_and_the_parts_have_about_the_same_number_of_links():
    plan = todo({"a": 100, "b": 60, "c": 50, "d": 40, "e": 30})
    parts = [table["url"].to_pylist() for table in HostShares.of(plan, 3).tables(plan)]
    assert sorted(url for part in parts for url in part) == sorted(plan["url"].to_pylist())
    hosts = [{host_of(url) for url in part} for part in parts]
    assert sum(map(len, hosts)) == 5
    assert [len(part) for part in parts] == [100, 90, 90]


def test_the_links_of_a_part_keep_their_order():
    plan = todo({"a": 100, "b": 100, "c": 100})
    for table in HostShares.of(plan, 2).tables(plan):
        places = [plan["url"].to_pylist().index(url) for url in table["url"].to_pylist()]
        assert places == sorted(places)


@pytest.mark.parametrize(
    ("links", "processes"),
    [
        ({"a": 1000}, 1),
        ({"a": 1000, "b": 1}, 2),
        ({"a": LINKS_PER_PROCESS, "b": LINKS_PER_PROCESS - 1}, 1),
        (dict.fromkeys("abcdef", LINKS_PER_PROCESS), 4),
    ],
)
def test_there_are_no_more_processes_than_hosts_and_links_for_them(links, processes):
    assert HostShares.of(todo(links), 4).processes == processes


def test_without_links_there_is_one_process():
    plan = pa.table({"url": pa.array([], pa.string())})
    assert HostShares.of(plan, 4).tables(plan) == [plan]


def test_all_ports_of_a_host_and_all_spellings_of_its_name_belong_to_one_process():
    plan = todo({f"h{number}.org": 20 for number in range(20)})
    plan = pa.concat_tables([plan, pa.table({"url": ["https://H3.org:8443/a.jpg", "no link"]})])
    found = HostShares.of(plan, 4)
    assert (
        len({found.owner(host_of(f"{origin}/")) for origin in ("http://h3.org", "https://H3.org:8443")}) == 1
    )
    assert sum(table.num_rows for table in found.tables(plan)) == plan.num_rows


def test_hosts_beyond_those_that_are_dealt_are_spread_by_a_checksum(monkeypatch):
    monkeypatch.setattr(shares, "DEALT_HOSTS", 2)
    plan = todo({"large.org": 300, "second.org": 200, **{f"h{number}.org": 1 for number in range(400)}})
    found = HostShares.of(plan, 2)
    assert set(found.dealt) == {"large.org", "second.org"}
    sizes = [table.num_rows for table in found.tables(plan)]
    assert max(sizes) - min(sizes) < 120
    unknown = Counter(found.owner(f"cdn{number}.net:443") for number in range(1000))
    assert min(unknown.values()) > 400
