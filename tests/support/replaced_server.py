"""A server on SQLite that a test replaces, with a plugin that waits and is killed on request. No tests."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

from support.journal import whole_lines
from support.waiting import until

PLUGIN = '''
import atexit, multiprocessing, os, pathlib, signal, time
import flowhooks.app, flowhooks.cli.process.inherited, flowhooks.cli.process.replacement
from flowhooks import Retry, handler, hookimpl

JOURNAL = pathlib.Path(os.environ["JOURNAL"])

atexit.register(JOURNAL.with_name(f"exited-{os.getpid()}").touch)

def note(name, event):
    with JOURNAL.open("a") as journal:
        print("VERSION", name, event.flow_instance_id, os.getpid(), file=journal, flush=True)

def wait(name, event):
    """Wait as long as the gate is shut."""
    note(name, event)
    while JOURNAL.with_name("shut").exists():
        time.sleep(0.01)
    note("ended", event)

@handler(process_key="a", retry=Retry(attempts=50, delays=[0.05], jitter=0))
def work(event, delivery):
    """Safe to run again."""
    note("work", event)

@handler(process_key="held", retry=Retry(attempts=50, delays=[0.05], jitter=0))
def held(event, delivery):
    wait("held", event)

@handler(process_key="once")
def once(event, delivery):
    wait("once", event)

@handler(process_key="moves")
def moves(event):
    """Change the working folder of the process."""
    note("moves", event)
    folder = JOURNAL.with_name("elsewhere")
    folder.mkdir(exist_ok=True)
    os.chdir(folder)

@handler(process_key="forks")
def forks(event):
    """End a forked process, and leave another that runs as long as the gate is shut."""
    fork = multiprocessing.get_context("fork")
    ended, left = (fork.Process(target=wait, args=(name, event)) for name in ("ended", "left"))
    for process in (ended, left):
        process.start()
    ended.terminate()
    ended.join()

def hit(name):
    """Kill the process that a test names, or this process, once, at the point that the test names."""
    file = JOURNAL.with_name(f"kill-{name}")
    try:
        victim = file.read_text()
        file.unlink()
    except FileNotFoundError:
        return
    os.kill(int(victim or os.getpid()), signal.SIGKILL)

for module in (flowhooks.app, flowhooks.cli.process.inherited, flowhooks.cli.process.replacement):
    module.hit = hit

@hookimpl
def handlers():
    return [work, held, once, moves, forks]
'''
GOOD = {"processDefinitionKey": "a"}
ASYNC = {"Prefer": "respond-async"}


def install(site, version="1"):
    """Install a version of the plugin."""
    site.plugin("p", PLUGIN.replace("VERSION", version))


def serve(site):
    """Start a server with the plugin in a site; return the site."""
    install(site)
    site.forks_children = True
    # A commit may take seconds on a busy machine, and so may a test while its handlers wait.
    settings = {"ledger__write_timeout": 20, "shutdown__timeout": 600}
    site.server = site.start(listen="127.0.0.1:0", runner__threads=8, **settings)
    return site


def entered(site):
    """Return (version, step, instance, process id) of each entry of the journal."""
    lines = whole_lines(site.journal)
    return [(version, step, instance, int(pid)) for version, step, instance, pid in map(str.split, lines)]


def runs(site, instance):
    """Return the entries of an instance: its handler or `ended`, and the process id."""
    return [(step, pid) for _, step, name, pid in entered(site) if name == instance]


def restart(site, *words):
    """Run `flowhooks restart`."""
    return site.run("restart", *words, database=site.database)


def replace_server(site):
    """Replace the server by the command; return the JSON that it printed."""
    completed = restart(site, "--json")
    assert completed.returncode == 0, completed.stderr
    return json.loads(completed.stdout)


def lock_owner(site):
    """Return the id of the process that has the lock; the file is empty for a moment while it is written."""
    return json.loads(until(site.database.with_name("flowhooks.db.lock").read_text))["pid"]


def is_alive(pid):
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def shut(site):
    """Shut a gate during this context: handlers that wait at it run until it opens."""
    gate = site.folder / "shut"
    gate.touch()
    yield gate
    gate.unlink(missing_ok=True)
