"""What `fairlead doctor` finds on the broker: whether it holds what the server published, and for how long."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from fleet_protocol import envelope, limits, strict_json
from fleet_protocol.errors import FleetError
from fleet_protocol.timestamps import parse_time
from fleet_protocol.topics import MANIFEST, STATE, TIMESTAMP, Topics
from server.answers import GroupRow
from server.cli.broker_probe import VERSION_TOPIC, BrokerAccount, BrokerProbe, certificate_end_s
from server.cli.findings import Finding, Verdict, of_expiry, some
from server.cli.tables import age

_MANIFEST_WARN_S: Final = 86_400.0
"""Manifests are signed anew long before; a day left means that nobody does."""


def of_broker(account: BrokerAccount, topics: Topics, groups: Sequence[GroupRow], *, named: bool) -> Iterator[Finding]:
    """Connect, read what is retained, and compare; publishes nothing.

    A broker that can not be looked at is a failure where somebody has `named` it, and else a warning.
    """
    unseen: Verdict = "fail" if named else "warn"
    try:
        if account.secure:
            end_s = certificate_end_s(account)
            yield of_expiry("broker TLS", end_s, time.time(), "issue a new one (fairlead broker ca server)")
        with BrokerProbe(account) as probe:
            yield from _seen(probe, topics, groups)
    except FleetError as error:
        yield Finding("broker probe", unseen, f"{error.detail}; say --broker, --broker-ca, --broker-cert, --broker-key")
    except OSError as error:
        yield Finding("broker probe", unseen, f"{error.filename or account.url}: {error.strerror or error}")


def _seen(probe: BrokerProbe, topics: Topics, groups: Sequence[GroupRow]) -> Iterator[Finding]:
    version = probe.retained(VERSION_TOPIC, 0).get(VERSION_TOPIC, b"").decode("utf-8", "replace")
    if version:
        yield Finding("broker version", "ok", f"{version}, MQTT {probe.protocol}")
    elif probe.protocol == "5":
        yield Finding("broker version", "ok", f"MQTT {probe.protocol}; its version is not for this account to read")
    else:
        text = "MQTT 3.1.1 only: the embedded broker? It is for demos and small trials; a fleet runs on mosquitto"
        yield Finding("broker version", "warn", text)
    manifests = probe.retained(topics.filter(MANIFEST), 0)
    yield _retained(manifests, topics, groups)
    yield from _manifests(manifests)
    timestamp = probe.retained(topics.of(TIMESTAMP), 0).get(topics.of(TIMESTAMP))
    if timestamp is not None:
        yield _timestamp(timestamp)
    yield _queue(probe, topics)


def _retained(found: Mapping[str, bytes], topics: Topics, groups: Sequence[GroupRow]) -> Finding:
    wanted = [group["name"] for group in groups if group["sequence"] > 0]
    missing = [name for name in wanted if topics.of(MANIFEST, group=name) not in found]
    if missing:
        advice = "the server restores them within seconds; if not, it may not write, or the broker keeps nothing"
        return Finding("retained", "fail", f"no manifest for {some(missing)} on the broker: {advice}")
    return Finding("retained", "ok", f"the broker holds the manifest of each of {len(wanted)} groups")


def _manifests(found: Mapping[str, bytes]) -> Iterator[Finding]:
    ends: dict[str, float] = {}
    for topic, payload in found.items():
        try:
            sealed = envelope.decode(payload, max_size=limits.MANIFEST_SIZE)
            body = strict_json.loads(sealed.payload, max_size=limits.MANIFEST_SIZE)
            ends[topic] = parse_time(str(body["expires"]))
        except (FleetError, KeyError, TypeError):
            yield Finding("manifests", "fail", f"{topic} holds no manifest: who wrote it? The server restores its own")
    if ends:
        topic, end_s = min(ends.items(), key=lambda item: item[1])
        yield _renewed("manifest expiry", topic, end_s)


def _timestamp(payload: bytes) -> Finding:
    try:
        body = strict_json.loads(payload, max_size=limits.TIMESTAMP_SIZE)
        end_s = parse_time(str(body["signed"]["expires"]))
    except (FleetError, KeyError, TypeError):
        return Finding("catalogue expiry", "fail", "trust/timestamp holds no TUF timestamp: who wrote it?")
    return _renewed("catalogue expiry", "trust/timestamp", end_s)


def _renewed(what: str, topic: str, end_s: float) -> Finding:
    left_s = end_s - time.time()
    advice = "the server signs it anew daily: is it running, has it its online keys?"
    if left_s <= 0:
        return Finding(what, "fail", f"{topic} expired {age(-left_s)} ago, devices refuse it: {advice}")
    if left_s < _MANIFEST_WARN_S:
        return Finding(what, "warn", f"{topic} expires in {age(left_s)}: {advice}")
    return Finding(what, "ok", f"the next to expire is {topic}, in {age(left_s)}")


def _queue(probe: BrokerProbe, topics: Topics) -> Finding:
    """A queue limit shows as fewer retained states at QoS 1 than at QoS 0."""
    everything = len(probe.retained(topics.filter(STATE), 0))
    queued = len(probe.retained(topics.filter(STATE), 1))
    if queued < everything:
        text = f"at QoS 1 the broker hands out {queued} of {everything} device states: raise max_queued_messages"
        return Finding("broker queue", "warn", f"{text}, and let dashboards subscribe at QoS 0")
    return Finding("broker queue", "ok", f"all {everything} device states come at QoS 1 too")
