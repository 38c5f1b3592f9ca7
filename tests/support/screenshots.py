"""Make the documentation's pictures of the console: `.venv/bin/python tests/support/screenshots.py`.

All content comes from a server with example plugins, whose ledger is deleted afterwards.
"""

from __future__ import annotations

import contextlib
import json
import linecache
import sys
import tempfile
import threading
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace

sys.path.append(str(Path(__file__).parents[1]))  # where `support` is

from sqlalchemy import select, update

from flowhooks import Reject, Retry, handler, hookimpl, messages
from flowhooks.app import App
from flowhooks.clock import to_text
from flowhooks.errors import IdentityConflict
from flowhooks.intake.callback import Callback
from flowhooks.ledger import alert_queries, audit, database, maintenance
from flowhooks.ledger.bulk_operations import read_operation
from flowhooks.ledger.queries import EventFilter
from flowhooks.ledger.tables import attempts
from flowhooks.model.bulk_operation import BulkAction
from flowhooks.operations import dismiss, registry
from flowhooks.operations.context import Actor
from flowhooks.settings import OperatorSettings, Secret, Settings, Source
from flowhooks.settings.engine import EngineSettings
from flowhooks.testing import ManualClock
from flowhooks.web.admin.app import create_admin
from flowhooks.web.admin.console import action_page
from flowhooks.web.admin.passwords import hash_password
from flowhooks.web.server.server import Limits, Server
from support import browsers, engine_ledger, trend_rows
from support.app_harness import plugin
from support.silent_engine import SilentClient
from support.waiting import until

FOLDER = Path(__file__).parents[2] / "docs" / "how-to" / "console"
DESKTOP = {"width": 1100, "height": 760}
PHONE = {"width": 360, "height": 720}
PICTURES = (
    ("overview", "/", DESKTOP, "light", "en-GB"),
    ("overview-phone", "/", PHONE, "dark", "zh-CN"),
    ("events", "/events?key=contract_approval", DESKTOP, "dark", "en-GB"),
    ("events-phone", "/events?state=parked", PHONE, "light", "zh-CN"),
    ("event", "EVENT", DESKTOP, "light", "en-GB"),
    ("event-phone", "EVENT", PHONE, "dark", "zh-CN"),
    ("log", "LOG", DESKTOP, "dark", "en-GB"),
    ("log-phone", "LOG", PHONE, "light", "zh-CN"),
    ("conflict", "CONFLICT", DESKTOP, "light", "en-GB"),
    ("conflict-phone", "CONFLICT", PHONE, "dark", "zh-CN"),
    ("errors", "/errors", DESKTOP, "light", "en-GB"),
    ("errors-phone", "/errors", PHONE, "dark", "zh-CN"),
    ("error", "ERROR", DESKTOP | {"height": 1000}, "dark", "zh-CN"),
    ("error-phone", "ERROR", PHONE | {"height": 1560}, "light", "en-GB"),
    ("operations", "/operations", DESKTOP, "light", "en-GB"),
    ("operation", "OPERATION", DESKTOP, "dark", "en-GB"),
    ("operation-phone", "OPERATION", PHONE, "light", "zh-CN"),
    ("handlers", "/handlers", DESKTOP, "light", "zh-CN"),
    ("handler", "/handlers/documents:archive_contract", DESKTOP | {"height": 1420}, "light", "en-GB"),
    ("handler-phone", "/handlers/documents:archive_contract", PHONE | {"height": 1500}, "dark", "zh-CN"),
    ("parked", "/parked", DESKTOP, "dark", "zh-CN"),
    ("rejected-requests", "/rejected-requests", DESKTOP, "light", "zh-CN"),
    ("sources", "/sources", DESKTOP, "light", "en-GB"),
    ("source", "/sources/oa", DESKTOP | {"height": 1500}, "light", "en-GB"),
    ("source-phone", "/sources/oa", PHONE, "dark", "zh-CN"),
    ("engines", "/engines", DESKTOP | {"height": 900}, "light", "en-GB"),
    ("engines-phone", "/engines", PHONE, "light", "zh-CN"),
    ("alerts", "/alerts", DESKTOP, "light", "en-GB"),
    ("confirm", "/do/replay?key=contract_approval&state=dead&back=/console/events", DESKTOP, "light", "en-GB"),
    ("confirm-phone", "/do/dismiss?state=parked&back=/console/parked", PHONE, "dark", "zh-CN"),
    ("twice", "AGAIN", DESKTOP, "dark", "zh-CN"),
    ("progress", "PROGRESS", DESKTOP, "light", "en-GB"),
    ("audit", "/audit", DESKTOP, "light", "en-GB"),
    ("storage", "/storage", DESKTOP, "light", "en-GB"),
    ("storage-phone", "/storage", PHONE, "dark", "zh-CN"),
)
"""The content of each picture: its page, size, colours and language."""
BROKEN = """
def handlers():
    raise LookupError("no table payroll in the company's database")
"""
ERP = """
class OrderNotBooked(Exception):
    pass


def post(order):
    if int(order[2:]) > 50:
        raise TimeoutError(f"no answer for order {order} within 5 s")


def book_order(event):
    \"\"\"Book the order in the ERP.\"\"\"
    try:
        post(event.business_key)
    except TimeoutError as error:
        raise OrderNotBooked(f"order {event.business_key} is not booked") from error
"""
"""A handler whose errors have a cause."""
METRICS = """
import time


def run_handler():
    started = time.monotonic()
    try:
        return (yield)
    finally:
        seconds = time.monotonic() - started
"""
"""A plugin around each call of a handler, so that tracebacks have frames of flowhooks."""


