"""The same callback in a common design: FastAPI checks it, Celery stores it in Redis and runs it.

It runs in an environment of its own, where `requirements.txt` is installed.
"""

import os
from typing import Any

from body import CallBack, FlowInstanceId
from celery import Celery
from fastapi import FastAPI

tasks = Celery("calls", broker=os.environ["BROKER"])
tasks.conf.update(
    task_ignore_result=True,
    task_acks_late=os.environ.get("DURABLE") == "yes",  # a killed worker then loses nothing, as with flowhooks
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)
app = FastAPI()


@tasks.task(name="complete")
def complete(_flow_instance_id: str, _body: dict[str, Any]) -> None:
    """Do nothing, like the handler of the benchmarks."""


@app.post("/flow/{flow_instance_id}/call-back/complete", status_code=202)
def take(flow_instance_id: FlowInstanceId, body: CallBack) -> dict[str, bool]:
    """Store a task for a callback, then respond. Not `async`, so that many requests wait for Redis at once."""
    complete.delay(flow_instance_id, body.model_dump(exclude_none=True))
    return {"success": True}
