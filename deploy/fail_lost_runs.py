"""Mark the runs that ended with the code server's container as failed.

Runs are child processes of the code server. When its container is killed, nothing reports their end: they
would stay *started*, and keep their places in the pool. compose.yaml runs this before the code server starts,
when no run can be alive. Do not use it where several code servers share an instance.
"""

import dagster as dg

UNFINISHED = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]

with dg.DagsterInstance.get() as instance:
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        instance.report_run_failed(run, "The code server's container ended during this run.")
