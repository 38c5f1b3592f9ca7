"""The job that RQ runs, in a file of its own: RQ forks for each job, which then imports it."""

from __future__ import annotations

from typing import Any


def complete(_flow_instance_id: str, _body: dict[str, Any]) -> None:
    """Do nothing, as the handler of the benchmarks does."""
