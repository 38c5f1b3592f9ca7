"""Java code of the pages: for senders with one URL it compiles, and the client of the outbox never waits forever."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
from contextlib import suppress

import pytest

from support.code_blocks import DOCS, blocks

OUTBOX_PAGE = DOCS / "how-to/engines/java.md"
PAGE = DOCS / "how-to/connect-a-sender-with-one-url.md"
INTERFACES = {
    "cn.iocoder.yudao.module.bpm.api.event.BpmProcessInstanceStatusEvent": """public class {name} {{
        public Integer getStatus() {{ return null; }}
    }}""",
    "cn.iocoder.yudao.module.bpm.framework.flowable.core.util.BpmHttpRequestUtils": """public class {name} {{
        public static org.springframework.http.ResponseEntity<String> sendHttpRequest(
                String url, org.springframework.util.MultiValueMap<String, String> headers, Object body,
                org.springframework.web.client.RestTemplate rest) {{ return null; }}
    }}""",
    "org.springframework.beans.factory.annotation.Value": "public @interface {name} {{ String value(); }}",
    "org.springframework.context.event.EventListener": "public @interface {name} {{}}",
    "org.springframework.http.ResponseEntity": """public class {name}<T> {{
        public static class Headers {{ public String getFirst(String name) {{ return null; }} }}
        public static class Status {{ public int value() {{ return 0; }} }}
        public Headers getHeaders() {{ return null; }}
        public Status getStatusCode() {{ return null; }}
    }}""",
    "org.springframework.stereotype.Component": "public @interface {name} {{}}",
    "org.springframework.util.MultiValueMap": "public interface {name}<K, V> {{ void add(K key, V value); }}",
    "org.springframework.util.LinkedMultiValueMap": """public class {name}<K, V> implements MultiValueMap<K, V> {{
        public void add(K key, V value) {{}}
    }}""",
    "org.springframework.web.client.RestTemplate": "public class {name} {{}}",
    "jakarta.enterprise.context.ApplicationScoped": "public @interface {name} {{}}",
    "org.eclipse.microprofile.config.inject.ConfigProperty": "public @interface {name} {{ String name(); }}",
    "org.eclipse.microprofile.reactive.messaging.Message": """public interface {name}<T> {{
        Message<T> addMetadata(Object metadata);
    }}""",
    "io.quarkus.reactivemessaging.http.runtime.OutgoingHttpMetadata": """public class {name} {{
        public static class Builder {{
            public Builder addHeader(String name, String value) {{ return this; }}
            public OutgoingHttpMetadata build() {{ return null; }}
        }}
    }}""",
    "org.kie.kogito.addon.quarkus.common.reactive.messaging.MessageDecorator": """public interface {name} {{
        <T> org.eclipse.microprofile.reactive.messaging.Message<T> decorate(
                org.eclipse.microprofile.reactive.messaging.Message<T> message);
        default int priority() {{ return 100; }}
    }}""",
}
"""The declarations that the page's code uses, as yudao, Kogito and their libraries have them."""


def test_each_import_of_the_pages_code_is_declared():
    """The interfaces are those that the code of the page imports, and no others."""
    code = "".join(block.text for block in blocks(PAGE, "java"))
    imported = set(re.findall(r"^import ([\w.]+);", code, re.MULTILINE))
    assert imported == set(INTERFACES)


@pytest.fixture
def compiler():
    """The compiler of this machine."""
    path = shutil.which("javac")
    if not path:
        pytest.skip("there is no Java (Debian: apt-get install default-jdk-headless)")
    return path


@pytest.mark.java
def test_the_pages_code_compiles(tmp_path, compiler):
    """Both classes of the page compile without a warning."""
    files = []
    declared = [(name, f"package {name.rpartition('.')[0]};\n{text}") for name, text in INTERFACES.items()]
    for block in blocks(PAGE, "java"):
        package = re.search(r"^package ([\w.]+);", block.text, re.MULTILINE)[1]
        name = re.search(r"public class (\w+)", block.text)[1]
        declared.append((f"{package}.{name}", block.text))
    for name, text in declared:
        file = tmp_path / "src" / f"{name.replace('.', '/')}.java"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.format(name=name.rpartition(".")[2]) if name in INTERFACES else text)
        files.append(file)
    command = [compiler, "-encoding", "UTF-8", "-Xlint:all", "-Werror", "-d", tmp_path / "classes", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.java
def test_the_client_gives_up_on_a_response_whose_body_stalls(tmp_path, compiler):
    """The outbox has one thread, so its client gives up and sends the callback again later."""
    (code,) = (block.text for block in blocks(OUTBOX_PAGE, "java") if "class FlowhooksClient" in block.text)
    limit = "RESPONSE_SECONDS = 20;"
    assert code.count(limit) == 1
    (tmp_path / "FlowhooksClient.java").write_text(code.replace(limit, "RESPONSE_SECONDS = 1;"))
    (tmp_path / "Main.java").write_text(
        "public class Main { public static void main(String[] urls) throws Exception { System.out.println("
        'new com.example.flowhooks.FlowhooksClient(urls[0], null).send("complete", "i1", "{}").next); } }'
    )
    files = [tmp_path / "FlowhooksClient.java", tmp_path / "Main.java"]
    subprocess.run([compiler, "-d", tmp_path / "classes", *files], check=True)
    connections = []

    def respond(listener):
        with suppress(OSError):  # the client may have given up before
            connection, _ = listener.accept()
            connections.append(connection)
            connection.recv(65536)
            connection.sendall(b'HTTP/1.1 202 Accepted\r\nContent-Length: 20\r\n\r\n{"a"')

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=respond, args=(listener,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        command = ["java", "-XX:TieredStopAtLevel=1", "-cp", tmp_path / "classes", "Main", url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        thread.join(60)
    for connection in connections:
        connection.close()
    assert (done.stdout, done.stderr) == ("AGAIN\n", "")
