"""The permitted request, equal to `schemas/call-back/complete.schema.json`, for the designs on FastAPI."""

# No `from __future__ import annotations`: FastAPI reads the annotations, and resolves their names more easily so.

from typing import Annotated

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

FlowInstanceId = Annotated[str, Path(pattern=r"^[A-Za-z0-9._:~-]{1,128}$")]


class CallBack(BaseModel):
    """The permitted body."""

    model_config = ConfigDict(extra="allow")

    businessKey: StrictStr | None = None  # noqa: N815 (the contract's own names)
    callBackProcessClass: StrictStr | None = None  # noqa: N815 (as above)
    processDefinitionId: StrictStr | None = None  # noqa: N815 (as above)
    processDefinitionKey: StrictStr | None = None  # noqa: N815 (as above)
    processDefinitionVersion: Annotated[StrictInt, Field(ge=-(2**31), lt=2**31)] | None = None  # noqa: N815 (as above)
