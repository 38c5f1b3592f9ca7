"""The job that RQ runs, in a file of its own, because RQ forks for each job, which then imports the file."""

from __future__ import annotations

from typing import Any


def complete(_flow_instance_id: str, _body: dict[str, Any]) -> None:
    """Do nothing, like the handler of the benchmarks."""
