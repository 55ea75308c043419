"""Judge stored images again by what their owners said, without a request."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.model.opt_outs import (
    ROBOTS,
    OptOut,
    forbidden_for,
    from_json,
    limited,
    renewed,
    to_json,
)
from imgdl_pipeline.core.model.outcome import Reason, Status
from imgdl_pipeline.core.model.schemas import DOWNLOADS
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.storage.ledger import Ledger
from imgdl_pipeline.core.storage.removed import REMOVED_VERDICT, Removed
from imgdl_pipeline.core.storage.store import Store

NOTHING = "[]"


def forbidding(opt_outs: Iterable[OptOut], settings: DownloadSettings) -> OptOut | None:
    """Return the opt-out that refuses an image, or None if it may be kept."""
    return forbidden_for(settings.purpose.value, opt_outs) if settings.opt_out_headers else None


def is_lifted(reason: pa.ChunkedArray, opt_outs: pa.ChunkedArray, settings: DownloadSettings) -> pa.Array:
    """Return for each row whether it was refused for an opt-out, and nothing forbids it any more.

    Rows of versions that did not record opt-outs count as forbidden, unless opt-outs are not heeded at all.
    """
    is_opt_out = pc.fill_null(pc.equal(reason, Reason.OPT_OUT.value), fill_value=False)
    if not settings.opt_out_headers:
        return is_opt_out
    texts = pc.unique(opt_outs.filter(is_opt_out).drop_null())
    free = [text for text in texts.to_pylist() if not forbidding(from_json(text), settings)]
    is_free = pc.is_in(opt_outs, value_set=pa.array(free, pa.string()))
    return pc.and_(is_opt_out, pc.and_(is_free, pc.not_equal(pc.fill_null(opt_outs, NOTHING), NOTHING)))


def discard_opted_out(
    ledger: Ledger,
    store: Store,
    settings: DownloadSettings,
    in_files: Mapping[str, list[OptOut]] | None = None,
) -> int:
    """Refuse stored images that their owners' opt-outs forbid for the gallery's purpose, and delete them.

    Args:
        ledger: The ledger; what is said in files is added to its rows.
        store: The store of the gallery's files.
        settings: The settings, with the purpose.
        in_files: The opt-outs in files, by link.

    Returns:
        How many images were deleted.

    Raises:
        StoreError: The store failed.
    """
    in_files = in_files or {}
    table = ledger.select(["url", "status", "opt_outs"])
    has_any = pc.fill_null(pc.not_equal(table["opt_outs"], NOTHING), fill_value=False)
    is_in_file = pc.is_in(table["url"], value_set=pa.array(list(in_files), pa.string()))
    is_ok = pc.equal(table["status"], Status.OK.value)
    has_said = pc.and_(is_ok, pc.or_(has_any, is_in_file)).to_numpy()
    if not has_said.any():
        return 0
    changed, paths, start = [DOWNLOADS.empty_table()], [], 0
    for batch in ledger.batches():
        rows = batch.filter(pa.array(has_said[start : start + batch.num_rows])).to_pylist()
        start += batch.num_rows
        new = [_judged(row, in_files.get(row["url"], []), settings) for row in rows]
        paths += [row["path"] for row, now in zip(rows, new, strict=True) if now and now["path"] is None]
        changed.append(pa.Table.from_pylist([row for row in new if row], schema=DOWNLOADS))
    table = pa.concat_tables(changed)
    if table.num_rows:
        ledger.replace(table)
        store.delete(paths)
    return len(paths)


def _judged(row: dict[str, Any], in_file: list[OptOut], settings: DownloadSettings) -> dict[str, Any] | None:
    """Return the row of a stored image as it is to be, or None if it stays."""
    said = limited([*from_json(row["opt_outs"]), *in_file])
    refused = forbidding(said, settings)
    if refused is not None:
        return {**row, **_refusal(refused, settings), "opt_outs": to_json(said)}
    return {**row, "opt_outs": to_json(said)} if to_json(said) != (row["opt_outs"] or NOTHING) else None


def discard_removed(ledger: Ledger, store: Store, removed: Removed) -> None:
    """Refuse stored images that were removed for good, and delete them; their rows keep nothing of them.

    Args:
        ledger: The ledger.
        store: The store of the gallery's files.
        removed: The list of what was removed.

    Raises:
        StoreError: The store failed.
    """
    if not removed:
        return
    table = ledger.select(["url", "sha256", "status"])
    is_removed = pc.and_(pc.equal(table["status"], Status.OK.value), removed.rows_of(table))
    rows = ledger.filter(is_removed.to_numpy()).to_pylist()
    if rows:
        nothing = dict.fromkeys(name for name in DOWNLOADS.names if name not in _KEPT_OF_REMOVED)
        changed = [{**row, **nothing, **REMOVED_VERDICT} for row in rows]
        ledger.replace(pa.Table.from_pylist(changed, schema=DOWNLOADS))
        store.delete([row["path"] for row in rows])


_KEPT_OF_REMOVED = frozenset({"url", "status", "tried_at", "attempts", "elapsed_s"})


def note_usage(ledger: Ledger, usage: Mapping[str, "UsageRules"]) -> None:
    """Note for stored images what the robots.txt of their hosts says about use, though nobody asked for them.

    Args:
        ledger: The ledger; rows of these hosts whose opt-outs differ are replaced.
        usage: The rules of hosts by origin, such as `https://example.org`.
    """
    table, changed = ledger.select(["url", "status"]), []
    is_ok = pc.equal(table["status"], Status.OK.value)
    for origin, rules in usage.items():
        is_theirs = pc.and_(is_ok, pc.starts_with(table["url"], f"{origin}/", ignore_case=True))
        for row in ledger.filter(is_theirs.to_numpy()).to_pylist():
            said = to_json(renewed(from_json(row["opt_outs"]), rules.opt_outs(row["url"]), {ROBOTS}))
            if said != (row["opt_outs"] or NOTHING):
                changed.append({**row, "opt_outs": said})
    if changed:
        ledger.replace(pa.Table.from_pylist(changed, schema=DOWNLOADS))


class UsageRules(Protocol):
    """What a host says about the use of its files."""

    def opt_outs(self, url: str) -> list[OptOut]:
        """Return what it says about a link."""


def _refusal(refused: OptOut, settings: DownloadSettings) -> dict[str, object]:
    """Return the columns that make a stored image's row that of a refused link."""
    return {
        "status": Status.REFUSED.value,
        "reason": Reason.OPT_OUT.value,
        "detail": refused.words(settings.purpose.value),
        "tried_at": datetime.now(timezone.utc),  # it is asked for again after the usual pause
        "failures": 2,
        **dict.fromkeys(("path", "sha256", "bytes", "fetched_at")),
    }
