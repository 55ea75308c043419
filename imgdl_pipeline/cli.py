"""Define the program `imgdl`: run galleries, and look after their files, in a terminal."""

import fcntl
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import dagster as dg
import yaml
from click.shell_completion import CompletionItem

from imgdl_pipeline.assets import STORE_VARIABLE, AssetKeys, open_store
from imgdl_pipeline.config.galleries import (
    NAME_RULE,
    Galleries,
    Gallery,
    is_gallery_name,
    secret_keys,
    unset_secrets,
)
from imgdl_pipeline.config.galleries_file import GalleriesFileError
from imgdl_pipeline.config.sharded import Shards
from imgdl_pipeline.core.catalog.audit import is_stale
from imgdl_pipeline.core.catalog.left_over import left_over
from imgdl_pipeline.core.catalog.removal import removals, would_remove
from imgdl_pipeline.core.catalog.summary import CatalogSummary, summarize
from imgdl_pipeline.core.dataset.removal import left_in_datasets, remove_everywhere
from imgdl_pipeline.core.dataset.where import WhereError
from imgdl_pipeline.core.listing.places import checked_places
from imgdl_pipeline.core.listing.reshard import Resharded, reshard
from imgdl_pipeline.core.model.counted import amount
from imgdl_pipeline.core.model.outcome import ResourceError, Status
from imgdl_pipeline.core.model.settings import did_you_mean
from imgdl_pipeline.core.model.shown import hide_secrets
from imgdl_pipeline.core.near_duplicates.groups import rename_in_groups
from imgdl_pipeline.core.sources import SourceError, type_name
from imgdl_pipeline.core.storage.gallery_files import (
    delete_gallery,
    gallery_files,
    rename_gallery,
    unfinished_renames,
)
from imgdl_pipeline.core.storage.layout import MOST_SHARDS, whole_gallery
from imgdl_pipeline.core.storage.lease import GalleryBusyError
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.parts import is_sharded, stored_galleries
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.core.view.write import LIMIT as VIEW_LIMIT
from imgdl_pipeline.core.view.write import save_view
from imgdl_pipeline.definitions import CONFIG_VARIABLE, component, defs, galleries, galleries_file
from imgdl_pipeline.running import GalleryRun, run_gallery, run_list, run_near_duplicates
from imgdl_pipeline.sharded import ShardedGallery
from imgdl_pipeline.terminal import RunDisplay, print_table
from imgdl_pipeline.version import __version__

FAILED, WRONG = 1, 2
"""Exit codes: a run or a check failed; wrong usage, or a galleries file that cannot be used."""

IS_JSON = "imgdl_pipeline.json"
"""The key in click's context for whether the program prints one JSON object."""


class _Stop(click.ClickException):
    """An error that ends the program with a message, or a JSON object, and an exit code."""

    is_json = False

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click has it as a class variable, and reads ours

    def show(self, file: Any = None) -> None:
        """Print the error."""
        if self.is_json:
            _print_json({"error": self.message})
        else:
            click.echo(self.message, file=file, err=True)


class _Program(click.Group):
    """A group of commands whose errors are sentences."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command, and turn the errors that people can mend into a message and an exit code."""
        try:
            return super().invoke(ctx)
        except GalleriesFileError as error:
            stop = _Stop(str(error), WRONG)
        except (SourceError, StoreError, ResourceError, GalleryBusyError, WhereError, OSError) as error:
            stop = _Stop(hide_secrets(str(error)), FAILED)
        except click.UsageError as error:
            if not ctx.meta.get(IS_JSON):
                raise
            stop = _Stop(error.format_message(), WRONG)
        except dg.DagsterInvariantViolationError as error:
            stop = _Stop(str(error), WRONG)
        except _Stop as error:
            stop = error
        stop.is_json = bool(ctx.meta.get(IS_JSON))
        raise stop from None


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="imgdl", message="%(prog)s %(version)s")
def main() -> None:
    """List, download, validate and catalog image galleries.

    The galleries file is the one that --config or IMGDL_CONFIG names, or else the demo's. Exit status:
    0 done, 1 a run or a check failed, 2 wrong usage or galleries file.
    """


