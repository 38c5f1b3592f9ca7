"""Let a test drive the application of the page: one command per line, and one answer per line, in JSON.

The page's code is beside this file: `flowhooks_outbox.py`, `application.py`, `conclusions.py`.
"""

import json
import os
import sys
import uuid
from contextlib import closing
from pathlib import Path

import application
from flowhooks_outbox import Outbox

FLOWS = "CREATE TABLE IF NOT EXISTS flow (id TEXT PRIMARY KEY, business_key TEXT, state TEXT NOT NULL, workflow TEXT)"


class Flows:
    """Flows that a program ends, in SQLite."""

    mark = "?"
    outbox = application.outbox

    def connect(self):
        return application.connect()

    def prepare(self, script):
        with closing(self.connect()) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(FLOWS + ";" + script)

    def query(self, connection, sql, *values):
        return connection.execute(sql.replace("?", self.mark), values)

    def start(self, key, business_key):
        flow = str(uuid.uuid4())
        with closing(self.connect()) as connection, connection:
            sql = "INSERT INTO flow (id, business_key, state) VALUES (?, ?, 'running')"
            self.query(connection, sql, flow, business_key)
        return flow

    def complete(self, flow, variables):
        application.complete(flow, variables.get("decision", "approved"))

    def end(self, connection, flow, conclusion):
        application.end(connection, flow, conclusion)

    def refuse(self, flow):
        """End a flow in a transaction that is rolled back; how many callbacks had been written in it."""
        with closing(self.connect()) as connection:
            self.end(connection, flow, "approved")
            (written,) = self.query(connection, "SELECT COUNT(*) FROM flowhooks_outbox").fetchone()
            connection.rollback()
        return written

    def add(self, flow, body):
        with closing(self.connect()) as connection:
            self.outbox.add(connection, flow, **body)
            connection.commit()

    def look(self):
        with closing(self.connect()) as connection:
            (running,) = self.query(connection, "SELECT COUNT(*) FROM flow WHERE state = 'running'").fetchone()
            sql = "SELECT flow_instance_id, body, due_at, tries, problem FROM flowhooks_outbox ORDER BY due_at"
            rows = self.query(connection, sql).fetchall()
        names = ("id", "body", "due_at", "tries", "problem")
        return {"running": running, "outbox": [dict(zip(names, row, strict=True)) for row in rows]}


class PostgreSQLFlows(Flows):
    """The same in PostgreSQL."""

    mark = "%s"

    def __init__(self):
        self.outbox = Outbox(self.connect, os.environ["FLOWHOOKS_URL"], os.environ["FLOWHOOKS_TOKEN"], mark="%s")

    def connect(self):
        import psycopg

        return psycopg.connect(os.environ["APPLICATION_DATABASE"])

    def prepare(self, script):
        with closing(self.connect()) as connection:
            connection.execute(FLOWS + ";" + script)
            connection.commit()

    def complete(self, flow, variables):
        with closing(self.connect()) as connection, connection:
            self.end(connection, flow, variables.get("decision", "approved"))
        self.outbox.wake()

    def end(self, connection, flow, conclusion):
        sql = "UPDATE flow SET state = 'completed' WHERE id = ? AND state = 'running' RETURNING business_key"
        (business_key,) = self.query(connection, sql, flow).fetchone()
        body = {"businessKey": business_key, "conclusion": conclusion, "processDefinitionKey": "contract_approval"}
        self.outbox.add(connection, flow, **body, processDefinitionVersion=1)


class Workflows(Flows):
    """Workflows that SpiffWorkflow runs, stored as text beside the flow."""

    def __init__(self):
        from SpiffWorkflow.bpmn.parser import BpmnParser
        from SpiffWorkflow.bpmn.serializer import BpmnWorkflowSerializer

        parser = BpmnParser()
        parser.add_bpmn_file("expense.bpmn")
        self.specs = parser.get_spec("expense_approval"), parser.get_subprocess_specs("expense_approval")
        self.serializer = BpmnWorkflowSerializer()

    def start(self, key, business_key):
        from SpiffWorkflow.bpmn.workflow import BpmnWorkflow

        flow = super().start(key, business_key)
        workflow = BpmnWorkflow(*self.specs)
        workflow.do_engine_steps()
        with closing(self.connect()) as connection, connection:
            self.save(connection, flow, workflow)
        return flow

    def save(self, connection, flow, workflow):
        text = self.serializer.serialize_json(workflow)
        self.query(connection, "UPDATE flow SET workflow = ? WHERE id = ?", text, flow)

    def load(self, flow):
        with closing(self.connect()) as connection:
            (text,) = self.query(connection, "SELECT workflow FROM flow WHERE id = ?", flow).fetchone()
        return self.serializer.deserialize_json(text)

    def complete(self, flow, variables):
        from conclusions import conclusion, ended_normally
        from SpiffWorkflow.util.task import TaskState

        workflow = self.load(flow)
        if variables.get("decision") == "cancelled":
            workflow.cancel()
        else:
            (task,) = workflow.get_tasks(state=TaskState.READY, manual=True)
            task.data.update({"decision": "approved"} | variables)
            task.run()
            workflow.do_engine_steps()
        with closing(self.connect()) as connection, connection:
            self.save(connection, flow, workflow)
            if ended_normally(workflow):
                self.end(connection, flow, conclusion(workflow))
        self.outbox.wake()


def obey(flows, word, first=None, second=None):
    if word == "start":
        return {"id": flows.start(first, second)}
    if word == "complete":
        flows.complete(first, second or {})
    elif word == "refuse":
        return {"written": flows.refuse(first)}
    elif word == "call":
        flows.add(first, second)
    elif word == "look":
        return flows.look()
    flows.outbox.wake()
    return {}


def main(mode, table):
    flows = {"sqlite": Flows, "postgresql": PostgreSQLFlows, "spiffworkflow": Workflows}[mode]()
    flows.prepare(Path(table).read_text("utf-8"))
    flows.outbox.start()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        try:
            said = obey(flows, *json.loads(line))
        except Exception as error:  # noqa: BLE001 - the test receives it
            said = {"error": repr(error)}
        print(json.dumps(said), flush=True)


main(*sys.argv[1:])
