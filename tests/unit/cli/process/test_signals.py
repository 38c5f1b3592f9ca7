"""The effect of a signal while a process starts."""

from __future__ import annotations

import os
import signal

import pytest

from flowhooks.cli.process import signals


def handlers():
    """The handlers of SIGTERM and SIGINT."""
    return [signal.getsignal(number) for number in signals.STOP_SIGNALS]


@pytest.fixture(autouse=True)
def _handlers_of_the_test_process():
    """Restore the handlers that stay after a process has stopped waiting."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGUSR2)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def stopped(monkeypatch):
    """One entry for each time that timers would be stopped. The time limit of a test is one of them."""
    stops = []
    monkeypatch.setattr(signals, "stop_timers", lambda: stops.append(1))
    return stops


@pytest.fixture
def exits(monkeypatch):
    """The exit codes with which the process would end."""
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


def test_the_kernel_ends_a_starting_process():
    """No code of the process is needed for it. Once plugins are loaded, the process handles both signals itself."""
    with signals.ShutdownSignal() as shutdown_signal:
        assert handlers() == [signal.SIG_DFL, signal.SIG_DFL]
        shutdown_signal.finish_loading()
        assert handlers() == [shutdown_signal._on_signal] * 2


def test_the_first_process_of_a_container_ends_itself(monkeypatch, exits):
    """The kernel ignores signals that such a process does not handle."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with signals.ShutdownSignal() as shutdown_signal:
        signal.raise_signal(signal.SIGTERM)
        assert exits == [128 + signal.SIGTERM]
        assert handlers() == [shutdown_signal._on_signal] * 2


def test_a_shutdown_request_during_the_start_sends_sigterm(monkeypatch):
    """A process whose supervisor has exited ends too."""
    sent = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))
    with signals.ShutdownSignal() as shutdown_signal:
        shutdown_signal.request()
        assert not shutdown_signal.wait(0)
    assert sent == [(os.getpid(), signal.SIGTERM)]


def test_signals_of_a_timer_do_not_prolong_a_wait():
    """A plugin may have a timer, as profilers do, whose signals come more often than the wait is long."""
    ticks, last = [], 400

    def tick(*_):
        ticks.append(1)
        if len(ticks) == last:  # otherwise the test would not end if the wait does not
            signal.setitimer(signal.ITIMER_REAL, 0)

    earlier = signal.signal(signal.SIGALRM, tick)
    limit = signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    try:
        with signals.ShutdownSignal() as shutdown_signal:
            assert not shutdown_signal.wait(0.05)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
        signal.setitimer(signal.ITIMER_REAL, *limit)
    assert len(ticks) < last


def test_the_time_limit_of_a_test_is_kept(stopped):
    """A process stops the timers of its plugins at its end, but not in these tests."""
    limit = signal.getitimer(signal.ITIMER_REAL)
    with signals.ShutdownSignal():
        pass
    assert stopped == [1]
    assert bool(signal.getitimer(signal.ITIMER_REAL)[0]) is bool(limit[0])


@pytest.mark.parametrize(("before", "ends"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_sighup_after_the_terminal_closed(monkeypatch, before, ends):
    """It stops a process; a process that was started with `nohup` takes the signal for a request to reload."""
    terminals = iter([True])
    monkeypatch.setattr(signals, "has_terminal", lambda: next(terminals, False))
    earlier = signal.signal(signal.SIGHUP, before)
    hangups = []
    try:
        with signals.ShutdownSignal() as shutdown_signal:
            shutdown_signal.finish_loading()
            signal.raise_signal(signal.SIGHUP)
            assert shutdown_signal.wait(0, on_hangup=lambda: hangups.append(1)) is ends
    finally:
        signal.signal(signal.SIGHUP, earlier)
    assert len(hangups) == (not ends)


def test_sigusr2_ends_the_wait_if_a_replacement_is_possible():
    """SIGUSR2 asks for one each time; it is ignored if the process cannot be replaced."""
    answers = [False, True]
    with signals.ShutdownSignal() as shutdown_signal:
        shutdown_signal.finish_loading()
        signal.raise_signal(signal.SIGUSR2)
        assert not shutdown_signal.wait(0)
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGUSR2)
        assert shutdown_signal.wait(0, on_replace=lambda: answers.pop(0))
    assert answers == []
    assert not shutdown_signal.was_received


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR2])
def test_a_stop_signal_during_exit_is_ignored(number):
    """It does not end a process that is about to exit by itself."""
    with signals.ShutdownSignal() as shutdown_signal:
        shutdown_signal.finish_loading()
    assert handlers() == [shutdown_signal.previous_handlers[stop] for stop in signals.STOP_SIGNALS]
    signal.raise_signal(number)
