"""Hypothesis strategies for every document that travels: all that a valid one may hold."""

from hypothesis import strategies as st

from fleet_protocol import limits
from fleet_protocol.catalogue import FORMATS, KINDS, Precursor, Requirement, TargetInfo
from fleet_protocol.errors import CODES
from fleet_protocol.install import HealthCheck, Install
from fleet_protocol.manifest import Deployment, Fallback, Manifest, Source, Target, Window
from fleet_protocol.messages import (
    COMMANDS,
    OUTCOMES,
    STAGES,
    Assignment,
    AttemptReport,
    Command,
    Installed,
    Reply,
    Report,
)
from fleet_protocol.timestamps import format_time

IDS = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True)
VERSIONS = st.from_regex(r"[0-9A-Za-z][0-9A-Za-z.+~_-]{0,63}", fullmatch=True)
SHA256 = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
SALTS = st.from_regex(r"[0-9a-f]{8,64}", fullmatch=True)
PARTS = st.from_regex(r"[0-9A-Za-z][0-9A-Za-z._+~-]{0,30}", fullmatch=True)
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
COUNTERS = st.integers(1, limits.JSON_INTEGER)
TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=60)
EPOCHS = st.integers(0, 4_000_000_000)
TIMES = EPOCHS.map(format_time)
SPANS = st.tuples(EPOCHS, st.integers(1, 10**6)).map(lambda pair: (format_time(pair[0]), format_time(sum(pair))))

TARGETS = st.builds(Target, path=PATHS, length=st.integers(0, 2**45), sha256=SHA256)
WINDOWS = st.builds(Window, start_min=st.integers(0, 1439), end_min=st.integers(0, 1439))
FALLBACKS = st.builds(
    Fallback,
    version=VERSIONS,
    counter=st.integers(0, limits.JSON_INTEGER),
    targets=st.lists(TARGETS, max_size=2).map(tuple),
)
DEPLOYMENTS = st.builds(
    Deployment,
    id=IDS,
    package=IDS,
    version=VERSIONS,
    counter=COUNTERS,
    targets=st.lists(TARGETS, min_size=1, max_size=3, unique_by=lambda target: target.path).map(tuple),
    state=st.sampled_from(["active", "held", "recalled"]),
    share_bp=st.integers(0, limits.SHARE_BP),
    salt=SALTS,
    devices=st.lists(IDS, max_size=3).map(tuple),
    fallback=st.none() | FALLBACKS,
    not_before=st.none() | TIMES,
    window=st.none() | WINDOWS,
    probation_s=st.integers(0, limits.PROBATION_S),
    sources=st.lists(st.builds(Source, sha256=SHA256, url=TEXTS), max_size=2).map(tuple),
)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Any valid manifest."""
    issued, expires = draw(SPANS)
    return Manifest(
        fleet=draw(IDS),
        group=draw(IDS),
        sequence=draw(COUNTERS),
        root=draw(COUNTERS),
        issued=issued,
        expires=expires,
        deployments=tuple(draw(st.lists(DEPLOYMENTS, max_size=3, unique_by=lambda deployment: deployment.id))),
    )


@st.composite
def commands(draw: st.DrawFn) -> Command:
    """Any valid command."""
    issued, expires = draw(SPANS)
    return Command(
        fleet=draw(IDS),
        device=draw(IDS),
        id=draw(IDS),
        name=draw(st.sampled_from(COMMANDS)),
        issued=issued,
        expires=expires,
        package=draw(st.none() | IDS),
        service=draw(st.none() | IDS),
        lines=draw(st.integers(0, 10_000)),
    )


ASSIGNMENTS = st.builds(Assignment, fleet=IDS, device=IDS, group=IDS, sequence=COUNTERS, issued=TIMES)
CODE_NAMES = st.sampled_from(sorted(CODES))
REPLIES = st.builds(
    Reply,
    id=IDS,
    code=st.none() | CODE_NAMES,
    detail=TEXTS,
    result=st.dictionaries(TEXTS, st.none() | st.booleans() | st.integers(-100, 100) | TEXTS, max_size=3),
)
INSTALLED = st.builds(
    Installed,
    package=IDS,
    version=VERSIONS,
    counter=st.integers(0, limits.JSON_INTEGER),
    deployment=st.none() | IDS,
)
ATTEMPTS = st.builds(
    AttemptReport,
    deployment=IDS,
    package=IDS,
    version=VERSIONS,
    counter=COUNTERS,
    number=st.integers(1, 1_000),
    stage=st.sampled_from(STAGES),
    outcome=st.none() | st.sampled_from(OUTCOMES),
    code=st.none() | CODE_NAMES,
    detail=TEXTS,
)
REPORTS = st.builds(
    Report,
    fleet=IDS,
    device=IDS,
    boot=IDS,
    counter=COUNTERS,
    time=TIMES,
    group=st.none() | IDS,
    sequence=st.integers(0, limits.JSON_INTEGER),
    root=st.integers(0, limits.JSON_INTEGER),
    installed=st.lists(INSTALLED, max_size=2).map(tuple),
    attempt=st.none() | ATTEMPTS,
    attack=st.none() | CODE_NAMES,
    attacks=st.dictionaries(CODE_NAMES, st.integers(0, 1_000), max_size=3),
    why=TEXTS,
)
CHECKS = st.builds(
    HealthCheck,
    kind=st.sampled_from(["http", "exec"]),
    target=TEXTS,
    interval_s=st.integers(1, 3_600),
    timeout_s=st.integers(1, 300),
    failures=st.integers(1, 100),
)
TARGET_INFOS = st.builds(
    TargetInfo,
    package=IDS,
    kind=st.sampled_from(KINDS),
    version=VERSIONS,
    counter=COUNTERS,
    classes=st.lists(IDS, min_size=1, max_size=3, unique=True).map(tuple),
    format=st.sampled_from(FORMATS),
    unpacked_size=st.integers(0, 2**45),
    unpacked_files=st.integers(0, 1_000_000),
    precursors=st.lists(st.builds(Precursor, sha256=SHA256), max_size=2).map(tuple),
    requires=st.lists(st.builds(Requirement, package=IDS, sha256=SHA256), max_size=2).map(tuple),
    install=st.builds(
        Install,
        exec=st.lists(TEXTS, max_size=3).map(tuple),
        stop_s=st.integers(1, 600),
        check=st.none() | CHECKS,
    ),
    text=TEXTS,
)
DOCUMENTS = st.one_of(manifests(), commands(), ASSIGNMENTS, REPLIES, REPORTS)
