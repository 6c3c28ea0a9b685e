"""A power cut at every call that the trust store makes: the floors are the old or the new ones, and never nothing.

This is invariant D16, for floors.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from device_agent.trust.floors import Floors
from device_agent.trust.store import TrustStore, initialise
from fleet_protocol.acceptance import Mark
from fleet_protocol.errors import ProtocolError
from tests.fakes.power_cuts import Recording, cuts

KEYS = frozenset({"ed25519:00"})


def _mark(sequence: int) -> Mark:
    return Mark(sequence=sequence, digest=f"{sequence:064}", voters=KEYS)


def _history(state_dir: Path, recording: Recording) -> list[tuple[int, Floors]]:
    """A store's life: after how many calls each floors were saved for certain."""
    history = []

    def saved(store: TrustStore) -> None:
        history.append((len(recording.calls), store.floors))

    initialise(state_dir, b"root 1")
    with TrustStore.opened(state_dir) as store:
        saved(store)
        for sequence in (1, 2):
            store.save(store.floors.with_manifest("line-1", _mark(sequence)))
            saved(store)
        store.adopt({"root.json": b"root 1", "targets.json": b"targets 1"}, store.floors.with_time(10, KEYS))
        saved(store)
        store.adopt({"root.json": b"root 2", "targets.json": b"targets 2"}, store.floors)
        saved(store)
        store.save(store.floors.with_manifest("line-1", _mark(3)))
        saved(store)
    return history


def _recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Recording, list[tuple[int, Floors]]]:
    recording = Recording(tmp_path / "device")
    recording.root.mkdir()
    with monkeypatch.context() as patch:
        recording.start(patch)
        history = _history(recording.root, recording)
    return recording, history


def test_every_power_cut_leaves_the_old_or_the_new_floors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording, history = _recorded(tmp_path, monkeypatch)
    seen = set()
    for made, place in cuts(recording):
        done = [index for index, (ended, _) in enumerate(history) if ended <= made]
        try:
            with TrustStore.opened(place) as store:
                found = store.floors
        except ProtocolError as error:
            assert error.code == "untrusted"
            assert not done, f"after call {made} of {len(recording.calls)} nothing is trusted any more: {error}"
            continue
        allowed = [floors for _, floors in history[max(done, default=0) : max(done, default=-1) + 2]]
        assert found in allowed, f"after call {made}"
        seen.add(found.generation)
    assert seen == {1, 2, 3}


def test_a_store_goes_on_from_every_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cut leaves lying about does not get in the way of the next manifest and the next catalogue."""
    recording, history = _recorded(tmp_path, monkeypatch)
    begun = history[0][0]
    for made, place in cuts(recording):
        if made < begun:
            continue
        with TrustStore.opened(place) as store:
            store.save(store.floors.with_manifest("line-1", _mark(9)))
            store.adopt({"root.json": b"root 2", "targets.json": b"targets 9"}, store.floors)
        with TrustStore.opened(place) as store:
            assert store.floors.manifests["line-1"].sequence == 9
            assert store.read("targets.json") == b"targets 9"
        names = {path.name for path in (place / "trust").iterdir()}
        assert names == {"floors.json", "lock", f"metadata-{store.floors.generation}"}


def test_a_torn_first_start_is_mended_by_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording, history = _recorded(tmp_path, monkeypatch)
    begun = history[0][0]
    for made, place in cuts(recording):
        if made >= begun:
            break
        initialise(place, b"root 1", replace_store=True)
        with TrustStore.opened(place) as store:
            assert store.floors == replace(history[0][1], generation=store.floors.generation)
