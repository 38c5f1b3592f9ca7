"""Handlers that do what no handler should, each in a process of its own and for the key of its own name."""

import ctypes
import logging
import mmap
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import structlog

from flowhooks import Reject, Retry, RetryAfter, handler, hookimpl

HANDLERS = []
SECRETS = {}
RUNS = []


def alone(function=None, /, **given):
    """Declare an isolated handler that listens to the key of its own name."""
    if function is None:
        return lambda handler_function: alone(handler_function, **given)
    given = {"isolation": "process", "timeout": 60} | given
    made = handler(process_key=function.__name__, **given)(function)
    HANDLERS.append(made)
    return made


@alone
def echo(event, delivery):
    """Return the arguments and the process."""
    RUNS.append(1)
    return {
        "event": {name: getattr(event, name) for name in ("id", "source", "kind", "flow_instance_id", "business_key")},
        "data": event.data,
        "received_at": event.received_at.isoformat(),
        "delivery": [delivery.id, delivery.event_id, delivery.handler, delivery.attempt],
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "runs": len(RUNS),
    }


@alone
def nothing(event):
    """Return nothing."""


@alone
def rejects(event):
    """Reject the event."""
    raise Reject("not for me")


@alone
def asks_again(event):
    """Request a later retry."""
    raise RetryAfter(60, "the archive is closed")


CLOSED = RetryAfter(60, "closed")


@alone
def asks_again_with_one_object(event):
    """Raise one exception object in each attempt."""
    raise CLOSED


class Busy(RetryAfter):
    """An exception that does not call `RetryAfter.__init__`."""

    def __init__(self, seconds):
        """Keep any seconds."""
        self.seconds = seconds


@alone(retry=Retry())
def asks_again_oddly(event):
    """Request a later retry after seconds that are no number."""
    raise Busy(seconds={1})


@alone
def fails(event):
    """Fail with a secret in its error."""
    raise LookupError(f"the password {SECRETS.get('password')} was refused")


@alone
def sys_exits(event):
    """Call sys.exit()."""
    sys.exit(3)


@alone
def os_exits(event):
    """Exit at once with an error."""
    os._exit(3)


@alone
def os_exits_well(event):
    """Exit at once with code 0."""
    os._exit(0)


@alone
def segfaults(event):
    """Crash in C."""
    print("about to read what is not there")
    ctypes.string_at(0)


@alone
def aborts(event):
    """Abort like C++ without memory."""
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
    os.abort()


@alone
def killed(event):
    """Be killed by another process."""
    os.kill(os.getpid(), signal.SIGKILL)


@alone(memory_mib=64)
def allocates(event):
    """Allocate more memory than allowed."""
    return len(bytearray(event.data["mebibytes"] * 1024**2))


@alone(memory_mib=64)
def maps(event):
    """Map more memory than allowed, outside of Python."""
    with mmap.mmap(-1, event.data["mebibytes"] * 1024**2, flags=mmap.MAP_PRIVATE) as found:
        return len(found)


KEPT = []


@alone(memory_mib=64)
def leaks(event):
    """Keep memory that is not needed."""
    KEPT.append(b"x" * 24 * 1024**2)
    return os.getpid()


@alone(timeout=1)
def hangs(event):
    """Wait forever."""
    time.sleep(600)


@alone(timeout=1)
def loops(event):
    """Loop in Python, and ignore signals."""
    for signal_number in (signal.SIGTERM, signal.SIGINT, signal.SIGABRT):
        signal.signal(signal_number, signal.SIG_IGN)
    while True:
        pass


@alone(timeout=1)
def loops_in_c(event):
    """Loop in C without releasing the interpreter lock."""
    re.match(r"(a+)+$", "a" * 60 + "b")


@alone
def closes_everything(event):
    """Close all open files, and continue."""
    os.closerange(0, 256)
    time.sleep(600)


@alone
def talks_rubbish(event):
    """Write to every open file."""
    for file in range(3, 64):
        try:
            os.write(file, b"\xff" * 64)
        except OSError:
            continue
    time.sleep(600)


@alone
def prints(event):
    """Print text that is no JSON on both streams."""
    print("{not json}\x1b[2J")
    sys.stderr.write("half a line")
    sys.stderr.flush()
    os.write(1, b" and \xff the rest\n")


@alone
def prints_much(event):
    """Print endlessly."""
    for number in range(5_000):
        print(number)


@alone
def returns_much(event):
    """Return a result that is too large."""
    return "x" * 50 * 1024**2


