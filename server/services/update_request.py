"""What an operator asks for with `POST /api/updates`, and the policy that follows from it."""

import math
import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fleet_protocol import limits
from fleet_protocol.errors import FleetError, PolicyError
from fleet_protocol.ids import check_id, check_version, shown
from fleet_protocol.manifest import Source, Window
from fleet_protocol.timestamps import parse_time
from server.domain.job import UpdateType
from server.domain.rollout import DEFAULT_SHARES, FailureAction, Policy, Wave
from server.services.catalogue_state import Release

_DAY_S: Final = 86_400
_SCHEMES: Final = ("http://", "https://")
_HOURS: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


def _checked(check: Any) -> AfterValidator:
    def validate(value: str) -> str:
        try:
            check(value)
        except FleetError as error:
            raise ValueError(error.detail) from None
        return value

    return AfterValidator(validate)


def _hours(value: Any) -> Any:
    """`22:00-04:00` (UTC) as the two minutes of a window."""
    if not isinstance(value, str):
        return value
    found = _HOURS.fullmatch(value)
    if found is None:
        raise ValueError("a window is HH:MM-HH:MM in UTC, or {start_min, end_min}")
    start_h, start_min, end_h, end_min = (int(part) for part in found.groups())
    return {"start_min": start_h * 60 + start_min, "end_min": end_h * 60 + end_min}


def _addresses(value: Any) -> Any:
    """Refuses in words what the pattern below would refuse with itself, and once for each form of the member."""
    for each in value if isinstance(value, list | tuple) else [value]:
        if isinstance(each, str) and not each.startswith(_SCHEMES):
            raise ValueError(f"{shown(each)} is no address: it begins with {' or '.join(_SCHEMES)}")
    return value


Id = Annotated[str, _checked(check_id)]
Version = Annotated[str, _checked(check_version)]
Time = Annotated[str, _checked(parse_time)]
Url = Annotated[str, Field(min_length=1, max_length=2_048, pattern=r"^https?://")]
Devices = Annotated[tuple[Id, ...], Field(max_length=limits.DEVICES_PER_DEPLOYMENT)]


class WaveRequest(BaseModel):
    """One wave: a cumulative share of the group in percent, and devices that take part by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 0.0
    devices: Devices = ()


class WindowRequest(BaseModel):
    """Daily hours, in UTC minutes after midnight, in which a device may start an attempt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start_min: Annotated[int, Field(ge=0, le=1_439)]
    end_min: Annotated[int, Field(ge=0, le=1_439)]


class UpdateRequest(BaseModel):
    """An update of one package, for a whole `group` in waves or for `target_nodes` at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    update_id: Id | None = Field(None, description="Makes the request idempotent; becomes the job's id.")
    update_type: UpdateType | None = Field(None, description="Refused where the release is of another kind.")
    package_name: Id
    package_version: Version
    package_url: Annotated[Url | tuple[Url, ...] | None, BeforeValidator(_addresses)] = Field(
        None,
        description="Where devices may download the artifacts; `{sha256}` and `{path}` stand for each target's own. "
        "Absent: from this server.",
    )
    target_nodes: Devices | None = Field(None, description="Devices of one group, instead of `group`.")
    group: Id | None = None
    description: Annotated[str, Field(max_length=1_024)] = ""
    waves: Annotated[tuple[WaveRequest, ...], Field(min_length=1, max_length=64)] | None = Field(
        None,
        description="Default: 5 %, 25 % and 100 % of the group. A wave that asks for more than the one before takes "
        "one device at least, as long as any is left.",
    )
    soak_s: Annotated[float, Field(ge=0, le=30 * _DAY_S)] = 300.0
    failure_limit: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    failure_rate: Annotated[float, Field(ge=0, le=1)] = 0.02
    success_rate: Annotated[float, Field(ge=0, le=1)] = 0.8
    silence_s: Annotated[float, Field(ge=1, le=30 * _DAY_S)] = 900.0
    silence_limit: Annotated[int, Field(ge=0, le=1_000_000)] = 2
    on_failure: Literal["recall", "hold"] = "recall"
    probation_s: Annotated[int, Field(ge=0, le=limits.PROBATION_S)] = 60
    not_before: Time | None = Field(None, description="YYYY-MM-DDTHH:MM:SSZ")
    expires_s: Annotated[float, Field(gt=0, le=365 * _DAY_S)] | None = Field(
        None, description="Seconds from now after which no device begins any more; those that have begun go on."
    )
    irreversible: bool = Field(default=False, description="Devices that could not go back may begin all the same.")
    window: Annotated[WindowRequest | None, BeforeValidator(_hours)] = Field(None, description="HH:MM-HH:MM in UTC")

    @model_validator(mode="after")
    def _one_audience(self) -> "UpdateRequest":
        if (self.group is None) == (self.target_nodes is None):
            raise ValueError("give either group or target_nodes")
        if self.target_nodes is not None and not self.target_nodes:
            raise ValueError("target_nodes names no device")
        if self.target_nodes is not None and self.waves is not None:
            raise ValueError("waves go with a group; target_nodes are one wave")
        if self.waves is not None and not any(wave.share or wave.devices for wave in self.waves):
            raise ValueError("waves without a share and without devices reach nobody")
        return self

    def policy(self, now_s: float) -> Policy:
        """The rollout policy asked for at `now_s` (epoch seconds).

        Raises PolicyError `bad-request` where it contradicts itself.
        """
        action: FailureAction = self.on_failure
        until_s = None if self.expires_s is None else now_s + self.expires_s
        if until_s is not None and self.not_before is not None and parse_time(self.not_before) >= until_s:
            raise PolicyError("bad-request", "expires_s is over before not_before: no device could ever begin")
        return Policy(
            waves=self._waves(),
            soak_s=self.soak_s,
            failure_limit=self.failure_limit,
            failure_rate=self.failure_rate,
            silence_s=self.silence_s,
            silence_limit=self.silence_limit,
            on_failure=action,
            probation_s=self.probation_s,
            success_rate=self.success_rate,
            until_s=until_s,
            irreversible=self.irreversible,
        )

    def sources(self, release: Release) -> tuple[Source, ...]:
        """The download addresses given, one for each target and template.

        Raises PolicyError `bad-request` where one address without a placeholder would stand for several targets.
        """
        given = self.package_url or ()
        templates = (given,) if isinstance(given, str) else given
        if len(release.targets) > 1 and any("{sha256}" not in url and "{path}" not in url for url in templates):
            raise PolicyError(
                "bad-request",
                f"{release.package} {release.version} has {len(release.targets)} artifacts: "
                "write {sha256} or {path} into package_url where their names differ",
            )
        return tuple(
            Source(sha256=target.sha256, url=url.replace("{sha256}", target.sha256).replace("{path}", target.path))
            for target in release.targets
            for url in templates
        )

    def hours(self) -> Window | None:
        """The window as the manifest states it."""
        return None if self.window is None else Window(start_min=self.window.start_min, end_min=self.window.end_min)

    def _waves(self) -> tuple[Wave, ...]:
        if self.target_nodes is not None:
            return (Wave(share_bp=0, devices=tuple(dict.fromkeys(self.target_nodes))),)
        if self.waves is None:
            return tuple(Wave(share_bp=share_bp) for share_bp in DEFAULT_SHARES)
        return tuple(Wave(share_bp=math.ceil(wave.share * 100), devices=wave.devices) for wave in self.waves)
