"""The interface through which the suite starts and ends process instances."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flowhooks.model.engine import EndState, EngineClient, EngineConfig


class EngineDriver(ABC):
    """Starts and ends process instances in a real engine or in a stand-in, for `EngineClientContract`.

    Deploy at least one process definition before the first test: an instance of it waits until it is ended. A method
    that the engine cannot do raises `NotImplementedError` with the reason, as the optional methods do here. The suite
    then skips the tests that need it.
    """

    @abstractmethod
    def client(self, config: EngineConfig) -> EngineClient:
        """Return a new client of the engine. The suite closes it.

        Args:
            config: one of the settings that `config` returned, with changes.
        """

    @abstractmethod
    def config(self) -> EngineConfig:
        """Return the settings that a client needs for this engine: its URL and a credential."""

    @abstractmethod
    def start(
        self,
        *,
        business_key: str | None = None,
        variables: Mapping[str, Any] | None = None,
        tenant_id: str | None = None,
    ) -> str:
        """Start an instance, which waits, and return its id.

        Args:
            business_key: its business key.
            variables: its variables, as JSON.
            tenant_id: the tenant whose definition is started; None: the definition without a tenant. Raise
                `NotImplementedError` if the engine has no tenants.
        """

    @abstractmethod
    def end(self, instance_id: str, end_state: EndState) -> str | None:
        """End a waiting instance, and return the id of the end event that it reached; None if none.

        Args:
            instance_id: its id.
            end_state: how it ends. Raise `NotImplementedError` for an end that the engine does not have.
        """

    @abstractmethod
    def definition(self) -> tuple[str, int]:
        """Return the key and the latest version of the definition that `start` uses without a tenant."""

    def end_together(self, instance_ids: Sequence[str]) -> None:
        """Complete waiting instances, all with the same end time.

        Args:
            instance_ids: their ids.
        """
        raise NotImplementedError("the driver cannot end instances at the same time")

    def start_parent(self, variables: Mapping[str, Any]) -> tuple[str, str]:
        """Start an instance that calls another one, which waits. The parent completes when the child has ended.

        Args:
            variables: variables of the parent. The child does not get them.

        Returns:
            The ids of the parent and of the child.
        """
        raise NotImplementedError("the driver cannot start a called instance")

    def start_copying_parent(self, variables: Mapping[str, Any]) -> tuple[str, str]:
        """Start an instance that calls another one with copies of its variables. The other one waits.

        Args:
            variables: variables of the parent and of the child.

        Returns:
            The ids of the parent and of the child.
        """
        raise NotImplementedError("the driver cannot start a called instance with copies of variables")

    def delete_history(self, instance_id: str) -> None:
        """Delete the history of an instance that has ended.

        Args:
            instance_id: its id.
        """
        raise NotImplementedError("the driver cannot delete the history of an instance")

    def deploy_many(self, count: int) -> list[str]:
        """Deploy further definitions and return their keys.

        Args:
            count: their number.
        """
        raise NotImplementedError("the driver cannot deploy definitions")
