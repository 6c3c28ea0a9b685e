"""Writes the golden vectors: `python -m tests.vectors.make_vectors`, from the root of the repository.

The same script always writes the same bytes. It shares no code with Fairlead (`primitives.py`).
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.vectors import cases_documents, cases_signing, cases_text, example
from tests.vectors.primitives import Json

HERE = Path(__file__).parent
KINDS: dict[str, Callable[[], Iterator[tuple[str, Json]]]] = {
    "pae": cases_signing.pae_cases,
    "envelope": cases_signing.envelope_cases,
    "acceptance": cases_signing.acceptance_cases,
    "manifest": cases_documents.payload_cases,
    "targetinfo": cases_documents.targetinfo_cases,
    "match": cases_documents.match_cases,
    "membership": cases_documents.membership_cases,
    "strict_json": cases_text.strict_json_cases,
    "topics": cases_text.topic_cases,
    "timestamps": cases_text.timestamp_cases,
    "archive": cases_text.archive_cases,
}


def vectors() -> dict[str, bytes]:
    """Every file below this directory that is generated: its bytes by its relative path."""
    files: dict[str, bytes] = {}
    for kind, cases in KINDS.items():
        for name, case in cases():
            path = f"{kind}/{name}.json"
            if path in files:
                raise ValueError(f"two vectors are called {path}")
            document = {"name": f"{kind}/{name}", **case}
            files[path] = (json.dumps(document, indent=2, ensure_ascii=True) + "\n").encode()
    for name, data in example.files().items():
        files[f"example/{name}"] = data
    return files


def main() -> None:
    """Write all files, and remove those that are not generated any more."""
    files = vectors()
    for kind in (*KINDS, "example"):
        for path in (HERE / kind).glob("*"):
            if str(path.relative_to(HERE)) not in files:
                path.unlink()
    for name, data in files.items():
        (HERE / name).parent.mkdir(exist_ok=True)
        (HERE / name).write_bytes(data)
    sys.stdout.write(f"{len(files)} files\n")


if __name__ == "__main__":
    main()