def _use_config(ctx: click.Context, parameter: click.Parameter, value: Path | None) -> None:  # noqa: ARG001
    if value is not None:
        os.environ[CONFIG_VARIABLE] = str(value)


def _use_json(ctx: click.Context, parameter: click.Parameter, value: bool) -> bool:  # noqa: ARG001
    ctx.meta[IS_JSON] = value
    return value


def _complete_galleries(
    ctx: click.Context,  # noqa: ARG001
    parameter: click.Parameter,  # noqa: ARG001
    incomplete: str,
) -> list[CompletionItem]:
    """Return the names that a shell offers; a file that cannot be used has none."""
    try:
        known = _with_whole(galleries())
    except Exception:  # noqa: BLE001 -- nothing may be printed while someone types
        return []
    return [CompletionItem(each.name) for each in known if each.name.startswith(incomplete)]


def _command(function: Callable[..., None]) -> click.Command:
    """Make a command with the options that all commands have."""
    config = click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        expose_value=False,
        is_eager=True,
        callback=_use_config,
        help="The galleries file; it stands for IMGDL_CONFIG.",
    )
    as_json = click.option(
        "--json", "as_json", is_flag=True, is_eager=True, callback=_use_json, help="Print one JSON object."
    )
    return main.command(function.__name__.strip("_"))(config(as_json(function)))


_names = click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=_complete_galleries)


@_command
@_names
@click.option("--all", "are_all", is_flag=True, help="Run every gallery, one after the other.")
@click.option("--limit", type=click.IntRange(min=1), help="Download this many links of each at most.")
@click.option("--force", is_flag=True, help="Ask for every link again; for images conditionally.")
def run(names: tuple[str, ...], are_all: bool, limit: int | None, force: bool, as_json: bool) -> None:
    """Run galleries: list their links, download the images, validate and catalog them.

    Of a very large gallery, NAME is the gallery, with all of its shards, or one shard, such as laion/0007.

    The runs appear in the web UI of the same DAGSTER_HOME. Links that fail do not make a run fail.
    """
    known = component()
    if bool(names) == are_all:
        raise click.UsageError("name the galleries to run, or give --all")
    chosen = _chosen(known.galleries, names)
    definitions = defs()
    runs: list[GalleryRun] = []
    with ExitStack() as exits:
        instance = exits.enter_context(_instance())
        display = exits.enter_context(RunDisplay())
        listed = None
        if isinstance(known, ShardedGallery) and (are_all or known.galleries.whole.name in names):
            with display.alone():
                listed = run_list(known, definitions, instance, watch=display)
            display.done()
            if not as_json:
                _tell_list(listed)
        for gallery in chosen if listed is None or listed.succeeded else ():
            with display.alone():
                done = run_gallery(
                    known, definitions, gallery.name, instance, limit=limit, force=force, watch=display
                )
            runs.append(done)
            display.done()
            if not as_json:
                _tell(done)
            if done.was_interrupted:
                break
        near = None
        if known.galleries.near_duplicates is not None and runs and not runs[-1].was_interrupted:
            with display.alone():
                near, datasets = run_near_duplicates(known, definitions, chosen, instance, watch=display)
            display.done()
            runs += datasets
            if not as_json:
                _tell_near_duplicates(near, datasets)
    if as_json:
        told = {} if near is None else {"near_duplicates": _near_duplicates_json(near)}
        told |= {} if listed is None else {"list": _list_json(listed)}
        _print_json({"galleries": [_run_json(each) for each in _last_of_each(runs)], **told})
    if not all(each.succeeded for each in (*runs, *filter(None, [listed, near]))):
        raise SystemExit(FAILED)


def _tell_list(run: GalleryRun) -> None:
    if run.error is None:
        listed = run.metadata["links"]
        click.echo(f"{run.gallery}: {amount(listed['links'], 'link')} in {amount(listed['shards'], 'shard')}")
    else:
        _tell(run)


def _list_json(run: GalleryRun) -> dict[str, Any]:
    listed = run.metadata.get("links", {})
    return {
        "name": run.gallery,
        "error": run.error,
        "links": listed.get("links"),
        "shards": listed.get("shards"),
    }


