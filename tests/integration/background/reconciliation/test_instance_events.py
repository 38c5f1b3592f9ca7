"""Several events of one instance: which of them counts as the event of its end."""

from __future__ import annotations

from support.asked_engine import MINUTE


def test_two_callbacks_of_an_instance_that_pages_lack(open_app):
    """An instance that called with two classes, and that only a query by its id finds, fails no round."""
    asked = open_app({"tenants": ("a",)})
    asked.round()
    for name in ("x", "y"):
        asked.flow.take("i1", source="oa", callback_class=name, wait=0)
    asked.finish("i1", tenant_id="b")
    for _ in range(2):
        asked.clock.advance(10 * MINUTE)
        asked.round()
    assert asked.book() == {"i1": ("has_event", "")}
