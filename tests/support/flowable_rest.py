"""A real Flowable with its REST API, built with Maven, and the driver for the suite of engine clients."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
from flowhooks_flowable.client import FlowableClient

from flowhooks import EndState, EngineConfig
from flowhooks.testing import EngineDriver
from support.maven import JAVA, Build, skip_without_maven
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flowhooks import EngineClient

PROJECT = Path(__file__).parents[1] / "data/engines/flowable-rest"
PROCESSES = PROJECT / "processes.bpmn20.xml"
ZONE = "Asia/Shanghai"
"""The engine's time zone, so that a client that ignores zones is wrong by eight hours."""


@functools.cache
def class_path() -> str:
    """Build the engine once, and return its class path; skip the test without Java, Maven or Maven's downloads."""
    skip_without_maven()
    folder = Path(tempfile.mkdtemp(prefix="flowable-rest-")) / "project"
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns("target"))
    return Build(folder).class_path()


class FlowableServer:
    """Flowable in a process, with its database in a file and always on one port. It has no code of flowhooks.

    Args:
        folder: the folder of the database.
        properties: properties of Spring Boot.
    """

    def __init__(self, folder: Path, *properties: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/process-api"
        # Without a delay a commit is in the file before it is answered: a killed process loses none.
        database = f"jdbc:h2:file:{folder / 'engine'};WRITE_DELAY=0;DB_CLOSE_ON_EXIT=FALSE"
        self._arguments = [f"--server.port={self.port}", f"--spring.datasource.url={database}", *properties]
        self._log: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._http = httpx2.Client(auth=("rest", "secret"), timeout=60, trust_env=False)

    def start(self) -> FlowableServer:
        """Start the process, and wait until it answers."""
        zone = f"-Duser.timezone={ZONE}"
        self._process = subprocess.Popen(
            [*JAVA, zone, "-cp", class_path(), "com.example.harness.RestApplication", *self._arguments],
            env={"PATH": "/usr/bin:/bin", "REST_CREDENTIAL": "rest:secret"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._log.extend, args=(self._process.stderr,), daemon=True)
        self._reader.start()
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == '{"ready": true}\n', "".join(self._log[-60:])
        return self

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._wait_until_exited()

    def close(self) -> None:
        """End the process, if it runs."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
            self._process.kill()
            self._wait_until_exited()
        self._http.close()

    def _wait_until_exited(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        process.wait(60)
        self._reader.join(60)
        for stream in (process.stdin, process.stdout, process.stderr):
            with suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]

    def command(self, *words: str) -> None:
        """Send a command that the API does not have: `stop` or `run` (the clock), or `status`, an id and a word."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "{}\n", "".join(self._log[-60:])

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Send a request that must succeed; return the JSON of its answer."""
        response = self._http.request(method, f"{self.url}/{path}", **options)
        assert response.is_success, (method, path, response.status_code, response.text)
        return response.json() if response.content else None

    def deploy(self, xml: bytes, tenant: str = "") -> None:
        """Deploy a file with diagrams."""
        files = {"file": ("processes.bpmn20.xml", xml, "text/xml")}
        self.request("POST", "repository/deployments", files=files, data={"tenantId": tenant} if tenant else {})

    def start_instance(
        self,
        key: str,
        *,
        business_key: str | None = None,
        variables: Mapping[str, Any] | None = None,
        tenant: str | None = None,
    ) -> str:
        """Start an instance; return its id."""
        variable_list = [
            {"name": name, "value": value} | ({"type": "json"} if isinstance(value, dict | list) else {})
            for name, value in (variables or {}).items()
        ]
        body = {"processDefinitionKey": key, "businessKey": business_key, "variables": variable_list}
        body |= {"tenantId": tenant} if tenant else {}
        instance_id: str = self.request("POST", "runtime/process-instances", json=body)["id"]
        return instance_id

    def complete(self, instance: str, **variables: Any) -> None:
        """Complete the only task of an instance."""
        (task,) = self.request("GET", "runtime/tasks", params={"processInstanceId": instance})["data"]
        variable_list = [{"name": name, "value": value} for name, value in variables.items()]
        self.request("POST", f"runtime/tasks/{task['id']}", json={"action": "complete", "variables": variable_list})

    def cancel(self, instance: str, reason: str = "") -> None:
        """Delete a running instance."""
        params = {"deleteReason": reason} if reason else {}
        self.request("DELETE", f"runtime/process-instances/{instance}", params=params)

    def instances(self, key: str) -> list[dict[str, Any]]:
        """The running and ended instances of a process."""
        query = {"processDefinitionKey": key, "size": 1000}
        rows: list[dict[str, Any]] = self.request("POST", "query/historic-process-instances", json=query)["data"]
        return rows

    def called(self, caller: str) -> str:
        """The id of the instance that an instance has called."""
        query = {"superProcessInstanceId": caller}
        (row,) = self.request("POST", "query/historic-process-instances", json=query)["data"]
        called: str = row["id"]
        return called


class FlowableDriver(EngineDriver):
    """Starts and ends instances of the process `waiting`."""

    def __init__(self, server: FlowableServer) -> None:
        self.server = server
        for tenant in ("", "", "north", "south"):  # two versions without a tenant
            server.deploy(PROCESSES.read_bytes(), tenant)

    def client(self, config: EngineConfig) -> EngineClient:
        """Return a client."""
        return FlowableClient(config)

    def config(self) -> EngineConfig:
        """Return the settings of the engine."""
        return EngineConfig(source="oa", url=self.server.url, username="rest", password="secret")

    def start(
        self,
        *,
        business_key: str | None = None,
        variables: Mapping[str, Any] | None = None,
        tenant_id: str | None = None,
    ) -> str:
        """Start an instance."""
        return self.server.start_instance("waiting", business_key=business_key, variables=variables, tenant=tenant_id)

    def end(self, instance_id: str, end_state: EndState) -> str | None:
        """End an instance."""
        if end_state is EndState.ERROR:
            raise NotImplementedError("Flowable does not commit an error end event that nothing catches")
        if end_state is EndState.CANCELLED:
            self.server.cancel(instance_id)
            return None
        way = "terminate" if end_state is EndState.TERMINATED else "approved"
        self.server.complete(instance_id, way=way)
        return "stopped" if end_state is EndState.TERMINATED else "approved"

    def definition(self) -> tuple[str, int]:
        """Return the key and the version of `waiting`."""
        return "waiting", 2

    def end_together(self, instance_ids: Sequence[str]) -> None:
        """End instances while the engine's clock is stopped."""
        self.server.command("stop")
        for instance_id in instance_ids:
            self.end(instance_id, EndState.COMPLETED)
        self.server.command("run")

    def start_parent(self, variables: Mapping[str, Any]) -> tuple[str, str]:
        """Start an instance that calls another one."""
        parent = self.server.start_instance("caller", variables=variables)
        return parent, self.server.called(parent)

    def start_copying_parent(self, variables: Mapping[str, Any]) -> tuple[str, str]:
        """Start an instance that calls another one with copies of its variables."""
        parent = self.server.start_instance("giving_caller", variables=variables)
        return parent, self.server.called(parent)

    def delete_history(self, instance_id: str) -> None:
        """Delete the history of an instance."""
        self.server.request("DELETE", f"history/historic-process-instances/{instance_id}")

    def deploy_many(self, count: int) -> list[str]:
        """Deploy processes that end at once."""
        keys = [f"key{number}" for number in range(count)]
        processes = "".join(f'<process id="{key}"><startEvent id="s_{key}"/></process>' for key in keys)
        names = 'xmlns="http://www.omg.org/spec/BPMN/20100524/MODEL" targetNamespace="x"'
        self.server.deploy(f"<definitions {names}>{processes}</definitions>".encode())
        return keys