def _last_of_each(runs: Sequence[GalleryRun]) -> Sequence[GalleryRun]:
    """Return a run per gallery: its own, with the dataset of a later one."""
    by_name: dict[str, GalleryRun] = {}
    for each in runs:
        first = by_name.get(each.gallery)
        if first is None:
            by_name[each.gallery] = each
        else:
            metadata = {**first.metadata, **each.metadata}
            by_name[each.gallery] = replace(first, error=first.error or each.error, metadata=metadata)
    return list(by_name.values())


def _tell_near_duplicates(near: GalleryRun, datasets: Sequence[GalleryRun]) -> None:
    if near.error is not None:
        click.echo(f"the search for near duplicates failed: {near.error}", err=True)
        return
    found = near.metadata["near_duplicates"]
    click.echo(f"near duplicates: {amount(found['groups'], 'group')} of {amount(found['grouped'], 'image')}")
    for each in datasets:
        if each.error is not None:
            click.echo(f"the dataset of {each.gallery} failed: {each.error}", err=True)
        elif dataset := each.metadata.get("dataset"):
            click.echo(f"{each.gallery}: {_dataset_in_words(dataset)}")


def _near_duplicates_json(near: GalleryRun) -> dict[str, Any]:
    found = near.metadata.get("near_duplicates", {})
    return {"error": near.error, **{key: found.get(key) for key in ("path", "images", "groups", "grouped")}}


def _dataset_in_words(dataset: Mapping[str, Any]) -> str:
    return f"dataset: {dataset['path']}, {amount(dataset['images'], 'image')} as {dataset['format']}"


def _instance() -> dg.DagsterInstance:
    """Return the instance of DAGSTER_HOME, or one that forgets its runs at the end."""
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        return dg.DagsterInstance.ephemeral()
    try:
        Path(home).mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(Path(home)):
            return dg.DagsterInstance.get()
    except (OSError, dg.DagsterError, yaml.YAMLError) as error:
        raise _Stop(
            f"DAGSTER_HOME, {home}, cannot be used: {str(error).strip().splitlines()[0]}", WRONG
        ) from None


