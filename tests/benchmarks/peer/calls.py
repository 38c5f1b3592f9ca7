"""The same callback in a common design: FastAPI checks it, Celery stores it in Redis and runs it.

It runs in an environment of its own, where `requirements.txt` is installed.
"""

# No `from __future__ import annotations`: FastAPI reads the annotations, and resolves their names more easily so.

import os
from typing import Annotated, Any

from celery import Celery
from fastapi import FastAPI, Path
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

tasks = Celery("calls", broker=os.environ["BROKER"])
tasks.conf.update(
    task_ignore_result=True,
    task_acks_late=os.environ.get("DURABLE") == "yes",  # a killed worker then loses nothing, as with flowhooks
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)
app = FastAPI()


class CallBack(BaseModel):
    """The permitted body, equal to `schemas/call-back/complete.schema.json`."""

    model_config = ConfigDict(extra="allow")

    businessKey: StrictStr | None = None  # noqa: N815 (the contract's own names)
    callBackProcessClass: StrictStr | None = None  # noqa: N815 (as above)
    processDefinitionId: StrictStr | None = None  # noqa: N815 (as above)
    processDefinitionKey: StrictStr | None = None  # noqa: N815 (as above)
    processDefinitionVersion: Annotated[StrictInt, Field(ge=-(2**31), lt=2**31)] | None = None  # noqa: N815 (as above)


@tasks.task(name="complete")
def complete(_flow_instance_id: str, _body: dict[str, Any]) -> None:
    """Do nothing, like the handler of the benchmarks."""


@app.post("/flow/{flow_instance_id}/call-back/complete", status_code=202)
def take(
    flow_instance_id: Annotated[str, Path(pattern=r"^[A-Za-z0-9._:~-]{1,128}$")], body: CallBack
) -> dict[str, bool]:
    """Store a task for a callback, then respond. Not `async`, so that many requests wait for Redis at once."""
    complete.delay(flow_instance_id, body.model_dump(exclude_none=True))
    return {"success": True}
