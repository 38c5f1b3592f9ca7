"""Run handlers in processes of their own: a crash, a leak or an endless loop affects only one attempt.

    the server ── pool ── fork_server_manager ─┐ requests workers, receives their exit codes
                   │                           ▼
                   │                      fork_server    a process that has loaded the plugins and forks workers
                   │                           │
                   └───────────────────────▶ worker      runs one delivery at a time and is reused

pool                 assigns a worker to each attempt and takes it back
call                 runs a delivery in a worker, enforces the timeout, and raises the error of a failed attempt
process_handle       one worker, as the server sees it
fork_server_manager  starts and restarts the fork server, and reads its messages and the workers' output
output_capture       logs the workers' output line by line
fork_server          a new process: loads the plugins that the server has loaded, and forks workers on request
worker               inside a worker: receives a delivery, calls the function, replies
log_forwarding       sends the workers' log records to the server's log
config               the configuration that the fork server receives at its start
protocol             encoding of deliveries and replies between the processes
"""

from __future__ import annotations

from flowhooks.execution.isolation.call import IsolatedCalls, callers
from flowhooks.execution.isolation.pool import ATTEMPT_END_TIMEOUT, ProcessPool, check_isolation

__all__ = ["ATTEMPT_END_TIMEOUT", "IsolatedCalls", "ProcessPool", "callers", "check_isolation"]
