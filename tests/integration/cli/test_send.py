"""`flowhooks send`, to a real server and to other servers."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import unquote

import pytest


@pytest.fixture
def other():
    """A server that stores what it receives; `answers` has its status, headers and body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            kept.path, kept.headers = self.path, self.headers
            kept.body = self.rfile.read(int(self.headers["Content-Length"]))
            status, headers, body = kept.answers
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    class Kept(HTTPServer):
        answers = (200, {"Flowhooks-Event": "0197-1"}, b'{"success": true}')

    with Kept(("127.0.0.1", 0), Handler) as kept:
        kept.url = f"http://127.0.0.1:{kept.server_port}"
        thread = threading.Thread(target=kept.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield kept
        kept.shutdown()
        thread.join()


def test_a_callback_that_succeeds(server, run, run_json):
    """The output has the status, the event's id and the body; the event has the members that the options set."""
    result = run("send", "s1", "--to", server.call_backs, "--key", "leave", "--business-key", "合同", "--version", "7")
    assert result.exit_code == 0
    status, header, *body = result.stdout.splitlines()
    assert status == "200 OK"
    assert json.loads("".join(body)) == {"success": True}
    (event,) = run_json("events", "show", "s1", server=server)["events"]
    assert header == f"Flowhooks-Event: {event['id']}"
    assert event["data"] == {"processDefinitionKey": "leave", "businessKey": "合同", "processDefinitionVersion": 7}


def test_without_an_address_the_server_of_the_settings_is_called(other, run, tmp_path):
    """The setting `listen` of the settings file, or of the file that an option names; `--to` needs no settings."""
    (tmp_path / "flowhooks.toml").write_text(f'listen = "127.0.0.1:{other.server_port}"\n')
    assert run("send", "here", "--key", "k").exit_code == 0
    assert other.path == "/flow/here/call-back/complete"
    (tmp_path / "flowhooks.toml").rename(tmp_path / "another.toml")
    assert run("send", "there", "--config", "another.toml").exit_code == 0
    assert other.path == "/flow/there/call-back/complete"
    (tmp_path / "flowhooks.toml").write_text("not TOML")
    assert run("send", "anywhere", "--to", other.url).exit_code == 0


def test_a_callback_that_fails(server, run, run_json):
    """A failed handler is 500 and exit code 1; its text has no colours."""
    arguments = ("send", "s2", "--to", server.call_backs, "--key", "order", "--version", "2")
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stdout.startswith("500 Internal Server Error\n")
    assert "closed" in result.stdout
    assert "\x1b" not in result.stdout
    found = run_json(*arguments, code=1)
    assert set(found) == {"status", "reason", "headers", "body"}
    assert found["body"]["success"] is False


def test_options_set_prefer_and_accept_language(server, run_json):
    """`--async` and `--wait` set the request's Prefer, `--language` its Accept-Language."""
    found = run_json("send", "s3", "--to", server.call_backs, "--key", "nobody", "--async", "--language", "zh")
    assert found["status"] == 202
    assert found["headers"]["Preference-Applied"] == "respond-async"
    assert "回调已存储" in found["body"]["message"]
    found = run_json("send", "s3", "--to", server.call_backs, "--key", "nobody", "--wait", "1")
    assert found["headers"]["Preference-Applied"] == "wait=1"


@pytest.mark.parametrize("data", ['{"processDefinitionKey": "x", "n": 1.50}', "@body.json", "-"])
def test_data_is_sent_unchanged(other, run, tmp_path, data):
    """Data of an option, a file or standard input is sent byte for byte if no option sets a member."""
    raw = b'{"processDefinitionKey": "x", "n": 1.50}'
    (tmp_path / "body.json").write_bytes(raw)
    assert run("send", "i", "--to", other.url, "--data", data, given=raw).exit_code == 0
    assert other.body == raw


def test_options_override_data(other, run):
    """An option replaces the member of the data that it names; the other members stay."""
    data = '{"businessKey": "old", "note": "stays"}'
    run("send", "i", "--to", other.url, "--data", data, "--business-key", "new", "--class", "C", "--definition-id", "D")
    assert json.loads(other.body) == {
        "businessKey": "new",
        "note": "stays",
        "callBackProcessClass": "C",
        "processDefinitionId": "D",
    }


def test_the_path_is_encoded(other, run):
    """An id is encoded as one path segment; a path in the address is kept before it."""
    run("send", "a/b?ü ..", "--to", f"{other.url}/prefix/", "--kind", "x/y")
    assert unquote(other.path) == "/prefix/flow/a/b?ü ../call-back/x/y"
    assert other.path.count("/") == 5


def test_the_token_comes_from_the_environment_or_a_file(other, run, tmp_path):
    """The token is never an option; a file overrides the variable."""
    run("send", "i", "--to", other.url)
    assert "Authorization" not in other.headers
    run("send", "i", "--to", other.url, FLOWHOOKS_TOKEN="from-variable")
    assert other.headers["Authorization"] == "Bearer from-variable"
    (tmp_path / "token").write_text("from-file\n")
    run("send", "i", "--to", other.url, "--token-file", "token", FLOWHOOKS_TOKEN="from-variable")
    assert other.headers["Authorization"] == "Bearer from-file"


def test_no_proxy_and_no_redirect_is_used(other, run):
    """The command uses no proxy and follows no redirect, because the token is for one server."""
    other.answers = (307, {"Location": "http://127.0.0.1:1/elsewhere"}, b"")
    result = run("send", "i", "--to", other.url, FLOWHOOKS_TOKEN="t", http_proxy="http://127.0.0.1:1")
    assert result.exit_code == 1
    assert result.stdout.startswith("307 ")


def test_an_answer_of_another_program_is_no_success(other, run, run_json):
    """A proxy answers 200 with a page of its own: the answer is shown, nothing is stored, and the exit code is 1."""
    other.answers = (200, {"Content-Type": "text/html"}, b"<form>Log in, please</form>")
    result = run("send", "i", "--to", other.url)
    assert result.exit_code == 1
    assert result.stdout == "200 OK\n\n<form>Log in, please</form>\n"
    assert result.stderr == "Error: HTTP 200 without Flowhooks-Event: not answered by flowhooks\n"
    assert run_json("send", "i", "--to", other.url, code=1)["status"] == 200


def test_a_hostile_answer_is_inert(other, run):
    """Control characters in a status, header or body are not printed."""
    other.answers = (200, {"Flowhooks-Event": "\x1b[31mred"}, "\x1b]0;title\x07\u202eabc\x9b".encode())
    result = run("send", "i", "--to", other.url)
    assert result.stdout == ("200 OK\nFlowhooks-Event: \\u001b[31mred\n\n\\u001b]0;title\\u0007\\u202eabc\\u009b\n")


def test_an_unreachable_server(run):
    """An unreachable server is one line with its address and the reason."""
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        result = run("send", "i", "--to", url)
    next_step = "start the server with `flowhooks serve`, or name its address with --to"
    assert (result.exit_code, result.output) == (1, f"Error: no answer from {url}: connection refused; {next_step}\n")
    result = run("send", "i", "--to", "http://nothing.invalid")
    assert result.exit_code == 1
    assert result.output.startswith("Error: no answer from http://nothing.invalid: ")


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"])
def test_an_invalid_http_response(run, said):
    """A closed connection, another protocol or a truncated response is one line and exit code 1."""

    def answer():
        connection, _ = listening.accept()
        with closing(connection):
            connection.recv(65536)
            connection.sendall(said)

    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        thread = threading.Thread(target=answer)
        thread.start()
        result = run("send", "i", "--to", f"http://127.0.0.1:{listening.getsockname()[1]}")
        thread.join()
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert result.output.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--data", "{"), "--data is not JSON in UTF-8. For a file write @FILE."),
        (("--data", "body.json"), "--data is not JSON in UTF-8. For a file write @FILE."),
        (("--data", "[1]"), "--data is not a JSON object"),
        (("--data", '{"n": NaN}'), "--data is not JSON"),
        (("--data", '{"n": 1e999}', "--key", "k"), "that JSON cannot represent"),
        (("--data", '{"n": "\\ud800"}', "--key", "k"), "that JSON cannot represent"),
        (("--data", "@nothing.json"), "the file nothing.json cannot be read: No such file or directory"),
        (("--wait", "1", "--async"), "--wait and --async exclude each other"),
        (("--wait", "61"), "--wait"),
        (("--wait", "0.5"), "--wait"),
        (("--to", "127.0.0.1:8080"), "is not the address of a server; write http://HOST:PORT"),
        (("--to", "ftp://127.0.0.1"), "is not the address of a server"),
        (("--to", "http://127.0.0.1:port"), "is not the address of a server"),
        (("--to", "http://user:secret@127.0.0.1:1"), "leave the credential out of the address"),
        (("--token-file", "nothing"), "the token file nothing cannot be read"),
        (("--token-file", "spoilt"), "the file spoilt does not hold a single token"),
        (("--token-file", "empty"), "the file empty is empty"),
        (("--token", "secret"), "No such option"),
    ],
)
def test_wrong_usage(run, tmp_path, arguments, said):
    """Wrong usage exits with 2 before anything is sent; no credential is repeated."""
    (tmp_path / "spoilt").write_text("secret secret")
    (tmp_path / "empty").touch()
    result = run("send", "i", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert "secret" not in result.stderr
