"""The server's heartbeat: evidence in, decisions out, and the duties that come with time.

Rules, cited by number in the tests:

T1. A decision, the manifest that carries it and its audit entry are one transaction; the broker hears of it after the
    commit. A server that is killed between any two steps goes on from the last commit.
T2. Deciding twice changes nothing: without new evidence a tick writes nothing.
T3. A rollout that completes supersedes, and one that is recalled takes along, what server.services.succession says.
T4. One rollout's trouble does not stop the others, nor one group's, nor an unreadable row, nor a locked database: it is
    logged, shown in GET /health, and tried again at the next tick.
T5. A rollout whose release has left the catalogue is held, with the reason.
T6. Whoever obeys a newer manifest reports. So where reports may have been lost every manifest is issued anew, once a
    minute at the most.
"""

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from server.domain import engine
from server.domain.rollout import Complete, Decision, Hold, Observations, OpenWave, Recall, Rollout, RolloutState
from server.ports import Clock, Reads, Store
from server.services import audit
from server.services.catalogue import Catalogue
from server.services.complaints import Complaints
from server.services.manifests import Manifests
from server.services.publication import Publication
from server.services.succession import recall_along, supersede

Observe = Callable[[Reads, Rollout, float], Observations]
"""Evidence for one rollout at a moment (epoch seconds)."""
_DUTIES_S: Final = 5.0
_ASK_AGAIN_S: Final = 60.0
_ROLLOUT: Final = "rollout "
_MANIFEST: Final = "manifest of "


class RolloutTick:
    """Called every second by one thread."""

    def __init__(
        self,
        store: Store,
        publication: Publication,
        catalogue: Catalogue,
        manifests: Manifests,
        *,
        observe: Observe,
        clock: Clock,
    ) -> None:
        self._store = store
        self._publication = publication
        self._catalogue = catalogue
        self._manifests = manifests
        self._observe = observe
        self._clock = clock
        self._duties_s = 0.0
        self._lost_reports = threading.Event()
        self._asked_s = -_ASK_AGAIN_S
        self._complaints = Complaints()

    def tick(self) -> None:
        """One round over all rollouts that may still change, and over what is due. Never raises an Exception (T4)."""
        now_s = self._clock.now_s()
        self._complaints.guard("rollouts", partial(self._consider_all, now_s))
        if now_s - self._duties_s >= _DUTIES_S or now_s < self._duties_s:
            self._duties_s = now_s
            self._complaints.guard("catalogue", partial(self._renew_catalogue, now_s))
            self._complaints.guard("manifests", partial(self._renew_manifests, now_s))
            self._complaints.guard("reports", partial(self._ask_where_lost, now_s))

    def ask_again(self) -> None:
        """Have every device report where it is (T6); soon, and from any thread."""
        self._lost_reports.set()

    def problems(self) -> list[str]:
        """What keeps failing, for GET /health."""
        return self._complaints.problems()

    def start(self) -> None:
        """Bring every manifest in step with the store, the catalogue and the settings of this start."""
        self._for_groups(self._refresh, self._clock.now_s())

    def _consider_all(self, now_s: float) -> None:
        with self._store.read() as reads:
            moving = reads.moving()
        self._complaints.keep(_ROLLOUT, [_ROLLOUT + name for name in moving])
        for name in moving:
            self._complaints.guard(_ROLLOUT + name, partial(self._consider, name, now_s))

    def _for_groups(self, act: Callable[[str, float], None], now_s: float) -> None:
        if self._catalogue.contents is None:
            return
        with self._store.read() as reads:
            names = reads.group_names()
        for name in names:
            self._complaints.guard(_MANIFEST + name, partial(act, name, now_s))

    def _decisions(self, work: Reads, rollout: Rollout, now_s: float) -> list[Decision]:
        contents = self._catalogue.contents
        if contents is None:
            return []
        release = contents.release(rollout.package, rollout.version)
        if rollout.state is RolloutState.ACTIVE and (release is None or release.counter != rollout.counter):
            return [Hold(reason=f"{rollout.package} {rollout.version} has left the catalogue")]
        return engine.decide(rollout, self._observe(work, rollout, now_s), now_s)

    def _consider(self, rollout_id: str, now_s: float) -> None:
        """Look without a transaction first: most of the time there is nothing to decide."""
        with self._store.read() as reads:
            rollout = reads.rollout(rollout_id)
            due = rollout is not None and bool(self._decisions(reads, rollout, now_s))
        if due:
            self._advance(rollout_id, now_s)

    def _advance(self, rollout_id: str, now_s: float) -> None:
        """Decide once more inside the transaction, where nobody else can change the evidence (T1, T2)."""
        with self._publication.begin() as change:
            rollout = change.work.rollout(rollout_id)
            if rollout is None:
                return
            changed = rollout
            for decision in self._decisions(change.work, rollout, now_s):
                changed = engine.apply(changed, decision, now_s)
                verb, detail = _words(decision, changed)
                audit.record(change.work, now_s, who=audit.ENGINE, verb=verb, subject=rollout_id, detail=detail)
            if changed == rollout:
                return
            change.work.put_rollout(changed)
            if changed.state is RolloutState.COMPLETE:
                supersede(change, changed)
            reissue = partial(self._manifests.reissue, change, changed.group, now_s)
            if changed.state is RolloutState.RECALLED:
                recall_along(change, changed, now_s, reissue)
            else:
                reissue()

    def _renew_catalogue(self, now_s: float) -> None:
        with self._publication.begin() as change:
            if self._catalogue.is_due(now_s):
                self._catalogue.resign(change, now_s)
            self._catalogue.clear_stale(change, now_s)

    def _renew_manifests(self, now_s: float) -> None:
        self._for_groups(self._renew, now_s)

    def _ask_where_lost(self, now_s: float) -> None:
        if self._lost_reports.is_set() and time.monotonic() - self._asked_s >= _ASK_AGAIN_S:
            self._lost_reports.clear()
            self._asked_s = time.monotonic()
            self._for_groups(self._reissue, now_s)

    def _reissue(self, group_name: str, now_s: float) -> None:
        with self._publication.begin() as change:
            if change.work.group(group_name) is not None:
                self._manifests.reissue(change, group_name, now_s)

    def _renew(self, group_name: str, now_s: float) -> None:
        with self._store.read() as reads:
            group = reads.group(group_name)
            due = group is not None and self._manifests.is_due(reads, group, now_s)
        if due:
            self._refresh(group_name, now_s)

    def _refresh(self, group_name: str, now_s: float) -> None:
        with self._publication.begin() as change:
            group = change.work.group(group_name)
            if group is not None:
                self._manifests.refresh(change, group, now_s)


def _words(decision: Decision, rollout: Rollout) -> tuple[str, str]:
    match decision:
        case OpenWave(index=index, share_bp=share_bp):
            wave = rollout.policy.waves[index]
            named = f" and {len(wave.devices)} named device(s)" if wave.devices else ""
            asked = f", asked for {wave.share_bp / 100:g} %" if share_bp != wave.share_bp else ""
            return "open-wave", f"{index + 1} of {len(rollout.policy.waves)}: {share_bp / 100:g} %{named}{asked}"
        case Hold(reason=reason):
            return "hold", reason
        case Recall(reason=reason):
            return "recall", reason
        case Complete():
            return "complete", f"{rollout.package} {rollout.version}"
