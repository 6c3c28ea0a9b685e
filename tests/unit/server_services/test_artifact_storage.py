"""Rules F1 to F3 of server.services.artifacts."""

import hashlib
from pathlib import Path

import pytest

from fleet_protocol.errors import FleetError
from server.services.artifacts import Artifacts

DATA = b"some bytes" * 100
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    made = Artifacts(tmp_path / "artifacts", most_bytes=10_000)
    made.recover()
    return made


def code(error: pytest.ExceptionInfo[FleetError]) -> str:
    return error.value.code


def files(artifacts: Artifacts) -> list[str]:
    return sorted(path.name for path in artifacts._directory.iterdir())


def test_f1_whole_and_right_or_not_there(artifacts: Artifacts) -> None:
    with artifacts.upload(SHA256) as upload:
        upload.write(DATA[:500])
        assert artifacts.size(SHA256) is None
        upload.write(DATA[500:])
        upload.finish()
    assert artifacts.path(SHA256).read_bytes() == DATA
    assert files(artifacts) == [SHA256]


def test_f1_other_bytes(artifacts: Artifacts) -> None:
    with pytest.raises(FleetError) as caught, artifacts.upload(SHA256) as upload:
        upload.write(DATA + b"x")
        upload.finish()
    assert code(caught) == "digest"
    assert files(artifacts) == []


def test_f2_declared_or_real(artifacts: Artifacts) -> None:
    with pytest.raises(FleetError) as caught:
        artifacts.upload(SHA256, declared_bytes=10_001)
    assert code(caught) == "too-large"
    with pytest.raises(FleetError) as caught, artifacts.upload(SHA256, declared_bytes=5) as upload:
        for _ in range(11):
            upload.write(b"x" * 1_000)
    assert code(caught) == "too-large"
    assert files(artifacts) == []


def test_f3_what_a_crash_left_goes_at_the_next_start(artifacts: Artifacts) -> None:
    upload = artifacts.upload(SHA256)
    upload.write(DATA)
    artifacts.recover()
    assert files(artifacts) == []
    upload.close()


def test_f3_a_full_disk(artifacts: Artifacts) -> None:
    upload = artifacts.upload(SHA256)
    upload._file.close()
    with Path("/dev/full").open("wb", buffering=0) as full:
        upload._file = full
        with pytest.raises(FleetError) as caught:
            upload.write(DATA)
        assert code(caught) == "no-space"
        upload.close()
    assert files(artifacts) == []


@pytest.mark.parametrize("name", ["../token", "A" * 64, "", "x" * 64, SHA256 + "\n"])
def test_a_name_that_is_no_digest(artifacts: Artifacts, name: str) -> None:
    for act in (artifacts.path, artifacts.size, artifacts.upload):
        with pytest.raises(FleetError) as caught:
            act(name)
        assert code(caught) == "schema"


def test_an_unknown_artifact(artifacts: Artifacts) -> None:
    with pytest.raises(FleetError) as caught:
        artifacts.path(SHA256)
    assert code(caught) == "unknown-artifact"
