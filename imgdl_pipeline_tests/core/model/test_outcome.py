import re

import pytest

from imgdl_pipeline.core.model import outcome
from imgdl_pipeline.core.model.outcome import FetchError, Reason, Status


def test_the_tree_in_the_docstring_names_every_status_and_reason():
    names = set(re.findall(r"[a-z_]{2,}", outcome.__doc__ or ""))
    assert {status.value for status in Status} <= names
    assert {reason.value for reason in Reason if reason is not Reason.HTTP} <= names
    assert "http_<status>" in (outcome.__doc__ or "")


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_belongs_to_a_status_that_is_not_ok(reason):
    assert reason.status in {Status.INVALID, Status.FAILED, Status.REFUSED}


def test_an_http_reason_carries_its_status_in_the_code():
    assert FetchError(Reason.HTTP, "gone", http_status=410).code == "http_410"


def test_any_other_reason_is_its_own_code():
    assert FetchError(Reason.DNS, "no such host").code == "dns"


def test_a_reason_is_found_by_its_code():
    assert Reason("timeout") is Reason.TIMEOUT  # type: ignore[call-arg]


def test_a_detail_is_short_and_printable_whatever_a_server_writes():
    detail = FetchError(Reason.HTTP, "\x1b[31mred\r\n" + "x" * 60_000, http_status=404).detail
    assert detail.startswith(" [31mred  xxx")
    assert len(detail) == 500
