"""{{ cookiecutter.domain }}, as a flowhooks plugin: enter each completed flow into a register."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowhooks import Delivery, Event, Handler, Reject, Retry, handler, hookimpl

from {{ cookiecutter.__module }}.register import Register

DATABASE = "{{ cookiecutter.__plugin }}-register.db"
"""Default path of the register."""

register = Register(Path(DATABASE))


@hookimpl
def configure(settings: Mapping[str, Any]) -> None:
    """Apply `[plugins.{{ cookiecutter.__plugin }}]`, which `schemas/settings.schema.json` has validated."""
    # Absolute, because another plugin or a handler may change the working folder later.
    register.database = Path(settings.get("database", DATABASE)).absolute()


@hookimpl
def schemas() -> Sequence[Path]:
    """Return the folder with the schema of the settings."""
    return [Path(__file__).with_name("schemas")]


@handler(
{% if cookiecutter.callback_class %}
    callback_class="{{ cookiecutter.callback_class }}",
{% endif %}
{% if cookiecutter.process_key %}
    process_key="{{ cookiecutter.process_key }}",
{% endif %}
{% if cookiecutter.conclusion %}
    conclusion="{{ cookiecutter.conclusion }}",  # a rejected approval completes, too
{% endif %}
    retry=Retry(),  # running it twice is safe: the register knows the delivery's id
)
def record_flow(event: Event, delivery: Delivery) -> dict[str, int]:
    """Enter the completed flow into the register."""
    if not event.business_key:
        raise Reject("There is no businessKey, so nobody can say what was approved.")
    number = register.enter(delivery_id=delivery.id, flow=event.flow_instance_id, business_key=event.business_key)
    return {"number": number}


@hookimpl
def handlers() -> Sequence[Handler]:
    """Return the handlers of this plugin."""
    return [record_flow]
