"""The call of a handler in which `delivery.transaction()` finds its transaction."""

from __future__ import annotations

import threading
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace

import pytest

from flowhooks import Delivery
from flowhooks.errors import TransactionError
from flowhooks.model.invocation import Invocation, current_invocation

DELIVERY = Delivery(id="d", event_id="e", handler="p:h", attempt=1)
BLOCK = object()
NOT_RUNNING = (
    r"^delivery\.transaction\(\) may be used only while the handler runs as an attempt, in the thread of its handler: "
    r"this attempt has ended or was never started, or this is another thread$"
)
OTHER = (
    r"^delivery\.transaction\(\) may be used only while the handler runs as an attempt, in the thread of its handler: "
    r"the attempt that runs in this thread is another one$"
)


@pytest.fixture
def invocation():
    """A call of the handler of `DELIVERY`."""
    return Invocation("d", 1, begin_transaction=lambda: BLOCK)


def test_a_delivery_has_a_transaction_only_during_its_call(invocation):
    """It has none before and after the call, and says so."""
    with pytest.raises(TransactionError, match=NOT_RUNNING):
        DELIVERY.transaction()
    with invocation:
        assert DELIVERY.transaction() is replace(DELIVERY).transaction() is BLOCK
    with pytest.raises(TransactionError, match=NOT_RUNNING):
        DELIVERY.transaction()


@pytest.mark.parametrize("change", [{"id": "other"}, {"attempt": 2}])
def test_a_handler_cannot_use_the_transaction_of_another_attempt(invocation, change):
    """A delivery that a handler has kept from another attempt is refused."""
    with invocation, pytest.raises(TransactionError, match=OTHER):
        replace(DELIVERY, **change).transaction()


def test_a_call_has_a_transaction_only_from_the_dispatcher():
    """Without one, as in a process of its own, the delivery refuses."""
    with Invocation("d", 1), pytest.raises(TransactionError, match=NOT_RUNNING):
        DELIVERY.transaction()


def test_another_thread_needs_a_copy_of_the_context(invocation):
    """A plain thread is refused here; a copied context finds the transaction, which checks the thread itself."""
    found = []

    def ask():
        try:
            found.append(DELIVERY.transaction())
        except TransactionError as error:
            found.append(error)

    with invocation:
        context = copy_context()
        for target in (ask, lambda: context.run(ask)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    with pytest.raises(TransactionError, match=NOT_RUNNING):
        raise found[0]
    assert found[1] is BLOCK


def test_an_exception_ends_the_call(invocation):
    """After an exception of the handler, its thread is in no call any more."""
    with suppress(KeyError), invocation:
        assert current_invocation() is invocation
        raise KeyError
    assert current_invocation() is None
