"""Hands a release engineer's signed catalogue to a server: artifacts first, so that nothing points at nothing."""

import json
from pathlib import Path
from typing import Any

from fleet_protocol.errors import PolicyError
from server.answers import Uploaded
from server.client import Client


def upload_catalogue(client: Client, folder: Path) -> Uploaded:
    """Upload `<folder>/artifacts/*` that the server lacks, then all roots and the newest targets.

    `folder` is what `fairlead-firmware` works on. Raises PolicyError `catalogue` where it is not one,
    ClientError where the server refuses.
    """
    metadata = folder / "metadata"
    roots, targets = _versions(metadata, "root"), _versions(metadata, "targets")
    if not roots or not targets:
        raise PolicyError("catalogue", f"{folder} holds no signed catalogue: run fairlead-firmware init, add and sign")
    for artifact in sorted((folder / "artifacts").glob("[0-9a-f]" * 64)):
        if not client.has(f"/artifacts/{artifact.name}"):
            client.put_file(f"/api/artifacts/{artifact.name}", artifact)
    return client.upload_catalogue([_read(path) for path in roots], _read(targets[-1]))


def _versions(metadata: Path, role: str) -> list[Path]:
    found = [path for path in metadata.glob(f"*.{role}.json") if path.name.split(".", 1)[0].isdecimal()]
    return sorted(found, key=lambda path: int(path.name.split(".", 1)[0]))


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        raise PolicyError("catalogue", f"{path} is not JSON; sign the catalogue again") from None