@contextmanager
def _one_at_a_time(home: Path) -> Iterator[None]:
    """Let one process at a time open an instance: Dagster's first tables must not be made by two at once."""
    with (home / "imgdl.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _tell(run: GalleryRun) -> None:
    """Print what a run did, for a person."""
    if run.was_interrupted:
        click.echo(f"{run.gallery} was stopped; the next run continues where it was", err=True)
    elif run.error is not None:
        click.echo(f"the run of {run.gallery} failed: {run.error}", err=True)
    else:
        click.echo(summary(run))
    for kind, found in (("error", run.failed_checks), ("warning", run.warnings)):
        for name, words in found.items():
            click.echo(f"{kind}: {name}: {words}", err=True)


def summary(run: GalleryRun) -> str:
    """Return what a run that succeeded did, for a person."""
    fetch, catalog = run.metadata["images"], run.metadata["catalog"]
    lines = [f"{run.gallery}: {catalog['dagster/row_count']} links"]
    for status in Status:
        reasons = _reasons(catalog, status)
        told = ", ".join(f"{count} {key.partition('/')[2]}" for key, count in reasons.items())
        lines.append(f"  {status.value:8} {catalog[status.value]:6}" + (f"   {told}" if told else ""))
    lines += [
        f"downloaded {amount(fetch['fetched'], 'image')}, {fetch['bytes'] / 1e6:.1f} MB, "
        f"in {fetch['seconds']:.1f} s: {fetch['images_per_second']:.0f} a second",
        f"catalog: {catalog['path']}",
    ]
    if dataset := run.metadata.get("dataset"):
        lines.append(_dataset_in_words(dataset))
    return "\n".join(lines)


def _reasons(catalog: Mapping[str, Any], status: Status) -> dict[str, int]:
    return {key: count for key, count in catalog.items() if key.startswith(f"{status.value}/")}


def _run_json(run: GalleryRun) -> dict[str, Any]:
    images, catalog = run.metadata.get("images", {}), run.metadata.get("catalog", {})
    dataset = run.metadata.get("dataset")
    numbers = {key: catalog.get(key) for key in ("path", *(status.value for status in Status))}
    return {
        "name": run.gallery,
        "succeeded": run.succeeded,
        "error": run.error,
        "run_id": run.run_id,
        "links": catalog.get("dagster/row_count"),
        **numbers,
        "reasons": {key: count for status in Status for key, count in _reasons(catalog, status).items()},
        **{key: images.get(key) for key in ("fetched", "waiting", "seconds")},
        "dataset": {key: dataset[key] for key in ("path", "format", "images")} if dataset else None,
        "failed_checks": dict(run.failed_checks),
        "warnings": dict(run.warnings),
    }


@_command
def list_(as_json: bool) -> None:
    """List the galleries of the galleries file, with their sources and schedules."""
    known = galleries()
    rows = [
        {
            "name": each.name,
            "source": type_name(type(each.source)),
            "lists": _lists(each),
            "schedule": known.schedule_of(each),
        }
        for each in known.written
    ]
    _print_rows(rows, as_json=as_json, file=str(galleries_file()), store=_root(known))


def _lists(gallery: Gallery) -> str:
    """Return the keys of a gallery's source that are not as they are by default, without its secrets."""
    secret = secret_keys(gallery.source)
    given = gallery.source.model_dump(exclude_defaults=True, exclude={"type", *secret})
    return hide_secrets(", ".join(f"{key}: {value}" for key, value in given.items()))


def _root(known: Galleries) -> str:
    return hide_secrets(os.environ.get(STORE_VARIABLE) or known.store)


@_command
def check(as_json: bool) -> None:
    """Check the galleries file, and report every error in it at once, with its line.

    Secrets whose environment variable is not set are reported, too. They are no error of the file: they stop
    only the runs of the gallery that needs them.
    """
    file = str(galleries_file())
    try:
        known = galleries()
    except GalleriesFileError as error:
        if not as_json:
            raise
        problems = [{"place": each.place, "message": each.words} for each in error.problems]
        _print_json({"file": file, "valid": False, "problems": problems, "unset_secrets": []})
        raise SystemExit(WRONG) from None
    unset = [
        {"gallery": each.name, "message": words}
        for each in known.written
        for words in unset_secrets(each.source, os.environ)
    ]
    if as_json:
        _print_json({"file": file, "valid": True, "problems": [], "unset_secrets": unset})
        return
    for each in unset:
        click.echo(f"{each['gallery']}: {each['message']}", err=True)
    shards = f" in {amount(len(known.galleries), 'shard')}" if isinstance(known, Shards) else ""
    click.echo(f"{file}: good, {_galleries_in_words(len(known.written))}{shards}")


def _galleries_in_words(count: int) -> str:
    return f"{count} {'gallery' if count == 1 else 'galleries'}"


@_command
@_names
def status(names: tuple[str, ...], as_json: bool) -> None:
    """Show what each gallery's catalog holds, and how old it is.

    Of a very large gallery, the first row is of all shards together, and as old as the oldest.
    """
    known = galleries()
    store, now = open_store(known), datetime.now(timezone.utc)
    is_whole = isinstance(known, Shards) and (not names or known.whole.name in names)
    chosen = _with_whole(known) if is_whole else _chosen(known, names)
    if isinstance(known, Shards):
        checked_places(store, known.whole.name, len(known.galleries))
    rows = [_status_row(known, each, summarize(store, each.name), now) for each in chosen]
    _print_rows(rows, as_json=as_json, store=_root(known))


def _with_whole(known: Galleries) -> Sequence[Gallery]:
    """Return the galleries, or a very large gallery before its shards."""
    return (known.whole, *known.galleries) if isinstance(known, Shards) else known.galleries


def _status_row(
    known: Galleries, gallery: Gallery, found: CatalogSummary | None, now: datetime
) -> dict[str, Any]:
    if found is None or found.refreshed_at is None:
        state = "never ran" if found is None else "lists nothing"
        return {"name": gallery.name, "state": state, **dict.fromkeys(_COUNTED, 0), "refreshed_at": None}
    fresh_days = known.check_settings(gallery).fresh_days
    stale = is_stale(found.refreshed_at, known.schedule_of(gallery), now, fresh_days)
    return {
        "name": gallery.name,
        "state": "stale" if stale else "fresh",
        "links": found.links,
        **found.by_status,
        "bytes": found.bytes,
        "refreshed_at": f"{found.refreshed_at:%Y-%m-%dT%H:%MZ}",
    }


_COUNTED = ("links", *(status.value for status in Status), "bytes")


@_command
@click.argument("name", metavar="NAME", shell_complete=_complete_galleries)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write; NAME.html in this folder by default, of a shard laion-0007.html.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), default=VIEW_LIMIT, show_default=True, help="Show the newest rows."
)
def view(name: str, out: Path | None, limit: int, as_json: bool) -> None:
    """Write an HTML page with the pictures and the catalog rows of gallery NAME, to be opened in a browser.

    The page is one file, which loads nothing. It holds small copies of the pictures: after a removal, write
    it again. Of a very large gallery, NAME is the gallery, with all of its shards, or one shard, such as
    laion/0007.
    """
    known = galleries()
    is_whole = isinstance(known, Shards) and name == known.whole.name
    gallery = known.whole if isinstance(known, Shards) and is_whole else _chosen(known, [name])[0]
    file = out or Path(f"{gallery.name.replace('/', '-')}.html")
    with RunDisplay() as display:
        display(gallery.name, "view", None)
        made = save_view(
            open_store(known),
            gallery.name,
            file,
            limit=limit,
            on_progress=lambda progress: display(gallery.name, "view", progress),
        )
        display.done()
    size = file.stat().st_size
    if as_json:
        _print_json({"name": gallery.name, "file": str(file.absolute()), "bytes": size, **asdict(made)})
        return
    of_all = f" of {made.links}" if made.rows < made.links else ""
    click.echo(f"{file}: {made.rows}{of_all} rows, {made.pictures} pictures, {size / 1e6:.1f} MB")
    click.echo(f"open it in a browser: {file.absolute().as_uri()}")


