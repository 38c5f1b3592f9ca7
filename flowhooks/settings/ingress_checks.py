"""Check the ingress of sources against the loaded schemas and plugins, which the settings alone do not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowhooks.settings import types
from flowhooks.settings.ingress import IGNORE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from flowhooks.settings.ingress import IngressSettings
    from flowhooks.settings.named_sections import Source


def unknown_kinds(sources: Mapping[str, Source], kinds: Collection[str]) -> list[str]:
    """Return a sentence for each kind in a mapping that has no schema file.

    Args:
        sources: the sources, by name.
        kinds: the kinds of callback.
    """
    problems = []
    for name, ingress in _ingresses(sources):
        if ingress.kind is None:
            continue
        named = [*(ingress.kind.values or {}).values(), *([] if ingress.kind.other is None else [ingress.kind.other])]
        problems += [
            f"{ingress.location}sources.{name}.ingress.kind names {types.format_value(kind)}, but there is no such "
            f"kind of callback{types.did_you_mean(kind, [*kinds, IGNORE])}"
            for kind in dict.fromkeys(named)
            if kind != IGNORE and kind not in kinds
        ]
    return problems


def unknown_receivers(
    sources: Mapping[str, Source], receivers: Collection[str], unloaded: Collection[str]
) -> list[str]:
    """Return a sentence for each receiver that is no plugin that reads requests.

    Args:
        sources: the sources, by name.
        receivers: names of the plugins that read requests.
        unloaded: names of further plugins that may do so, but are not loaded: denied or quarantined.
    """
    return [
        f"{ingress.location}sources.{name}.ingress.receiver names {types.format_value(ingress.receiver)}, but no "
        f"installed plugin of this name reads requests{types.did_you_mean(ingress.receiver, receivers)}"
        for name, ingress in _ingresses(sources)
        if ingress.receiver and ingress.receiver not in receivers and ingress.receiver not in unloaded
    ]


def _ingresses(sources: Mapping[str, Source]) -> Iterator[tuple[str, IngressSettings]]:
    for name, source in sources.items():
        if source.ingress is not None:
            yield name, source.ingress
