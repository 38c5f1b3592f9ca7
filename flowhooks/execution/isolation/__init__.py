"""Handlers in processes of their own: a crash, a leak or an endless loop there is one attempt's outcome, no more.

It must not know the ledger, nor what follows from an outcome.

    the server ── pool ── keeper ─┐ asks for processes, hears how they ended
                   │              ▼
                   │           nursery   a process that has loaded the plugins, and forks
                   │              │
                   └──────────▶ child    runs one delivery at a time, and is used again

pool     gives each attempt a process, and takes it back
calling  has a delivery run in a process, watches the time, and makes of its end what dispatch understands
process  one such process, as the server sees it
keeper   starts the nursery, again if it ends, and hears what it and its processes say
output   what processes print, line by line into the log
nursery  a process executed anew: loads what the server has loaded, and forks a child when asked to
child    within such a process: takes a delivery, calls the function, answers
shipping what is logged in there, on its way to the server's log
setup    what the nursery is told at its start
wire     how deliveries and answers look on the way
"""

from __future__ import annotations

from flowhooks.execution.isolation.pool import ATTEMPT_END_TIMEOUT, ProcessPool, check_isolation

__all__ = ["ATTEMPT_END_TIMEOUT", "ProcessPool", "check_isolation"]
