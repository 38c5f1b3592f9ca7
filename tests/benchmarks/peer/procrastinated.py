"""The same callback with Procrastinate: FastAPI checks it, and stores a job in PostgreSQL that a worker runs.

It runs in an environment of its own, where `requirements.txt` is installed.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from body import CallBack, FlowInstanceId
from fastapi import FastAPI
from procrastinate import App, PsycopgConnector

jobs = App(connector=PsycopgConnector(conninfo=os.environ["DATABASE"]))


@jobs.task(name="complete")
def complete(_flow_instance_id: str, _body: dict[str, Any]) -> None:
    """Do nothing, like the handler of the benchmarks. Not `async`: it runs in a thread, as code of a business does."""


@asynccontextmanager
async def _connected(_app: FastAPI) -> AsyncIterator[None]:
    async with jobs.open_async():
        yield


app = FastAPI(lifespan=_connected)


@app.post("/flow/{flow_instance_id}/call-back/complete", status_code=202)
async def take(flow_instance_id: FlowInstanceId, body: CallBack) -> dict[str, bool]:
    """Store a job for a callback, then respond."""
    values = {"_flow_instance_id": flow_instance_id, "_body": body.model_dump(exclude_none=True)}
    await complete.defer_async(**values)
    return {"success": True}