def plugins(clock):
    """Plugins of a company with contracts, leave and a broken payroll."""

    @handler(process_key="contract_approval", retry=Retry(attempts=5))
    def archive_contract(event):
        """Archive the signed contract."""
        clock.advance(0.02 + len(event.business_key) * 0.004 + int(event.flow_instance_id) % 7 * 0.03)
        if int(event.flow_instance_id) % 13 == 0:
            raise Reject(f"contract {event.business_key} has no signature")
        return {"archived": event.business_key}

    @handler(process_key="leave_request", name="book_leave")
    def book_leave(event):
        """Write the granted days into the calendar."""
        clock.advance(0.012)

    @handler(callback_class="com.example.Retired", name="old_books")
    def old_books(event):
        """A handler that stays until the last old process has ended."""

    @handler(every=True, name="count")
    def count(event):
        """Count the events."""
        clock.advance(0.001)

    payroll, erp, metrics = (run_source(*file) for file in (("payroll", BROKEN), ("erp", ERP), ("metrics", METRICS)))
    book_order = handler(process_key="purchase_order")(erp["book_order"])
    return {
        "documents": SimpleNamespace(
            __doc__="Contracts go into the archive.",
            __version__="1.4",
            handlers=hookimpl(lambda: [archive_contract, old_books]),
        ),
        "staff": SimpleNamespace(
            __doc__="Leave and its calendar.", __version__="0.9", handlers=hookimpl(lambda: [book_leave, count])
        ),
        "payroll": SimpleNamespace(__doc__="Payments.", handlers=hookimpl(payroll["handlers"])),
        "erp": SimpleNamespace(__doc__="Purchase orders.", __version__="2.1", handlers=hookimpl(lambda: [book_order])),
        "metrics": SimpleNamespace(
            __doc__="Times of handlers.", __version__="1.0", run_handler=hookimpl(wrapper=True)(metrics["run_handler"])
        ),
    }


def run_source(name, text):
    """Run the source of a plugin, whose tracebacks are then as those of an operator's own file; return its names."""
    file = f"/opt/flowhooks/plugins/{name}.py"
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    exec(compile(text, file, "exec"), names := {})
    return names


