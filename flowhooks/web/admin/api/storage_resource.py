"""The resource of the administration API for the ledger's size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowhooks.operations.json.storage import StorageJson, storage_to_json
from flowhooks.operations.storage import read_storage
from flowhooks.web.admin.api.resource import Resource

if TYPE_CHECKING:
    from collections.abc import Mapping


class StorageResource(Resource):
    """`GET /api/storage`."""

    path = "/api/storage"
    description = (
        "The size of the ledger, its growth, the free disk, and how long data is kept. / "
        "台账的大小、增长、磁盘剩余空间和数据保留期。"
    )
    response_type = StorageJson

    def get(self, _query: Mapping[str, list[str]], _path: Mapping[str, str], /) -> StorageJson:
        """Return the sizes and the settings in force."""
        return storage_to_json(read_storage(self.app.ledger, self.app.settings, self.app.clock.now()))