@alone
def returns_a_set(event):
    """Return a value that JSON does not have."""
    return {1, 2}


@alone
def returns_a_deep_list(event):
    """Return a value whose nesting JSON can hardly express."""
    value = []
    for _ in range(980):
        value = [value]
    return value


@alone
def returns_a_generator(event):
    """Return a generator."""
    return (number for number in range(3))


@alone
def forks(event):
    """Fork, and return twice."""
    os.fork()
    return "once"


@alone
def starts(event):
    """Leave a program running, and return."""
    left = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    Path(event.data["mark"]).write_text(str(left.pid))
    os._exit(1)


@alone
def opens(event):
    """Return the open files."""
    found = []
    for file in range(1024):
        try:
            found.append(str(Path(f"/proc/self/fd/{file}").readlink()))
        except OSError:
            continue
    return sorted(found)


@alone
def threads(event):
    """Leave a thread running."""
    threading.Thread(target=time.sleep, args=(600,), daemon=False).start()
    return threading.active_count()


@alone
def writes_to_the_ledger(event, delivery):
    """Request a transaction, which only the server's process has."""
    with delivery.transaction():
        pass


@alone
def secret(event):
    """Return a secret."""
    return {"password": SECRETS.get("password"), "said": f"with {SECRETS.get('password')}"}


@alone
def logs(event):
    """Log through both logging interfaces."""
    logging.getLogger("unruly").warning("plain %s", "words", extra={"number": 7})
    try:
        {}["inner"]
    except KeyError:
        structlog.get_logger("unruly").exception("of_structlog", colour="red")


@alone
def logs_and_ends(event):
    """Log many records, also in a thread, and then return, raise or exit."""
    logger = logging.getLogger("unruly")
    for number in range(200):
        logger.warning("record %d", number)
    thread = threading.Thread(target=logger.warning, args=("of a thread\x1b[2J, %s", SECRETS["password"]))
    thread.start()
    thread.join()
    {"returns": lambda: None, "raises": lambda: {}["missing"], "exits": lambda: os._exit(3)}[event.data["how"]]()


@alone
def logs_at_length(event):
    """Log a secret at the place where long records are cut."""
    logger = logging.getLogger("unruly")
    logger.warning("%s%s", "x" * (8192 - 12), SECRETS["password"])
    error = LookupError(SECRETS["password"] + "x" * (32768 - 12))
    logger.error("with its traceback", exc_info=error)


@alone
def logs_oddly(event):
    """Log at unknown levels, and values whose names are arguments elsewhere."""
    logging.addLevelName(35, "NOTICE")
    logger = logging.getLogger("unruly")
    logger.log(35, "at_35", extra=event.data["extra"])
    logger.log(10**30, "at_the_top")
    return "well"


@alone
def logs_afterwards(event):
    """Log in a thread after the first delivery has ended, before the second one starts."""
    go, logged = Path(event.data["go"]), Path(event.data["logged"])

    def log():
        while not go.exists():
            time.sleep(0.01)
        logging.getLogger("unruly").warning("afterwards")
        logged.touch()

    if not go.exists():
        threading.Thread(target=log, daemon=True).start()


@alone
def limits(event):
    """Return the limits of the process."""
    return list(resource.getrlimit(resource.RLIMIT_CORE))


@alone(retry=Retry(attempts=3, delays=(5,)))
def may_run_again(event):
    """Crash with `retry=`."""
    os._exit(1)


@alone(retry=Retry(attempts=1))
def has_no_more(event):
    """Crash with no attempt left."""
    os._exit(1)


@alone(probe=lambda event, delivery: event.data.get("done"))
def can_tell(event):
    """Crash with a probe that answers."""
    os._exit(1)


@alone(probe=lambda event, delivery: os._exit(9))
def cannot_be_asked(event):
    """Crash with a probe that crashes too."""
    os._exit(1)


@alone(timeout=60)
def waits_for(event):
    """Signal the start, and wait for a file."""
    Path(event.data["mark"]).write_text(str(os.getpid()))
    while not Path(event.data["go_on"]).exists():
        time.sleep(0.01)
    return "went on"


@hookimpl
def configure(settings):
    """Store the secret."""
    SECRETS.update(settings)


@hookimpl
def handlers():
    """All isolated handlers, and one that runs in a thread."""
    return [*HANDLERS, in_thread]


@handler(process_key="in_thread")
def in_thread(event):
    """Return the process in which it runs."""
    return os.getpid()