def fill(app, clock):
    """Send the callbacks of an hour of a working day."""

    def take(instance, **body):
        callback = Callback(source="oa", kind="complete", flow_instance_id=instance, body=body, text=json.dumps(body))
        return app.intake.accept(callback, wait=20)

    for number in range(150):
        clock.advance(8 + (number * 37) % 31)
        instance = str(4700 + number)
        if number % 3:
            key = f"C-2026-{instance}"
            take(instance, processDefinitionKey="contract_approval", processDefinitionVersion=3, businessKey=key)
        elif number % 21 == 0:
            take(instance, processDefinitionKey="payment", processDefinitionVersion=1, businessKey=f"P-{number}")
        elif number % 24 == 9:
            take(instance, **purchase_order(number, 480 + number))
        else:
            take(instance, processDefinitionKey="leave_request", businessKey=f"L-{number}")

    with contextlib.suppress(IdentityConflict):
        take("4733", **purchase_order(33, 531))


def purchase_order(number, amount):
    """The body of a callback for an order."""
    order = {"supplier": "Yangtze Paper", "currency": "CNY", "amount": amount, "lines": [{"item": "A4", "count": 40}]}
    return {"processDefinitionKey": "purchase_order", "businessKey": f"O-{number:02}", **order}


def write_logs(app):
    """Store the log records of the handler of orders, as the logging of a server does."""

    def store(transaction):
        for row in transaction.connection.execute(
            select(attempts).where(attempts.c.error.like("%is not booked"))
        ).all():
            order, at = row.error.split()[-4], to_text(row.started_at)
            lines = (
                f"{at} info erp: booking the order order={order}",
                f"{at} debug erp: POST http://erp.internal/orders attempt=1 timeout=5",
                f"{at} warning erp: no answer, giving up order={order}",
            )
            of_attempt = (attempts.c.delivery_id == row.delivery_id, attempts.c.number == row.number)
            transaction.connection.execute(update(attempts).where(*of_attempt).values(log="\n".join(lines)))

    app.ledger.write(store)


def observe(app, clock):
    """Record sizes of the database and a backup, as a day of running does; the disk is that of a server."""
    now = clock.now()
    with app.ledger.connection() as connection:
        size = maintenance.ledger_size(connection)
    for hours in range(23, 1, -1):
        at = now - hours * 3_600_000_000
        app.ledger.write(partial(maintenance.record, kind="size", at=at, value=size - hours * 21_000))
    app.ledger.write(partial(maintenance.record, kind="backup", at=now - 8 * 3_600_000_000, value=size))
    database.free_disk_bytes = lambda _url: 41_300_000_000
    database.display_name = lambda _url: "/var/lib/flowhooks/flowhooks.db"


def reject_requests(app, clock):
    """Send requests that a callback listener rejects on such a day."""
    for instance, status, key, params in (
        ("4711", 400, "body_not_json", {"line": 1, "column": 27}),
        ("4712", 422, "path_id", {}),
        ("4733", 409, "conflict", {}),
        ("4740", 401, "unauthorized", {}),
        ("4741", 503, "ledger_slow", {}),
    ):
        clock.advance(100)
        english, chinese = (messages.text(key, language, **params) for language in messages.LANGUAGES)
        path = f"/flow/{instance}/call-back/complete"
        app.rejected_requests.record(
            path=path,
            address="10.0.3.17",
            status=status,
            english=english,
            chinese=chinese,
            source="" if status == 401 else "oa",
            event_id=_event(app, instance) if status == 409 else "",
        )
    app.rejected_requests.flush()


def sources():
    """The company's office automation, which sends callbacks, and an older engine, whose history is only read."""
    engine = EngineSettings(
        client="flowable", url="http://oa.internal:8080/flowable-rest/service", username="rest", variables=("amount",)
    )
    return {
        "oa": Source(
            secrets=(Secret(file="/etc/flowhooks/oa.secret", not_after=datetime(2026, 11, 3, tzinfo=UTC)),),
            engine=engine,
            silent_after=3600.0,
        ),
        "archive": Source(engine=replace(engine, url="http://archive.internal:8080/engine-rest", client="camunda")),
    }


