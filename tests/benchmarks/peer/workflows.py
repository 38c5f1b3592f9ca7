"""The same callback with DBOS: FastAPI checks it, and starts a durable workflow that is stored in PostgreSQL.

It runs in an environment of its own, where `requirements.txt` is installed.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from body import CallBack, FlowInstanceId
from dbos import DBOS, SetWorkflowID
from fastapi import FastAPI

DBOS(config={"name": "calls", "system_database_url": os.environ["DATABASE"], "log_level": "WARNING"})


@DBOS.workflow()
def complete(_flow_instance_id: str, _body: dict[str, Any]) -> None:
    """Do nothing, like the handler of the benchmarks."""


@asynccontextmanager
async def _launched(_app: FastAPI) -> AsyncIterator[None]:
    DBOS.launch()
    yield
    DBOS.destroy()


app = FastAPI(lifespan=_launched)


@app.post("/flow/{flow_instance_id}/call-back/complete", status_code=202)
def take(flow_instance_id: FlowInstanceId, body: CallBack) -> dict[str, bool]:
    """Store a workflow for a callback, then respond; its id lets a repeated callback run nothing."""
    with SetWorkflowID(flow_instance_id):
        DBOS.start_workflow(complete, flow_instance_id, body.model_dump(exclude_none=True))
    return {"success": True}
