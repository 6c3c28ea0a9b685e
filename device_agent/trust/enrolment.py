"""How a device comes by its first root and its key."""

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from device_agent.settings import AgentSettings
from device_agent.trust.device_key import DeviceKey, create
from device_agent.trust.store import initialise
from device_agent.trust.trusted_root import read_root
from fleet_protocol.errors import ProtocolError


def enrol(settings: AgentSettings, root: bytes, *, replace_store: bool = False) -> DeviceKey:
    """Trust this root and make a device key, where either is missing; returns the device's key.

    Raises ProtocolError where the root breaks a rule, is of another fleet, or where a torn store stands;
    PolicyError `conflict` where the store began with another root. `replace_store` begins again in both cases, which
    forgets every floor and so is a person's decision.
    """
    read_root(root, settings.fleet)
    _check_self_signed(root)
    initialise(settings.state_dir, root, replace_store=replace_store)
    return create(settings.state_dir)


def _check_self_signed(root: bytes) -> None:
    try:
        metadata = Metadata[Root].from_bytes(root)
        metadata.signed.verify_delegate("root", metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise ProtocolError("root", f"the first root does not verify under its own keys: {error}") from None
