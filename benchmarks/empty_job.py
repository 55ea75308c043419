"""The cheapest job of three assets that Dagster can run: what a run costs before it does anything."""

import dagster as dg


@dg.asset
def first() -> None:
    pass


@dg.asset(deps=[first])
def second() -> None:
    pass


@dg.asset(deps=[second])
def third() -> None:
    pass


defs = dg.Definitions(assets=[first, second, third], executor=dg.in_process_executor)
