"""The base of every request body."""

from pydantic import BaseModel, ConfigDict


class Body(BaseModel):
    """What a client sends: unknown members are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
