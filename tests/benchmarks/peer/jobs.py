"""The same callback in another design: Flask checks it, RQ stores it in Redis and runs it.

It runs in an environment of its own, where `requirements.txt` is installed.
"""

from __future__ import annotations

import os
import re
from typing import Any

from flask import Flask, request
from redis import Redis
from rq import Queue

ID = re.compile(r"[A-Za-z0-9._:~-]{1,128}")
FIELDS = {
    "businessKey": str,
    "callBackProcessClass": str,
    "processDefinitionId": str,
    "processDefinitionKey": str,
    "processDefinitionVersion": int,
}
"""The permitted body, equal to `schemas/call-back/complete.schema.json`."""

app = Flask(__name__)
queue = Queue(connection=Redis.from_url(os.environ["BROKER"]))


@app.post("/flow/<flow_instance_id>/call-back/complete")
def take(flow_instance_id: str) -> tuple[dict[str, bool], int]:
    """Store a job for a callback, then respond."""
    body = request.get_json()
    if not (isinstance(body, dict) and ID.fullmatch(flow_instance_id) and all(map(_fits, FIELDS.items(), [body] * 5))):
        return {"success": False}, 422
    queue.enqueue("job.complete", flow_instance_id, body)
    return {"success": True}, 202


def _fits(field: tuple[str, type], body: dict[str, Any]) -> bool:
    name, kind = field
    return body.get(name) is None or type(body[name]) is kind