@_command
@click.argument("old", metavar="OLD", shell_complete=_complete_galleries)
@click.argument("new", metavar="NEW")
def rename(old: str, new: str, as_json: bool) -> None:
    """Give the files of gallery OLD to the name NEW, without a request to any host.

    Rename the gallery in the galleries file, too. If the command is interrupted, run it again before either
    gallery runs.
    """
    for name in (old, new):
        if not is_gallery_name(name):
            raise click.UsageError(f"{name!r} is no gallery name: {NAME_RULE}")
    known = galleries()
    _check_known(known)
    store = open_store(known)
    images = rename_gallery(store, old, new)
    rename_in_groups(store, old, new)
    _forget(known, [old])
    if as_json:
        _print_json({"old": old, "new": new, "images": images})
        return
    click.echo(f"{old} is {new} now, with {images} images")
    if old in {each.name for each in known.galleries}:
        click.echo(f"{galleries_file()} still has {old}: rename it there, too", err=True)


@_command
@click.argument("name", metavar="GALLERY", shell_complete=_complete_galleries)
@click.argument("shards", metavar="SHARDS", type=click.IntRange(1, MOST_SHARDS))
def reshard_(name: str, shards: int, as_json: bool) -> None:
    """Give the very large gallery GALLERY another number of SHARDS, without moving an image.

    Change the number in its file, too. Nothing else can work on the gallery meanwhile. If the command is
    interrupted, run it again.
    """
    if not is_gallery_name(name):
        raise click.UsageError(f"{name!r} is no gallery name: {NAME_RULE}")
    known = galleries()
    done = reshard(open_store(known), name, shards)
    if as_json:
        numbers = {"before": done.before, "shards": shards, "links": done.links, "moved": done.moved}
        _print_json({"name": name, **numbers, "deleted_datasets": list(done.datasets)})
        return
    click.echo(_resharded(name, done))
    for shard in done.datasets:
        click.echo(f"{shard}: its dataset was deleted with the shard")
    if isinstance(known, Shards) and known.whole.name == name and len(known.galleries) != shards:
        click.echo(f"{galleries_file()} still has {len(known.galleries)} shards: change it, too", err=True)


def _resharded(name: str, done: Resharded) -> str:
    now = f"{name} has {amount(done.places.shards, 'shard')}"
    if done.moved is None:
        return f"{now} now: what an interrupted call began is completed, and no image was moved"
    if done.before == done.places.shards:
        return f"{now} already: nothing was changed"
    moved = f"{done.moved} of {amount(done.links, 'link')} moved to another one"
    return f"{now} now, and had {done.before}: {moved}, and no image was moved"


