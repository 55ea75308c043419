"""Define the sensor that fails runs whose process is gone, so that they do not keep their place in the pool.

Dagster itself notices a killed process only if its parent, the code server, still lives, or if the run
launcher can be asked. A run that is left over stays *started* for ever.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import dagster as dg

from imgdl_pipeline.assets import open_store
from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.core.model.counted import amount
from imgdl_pipeline.core.storage.lease import is_running_here
from imgdl_pipeline.core.storage.sign_of_life import read_sign, run_of, signs_of_life
from imgdl_pipeline.core.storage.store import Store

EVERY_S = 20
LOOKS = 4
"""How many looks in a row must find the same sign of life before it has lapsed: for a minute and more, while
a live run renews it every 10 seconds."""

SHORTEST_S, LONGEST_S = 10.0, 60.0
"""Between two looks that count. After a longer pause, this machine slept, and the run perhaps, too."""

UNDER_WAY = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]

_BEGINNINGS = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_RESTARTED}
_ENDS = {
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_UP_FOR_RETRY,
}


class Seen(NamedTuple):
    """A sign of life as it was seen: when it was written, and how many looks in a row found it so."""

    written: str
    looks: int


Signs = dict[str, Seen]
"""Signs of life by their paths."""


def build_lost_runs_sensor(
    galleries: Galleries, name: str, clock: Callable[[], float] = time.time
) -> dg.SensorDefinition:
    """Return a sensor that marks runs as failed whose process is gone.

    Args:
        galleries: The settings of the galleries file.
        name: The sensor's name.
        clock: Returns the time in seconds.
    """

    @dg.sensor(
        name=name,
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Marks runs as failed whose process was killed, which frees their places in the pool.",
    )
    def lost_runs(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        records = context.instance.get_run_records(dg.RunsFilter(statuses=UNDER_WAY))
        if not records:
            return dg.SensorResult(skip_reason="no run is under way", cursor="")
        store, now = open_store(galleries), clock()
        seen = look(signs_of_life(store), *_remembered(context.cursor), now)
        under_way = {record.dagster_run.run_id: record.dagster_run for record in records}
        lost = [run for run in under_way.values() if _end_if_lost(context, store, run, seen)]
        _forget_ended(context.instance, store, seen, set(under_way))
        cursor = json.dumps({"at": now, "signs": seen})
        return dg.SensorResult(
            skip_reason=f"{amount(len(lost), 'run')} of {len(under_way)} lost", cursor=cursor
        )

    return lost_runs


def _remembered(cursor: str | None) -> tuple[Signs, float]:
    before = json.loads(cursor or "{}")
    return {path: Seen(*each) for path, each in before.get("signs", {}).items()}, before.get("at", 0.0)


def look(signs: Mapping[str, str], before: Signs, then: float, now: float) -> Signs:
    """Return what is known of each sign of life.

    Args:
        signs: When each was written, by path.
        before: The result of the last look.
        then: The time of the last look.
        now: The current time.
    """
    pause = now - then
    seen: Signs = {}
    for path, written in signs.items():
        known = before.get(path)
        if known is None or known.written != written or not 0 <= pause <= LONGEST_S:
            seen[path] = Seen(written, 1)
        else:
            seen[path] = Seen(written, known.looks + (pause >= SHORTEST_S))
    return seen


def _end_if_lost(context: dg.SensorEvaluationContext, store: Store, run: dg.DagsterRun, seen: Signs) -> bool:
    """Mark a run as failed if every sign of its life has lapsed; a run that has given none is left alone."""
    own = {path: each.looks for path, each in seen.items() if run_of(path) == run.run_id}
    if not own or min(own.values()) < 2:
        return False
    lapsed = {path: sign for path in own if (sign := read_sign(store, path)) is not None}
    ended = _ended_steps(context.instance, run) if lapsed else set()
    working = {path: sign for path, sign in lapsed.items() if sign.get("step") not in ended}
    if not working or not all(_is_lost(sign, own[path]) for path, sign in working.items()):
        return False
    record = context.instance.get_run_record_by_id(run.run_id)
    if record is None or record.dagster_run.status not in UNDER_WAY:
        return False
    words = _words(next(iter(working.values())))
    context.log.warning("run %s: %s", run.run_id, words)
    if record.dagster_run.status is dg.DagsterRunStatus.CANCELING:
        context.instance.report_run_canceled(record.dagster_run, words)
    else:
        context.instance.report_run_failed(record.dagster_run, words)
    store.delete(list(own))
    return True


def _is_lost(sign: Mapping[str, Any], looks: int) -> bool:
    """Return whether the process of a sign of life that was not renewed is gone.

    One that can be seen is asked; it may be paused. Of another machine's, only the sign of life tells.
    """
    runs = is_running_here(dict(sign))
    return looks >= LOOKS if runs is None else not runs


def _ended_steps(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[str]:
    """Return the steps that ended: what their process left behind says nothing of the run."""
    last: dict[str, dg.DagsterEventType] = {}
    for entry in instance.all_logs(run.run_id, of_type=_BEGINNINGS | _ENDS):
        event = entry.dagster_event
        if event is not None and event.step_key is not None:
            last[event.step_key] = event.event_type
    return {step for step, event in last.items() if event in _ENDS}


def _words(sign: Mapping[str, Any]) -> str:
    process = f"process {sign.get('pid')} on {sign.get('host')}"
    return (
        f"The process of this run is gone ({process}, in the step {sign.get('step')}): it was killed, or its "
        "machine was lost. What it has stored is kept, and the next run carries on."
    )


def _forget_ended(instance: dg.DagsterInstance, store: Store, seen: Signs, under_way: set[str]) -> None:
    """Delete the lapsed signs of life of runs that have ended; those of other instances' runs stay."""
    lapsed = {path: run_of(path) for path, each in seen.items() if each.looks >= LOOKS}
    for path, run in lapsed.items():
        record = None if run in under_way else instance.get_run_record_by_id(run)
        if record is not None and record.dagster_run.is_finished:
            store.delete([path])
