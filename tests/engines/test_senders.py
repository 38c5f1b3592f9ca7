"""The Java code of the page about senders with one URL compiles against the interfaces that it uses."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from support.code_blocks import DOCS, blocks

PAGE = DOCS / "how-to/connect-a-sender-with-one-url.md"
INTERFACES = {
    "cn.iocoder.yudao.module.bpm.api.event.BpmProcessInstanceStatusEvent": "public class {name} {{}}",
    "cn.iocoder.yudao.module.bpm.framework.flowable.core.util.BpmHttpRequestUtils": """public class {name} {{
        public static Object sendHttpRequest(
                String url, org.springframework.util.MultiValueMap<String, String> headers, Object body,
                org.springframework.web.client.RestTemplate rest) {{ return null; }}
    }}""",
    "org.springframework.beans.factory.annotation.Value": "public @interface {name} {{ String value(); }}",
    "org.springframework.context.event.EventListener": "public @interface {name} {{}}",
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


@pytest.mark.java
def test_the_pages_code_compiles(tmp_path):
    """Both classes of the page compile without a warning."""
    compiler = shutil.which("javac")
    if not compiler:
        pytest.skip("there is no Java (Debian: apt-get install default-jdk-headless)")
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