@_command
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--yes", "is_sure", is_flag=True, help="Delete the files.")
def prune(names: tuple[str, ...], is_sure: bool, as_json: bool) -> None:
    """Name the galleries that have files but are not in the galleries file; with --yes, delete their files.

    All files in the store count that belong to no gallery of this file, or those of each NAME. If several
    galleries files share a store, give names. Very large galleries are only deleted by name: each has a file
    of its own.
    """
    known = galleries()
    store = open_store(known)
    _check_known(known)
    gone, sharded = _gone(known, store, names)
    unfinished = unfinished_renames(store)
    if unfinished:
        old, new = next(iter(unfinished.items()))
        raise _Stop(f"{old} is not renamed yet: complete it with imgdl rename {old} {new}", FAILED)
    rows = [{"name": name, **asdict(gallery_files(store, name))} for name in gone]
    busy = _delete(store, known, gone) if is_sure else {}
    kept = busy | {name: f"it has shards; imgdl prune {name} deletes it" for name in sharded}
    if gone or as_json:
        _print_rows(rows, as_json=as_json, store=_root(known), deleted=is_sure, kept=kept)
    if not as_json:
        for name, words in kept.items():
            click.echo(f"{name} was kept: {words}", err=True)
        click.echo(_pruned(len(gone) - len(busy), is_sure=is_sure), err=bool(gone))
    if busy:
        raise SystemExit(FAILED)


