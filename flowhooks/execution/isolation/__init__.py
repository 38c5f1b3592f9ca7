"""Handlers in processes of their own: a crash, a leak or an endless loop there is the outcome of one attempt only.

    the server ── pool ── fork_server_manager ─┐ asks for processes, is told how they ended
                   │                           ▼
                   │                      fork_server    a process that has loaded the plugins, and forks
                   │                           │
                   └───────────────────────▶ worker      runs one delivery at a time, and is used again

pool                 gives each attempt a process, and takes it back
call                 has a delivery run in a process, watches the time, and raises what the process ended with
process              one such process, as the server sees it
fork_server_manager  starts the fork server, again if it ends, and reads what it and its processes send
output_capture       what processes print, line by line into the log
fork_server          a process executed afresh: loads what the server has loaded, and forks a worker when asked to
worker               within such a process: takes a delivery, calls the function, answers
log_forwarding       log records of the worker, on their way to the server's log
config               what the fork server gets at its start
protocol             how deliveries and answers are encoded between processes
"""

from __future__ import annotations

from flowhooks.execution.isolation.call import callers
from flowhooks.execution.isolation.pool import ATTEMPT_END_TIMEOUT, ProcessPool, check_isolation

__all__ = ["ATTEMPT_END_TIMEOUT", "ProcessPool", "callers", "check_isolation"]