def reconcile(app, clock):
    """Store the results of reconciliation with both engines on such a day."""
    flow, now = SimpleNamespace(app=app, clock=clock), clock.now()
    deployed = (("contract_approval", 3, "Contract approval"), ("leave_request", 2), ("payment", 1, "Payment"))
    engine_ledger.position(
        flow, "oa", skew=-400_000, definitions=engine_ledger.definitions(*deployed), definitions_at=now, read_until=now
    )
    engine_ledger.position(
        flow,
        "archive",
        product="Camunda 7.24.0",
        failed_since=now - 3_900_000_000,
        failures=13,
        reason="refused",
        error="HTTP 401 for /history/process-instance: the user may not read the history",
        to_confirm=1_204,
    )
    engine_ledger.gap(flow, "archive", now - 7_200_000_000, now - 3_900_000_000, "refused", detail="HTTP 401")
    for number in range(150):
        values = {"disposition": "skipped", "rule": "child"} if number % 5 == 0 else {}
        engine_ledger.instance(flow, "oa", str(4700 + number), **values)
    engine_ledger.mark_taken_in(flow, _event(app, "4801"))


def slow_down(app, clock):
    """Make a handler and a source slower since an hour ago, with the start of another version of a plugin."""
    now, flow = clock.now(), SimpleNamespace(app=app)
    trend_rows.store(flow, trend_rows.slow_today("handler", "documents:archive_contract", now))
    trend_rows.store(flow, trend_rows.slow_today("source", "oa", now, good="200", bad="503"))
    start = audit.AuditEntry(
        id=app.clock.new_id(),
        at=now - 60 * trend_rows.MINUTE,
        actor="flowhooks",
        interface="server",
        action="start",
        target="",
        detail={"kind": "server", "plugins": {"documents": "1.4"}, "plugins_changed": {"documents": "1.3 -> 1.4"}},
    )
    app.ledger.write(lambda transaction: audit.record(transaction, start))


def operate(app):
    """Make the changes of an operator on such a day."""
    context = replace(app.operation_context, by=Actor("li.wei", "console"))
    contracts = EventFilter(state="dead", process_key="contract_approval")
    dead = [stored.event.id for stored in app.ledger.find(contracts, limit=3)]
    parked = [stored.event.id for stored in app.ledger.find(EventFilter(state="parked"), limit=1)]
    (alert, *_) = _alerts(app)
    registry.run_operation(context, "acknowledge", {"alerts": [alert], "note": "I call the archive"})
    registry.run_operation(
        context, "pause", {"handlers": ["staff:book_leave"], "note": "the calendar moves until noon"}
    )
    _operation(app, context, BulkAction.REPLAY, {"ids": dead[1:2]})
    note = "filed by hand, says Ms Chen"
    registry.run_operation(
        replace(context, by=Actor("chen", "cli")),
        "resolve",
        {"delivery_id": _delivery(app, dead[2]), "verdict": "close", "note": note},
    )
    registry.run_operation(context, "dismiss", {"event_filter": {"ids": parked}, "note": "a trial of the payroll team"})
    _operation(
        app, context, BulkAction.RERUN, {"flow_instance_id": "4703", "handler": "staff:count"}, note="was not counted"
    )
    failed = {"process_key": "contract_approval", "state": "dead"}
    _operation(app, context, BulkAction.REPLAY, failed, note="the signatures are there now", rate=0.05)


def _operation(app, context, action, event_filter, **start):
    arguments = {"action": action, "event_filter": event_filter}
    planned = registry.run_operation(context, "plan_operation", arguments)["id"]
    registry.run_operation(context, "start_operation", {"operation_id": planned, **start})
    app.runner.wake()

    def has_begun():
        with app.ledger.connection() as connection:
            operation = read_operation(connection, planned)
        return operation.succeeded + operation.failed > 0

    until(has_begun)


def _event(app, instance):
    return app.ledger.find(EventFilter(flow_instance_id=instance), limit=1)[0].event.id


def _delivery(app, event_id):
    return next(status.delivery_id for status in app.ledger.delivery_statuses(event_id) if status.state == "dead")


def _alerts(app):
    with app.ledger.connection() as connection:
        return [alert.id for alert in alert_queries.open_alerts(connection)]