def _gone(known: Galleries, store: Store, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the galleries that are gone, or the named ones of these, and those that only a name deletes."""
    if isinstance(known, Shards) and not names:
        raise click.UsageError(f"{galleries_file()} has only {known.whole.name}: name what to delete")
    gone = sorted(stored_galleries(store) - {whole_gallery(each.name) for each in known.galleries})
    for name in names:
        if name not in gone:
            raise click.UsageError(f"{name} has no files, or is in {galleries_file()}: it cannot be pruned")
    if names:
        return sorted(set(names)), []
    sharded = [name for name in gone if is_sharded(store, name)]
    return [name for name in gone if name not in sharded], sharded


def _forget(known: Galleries, names: Sequence[str]) -> None:
    """Wipe Dagster's records of assets that galleries had of their own; of a partition, it can wipe none."""
    if known.asset_per_gallery and os.environ.get("DAGSTER_HOME"):
        with _instance() as instance:
            instance.wipe_assets([key for name in names for key in AssetKeys.of(known, name)])


def _delete(store: Store, known: Galleries, names: Sequence[str]) -> dict[str, str]:
    """Delete galleries, and return those that a run is at work on, with what says so."""
    busy = {}
    for name in names:
        try:
            delete_gallery(store, name)
            rename_in_groups(store, name, None)
        except GalleryBusyError as error:
            busy[name] = str(error)
    _forget(known, [name for name in names if name not in busy])
    return busy


def _check_known(known: Galleries) -> None:
    """Refuse to judge which galleries are gone while the rows of `galleries_from` are not known."""
    made_from = known.galleries_from
    if made_from is not None and not made_from.is_known(galleries_file()):
        raise click.UsageError("galleries_from has not been fetched: run imgdl refresh first")


def _pruned(count: int, *, is_sure: bool) -> str:
    if not count:
        return "no files of other galleries are stored"
    return "deleted" if is_sure else "nothing was deleted; --yes deletes these files"


@_command
@click.option("--url", "urls", multiple=True, help="A link; its image is removed wherever its bytes are.")
@click.option("--sha256", "sha256s", multiple=True, help="The SHA-256 of a file.")
@click.option("--phash", "phashes", multiple=True, help="A perceptual hash, 16 hex digits.")
@click.option("--distance", type=click.IntRange(0, 64), default=0, help="Bits by which a hash may differ.")
@click.option(
    "--from",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with a link or a hash per line; of a CSV, the columns url, sha256, phash and distance.",
)
@click.option("--reason", help="Why, for whoever asks later.")
@click.option("--yes", "is_sure", is_flag=True, help="Remove the images.")
@click.option("--verify", is_flag=True, help="Prove that nothing that was removed is left.")
def remove(
    urls: tuple[str, ...],
    sha256s: tuple[str, ...],
    phashes: tuple[str, ...],
    distance: int,
    files: tuple[Path, ...],
    reason: str | None,
    is_sure: bool,
    verify: bool,
    as_json: bool,
) -> None:
    """Remove images for good, from every gallery of the store; without --yes, only name them.

    What was removed is never asked for or kept again. Its rows stay, and hold nothing of the picture.
    """
    store = open_store(galleries())
    if verify:
        if urls or sha256s or phashes or files or is_sure:
            raise click.UsageError("--verify looks for all that was removed: give it alone")
        _verify(store, as_json=as_json)
        return
    try:
        asked = removals(urls, sha256s, phashes, distance, files, reason or "")
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    found, datasets = remove_everywhere(store, asked) if is_sure else (would_remove(store, asked), [])
    rows = [{"name": each.gallery, "links": len(each.urls), "files": len(each.paths)} for each in found]
    if as_json:
        _print_json(
            {
                "removed": is_sure,
                "entries": len(asked),
                "galleries": [asdict(each) for each in found],
                "datasets": datasets,
            }
        )
        return
    _print_rows(rows, as_json=False)
    for each in found:
        for url in each.urls:
            click.echo(f"{each.gallery}: {hide_secrets(url)}")
    for name in datasets:
        click.echo(f"{name}: its dataset was written anew")
    hint = "; --yes removes these images" if found else ": no gallery has any of these images"
    click.echo("removed" if is_sure else f"nothing was removed{hint}", err=True)


def _verify(store: Store, *, as_json: bool) -> None:
    """Report what is left of what was removed, which ends the program with 1."""
    left = [*left_over(store), *left_in_datasets(store)]
    if as_json:
        _print_json({"clean": not left, "galleries": [asdict(each) for each in left]})
    else:
        for each in left:
            for name in (*each.urls, *each.paths):
                click.echo(f"{each.gallery}: {hide_secrets(name)} is left", err=True)
        if not left:
            click.echo("nothing that was removed is left")
    if left:
        raise SystemExit(FAILED)


@_command
def refresh(as_json: bool) -> None:
    """Fetch the rows of galleries_from, so that the galleries file has their galleries from now on.

    Reload the code location in the web UI to see them there.
    """
    logging.getLogger("imgdl_pipeline.config").setLevel(logging.ERROR)  # it may ask for this very command
    known = component()
    if known.galleries.galleries_from is None:
        raise click.UsageError(f"{galleries_file()} has no galleries_from")
    fetched = known.refresh()
    names = [each.name for each in galleries().galleries]
    if as_json:
        _print_json({"fetched": fetched, "galleries": names})
    else:
        click.echo(f"{fetched} rows fetched; {galleries_file()} has {_galleries_in_words(len(names))}")


def _chosen(known: Galleries, names: Sequence[str]) -> Sequence[Gallery]:
    """Return the named galleries, each once, or all if none is named."""
    by_name = {each.name: each for each in known.galleries}
    if isinstance(known, Shards) and known.whole.name in names:
        return known.galleries
    for name in names:
        if name not in by_name:
            file = galleries_file()
            raise click.UsageError(f"there is no gallery {name!r} in {file}{did_you_mean(name, by_name)}")
    if not by_name:
        raise click.UsageError(f"{galleries_file()} has no galleries yet: imgdl refresh fetches them")
    return [by_name[name] for name in dict.fromkeys(names)] or known.galleries


def _print_rows(rows: Sequence[dict[str, Any]], *, as_json: bool, **more: Any) -> None:
    """Print galleries as a table, or as a JSON object together with more about all of them."""
    if as_json:
        _print_json({**more, "galleries": rows})
    elif rows:
        header = ["gallery", *(key.replace("_at", "") for key in rows[0] if key != "name")]
        print_table(header, [["-" if cell is None else cell for cell in row.values()] for row in rows])


def _print_json(value: dict[str, Any]) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    click.echo(re.sub(r"[\x7f-\x9f]", lambda char: f"\\u{ord(char[0]):04x}", text))