def open_page(app, page, path, address):
    """Open the object that a picture shows."""
    dead = app.ledger.find(EventFilter(state="dead"), limit=1)[0].event.id
    root = f"http://{address}/console"
    if path == "AGAIN":
        done = app.ledger.find(EventFilter(state="succeeded", flow_instance_id="4801"), limit=1)[0].event.id
        path = f"/do/replay_again?id={done}&handler=documents:archive_contract&state=succeeded"
    if path in {"LOG", "CONFLICT"}:
        page.goto(f"{root}/events/{_event(app, '4829' if path == 'LOG' else '4733')}")
        if path == "LOG":
            page.locator("details", has_text="erp: ").locator("summary").click()
        element = page.locator("article.delivery" if path == "LOG" else "#conflicts").first
        element.evaluate("element => element.scrollIntoView({behavior: 'instant'})")
        return
    if path == "ERROR":
        page.goto(f"{root}/errors")
        page.get_by_role("link", name="OrderNotBooked").click()
        page.locator("dl.facts").first.wait_for()
        return
    if path == "OPERATION":
        page.goto(f"{root}/{path.lower()}s")
        page.locator("tbody th a").first.click()
        page.locator("dl.facts").first.wait_for()
        return
    if path != "PROGRESS":
        page.goto(f"{root}{path.replace('EVENT', f'/events/{dead}')}")
        if path.startswith("/do/replay"):  # its page makes the plan, which is shown
            page.locator("main button").click()
            page.locator(".would").wait_for()
        return
    # With these limits few events take several requests, as many events would.
    previous = action_page.REQUEST_TIME_BUDGET, dismiss.PAGE_SIZE
    action_page.REQUEST_TIME_BUDGET, dismiss.PAGE_SIZE = -1.0, 3
    page.add_init_script("window.setTimeout = () => 0")
    page.goto(f"{root}/do/dismiss?state=parked&back=/console/parked")
    page.locator("main button").click()
    page.locator("progress").wait_for()
    action_page.REQUEST_TIME_BUDGET, dismiss.PAGE_SIZE = previous


def settings_with_operator(app):
    """Return the settings of the same company, with an operator who logs in."""
    password = hash_password("correct horse battery staple")
    return replace(app.settings, operators={"li": OperatorSettings(role="operate", password=password)})


def main():
    """Make all pictures."""
    clock = ManualClock()
    clock.advance(days=300, hours=9)
    FOLDER.mkdir(exist_ok=True)
    objects = plugins(clock)
    with tempfile.TemporaryDirectory() as folder:
        objects["engines"] = plugin(engine_clients=lambda: dict.fromkeys(("flowable", "camunda"), SilentClient))
        settings = Settings(database=f"{folder}/f.db", plugins_allow=tuple(objects), sources=sources())
        app = App(settings, objects=objects, clock=clock)
        app.plugins = SimpleNamespace(
            **{name: getattr(app.plugins, name) for name in ("handlers", "warnings")},
            infos=[info for info in app.plugins.infos if info.origin == "object" and info.name != "engines"],
        )
        app.reconciliation = None  # this program stores its rows
        app.start()
        app.clock_watch.stop(10)  # the clock of these pictures jumps
        fill(app, clock)
        write_logs(app)
        reject_requests(app, clock)
        reconcile(app, clock)
        slow_down(app, clock)
        observe(app, clock)
        app.alerts.poll()
        operate(app)
        server = Server(create_admin(app, "t"), listen="127.0.0.1:0", threads=4, limits=Limits(), name="admin")
        threading.Thread(target=server.serve, daemon=True).start()
        try:
            with browsers.chromium() as browser:
                for name, path, size, scheme, locale in PICTURES:
                    page = browser.new_page(
                        viewport=size, color_scheme=scheme, locale=locale, timezone_id="Asia/Shanghai"
                    )
                    open_page(app, page, path, server.address)
                    page.screenshot(path=FOLDER / f"{name}.png")
                    page.close()
                app._live.change_settings(settings_with_operator(app))
                page = browser.new_page(viewport={"width": 1100, "height": 480}, locale="en-GB")
                page.goto(f"http://{server.address}/console/")
                page.get_by_label("Name").fill("li")
                page.screenshot(path=FOLDER / "login.png")
                page.close()
        finally:
            server.close()
            app.close(10)


if __name__ == "__main__":
    sys.exit(main())
