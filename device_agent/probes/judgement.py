"""Verdicts: readings against the owner's thresholds. Pure."""

from collections.abc import Iterable, Mapping
from typing import Final

from device_agent.settings import Thresholds
from fleet_protocol.messages import CheckResult, Verdict

_WARN_FROM: Final = 0.9
_WORSE: Final[Mapping[Verdict, int]] = {"ok": 0, "unknown": 1, "warning": 2, "critical": 3}


def judge(name: str, value: float | None, threshold: float, text: str) -> CheckResult:
    """`critical` above the threshold, `warning` above nine tenths of it, `unknown` without a value."""
    verdict: Verdict = "ok"
    if value is None:
        verdict = "unknown"
    elif value > threshold:
        verdict = "critical"
    elif value > threshold * _WARN_FROM:
        verdict = "warning"
    return CheckResult(name=name, value=value, threshold=threshold, verdict=verdict, text=text)


def judge_machine(values: Mapping[str, float], cpus: int, thresholds: Thresholds) -> list[CheckResult]:
    """The checks of a reading of `MachineProbe`; a machine without a sensor has no temperature check."""
    checks = [
        judge(name, values.get(f"{name}_percent"), getattr(thresholds, f"{name}_percent"), _percent(values, name))
        for name in ("cpu", "memory", "disk")
    ]
    if "inodes_percent" in values:
        inodes = values["inodes_percent"]
        checks.append(judge("inodes", inodes, thresholds.disk_percent, f"{inodes:.0f} % of the disk's inodes used"))
    load = values.get("load_5")
    per_cpu = None if load is None else load / cpus
    checks.append(judge("load", per_cpu, thresholds.load_per_cpu, f"5-minute load per processor, {cpus} of them"))
    if "temperature_celsius" in values:
        celsius = values["temperature_celsius"]
        checks.append(judge("temperature", celsius, thresholds.temperature_celsius, f"hottest sensor {celsius:.0f} C"))
    return checks


def worst(checks: Iterable[CheckResult]) -> Verdict:
    """The worst verdict; `ok` where there are no checks."""
    return max((check.verdict for check in checks), key=lambda verdict: _WORSE[verdict], default="ok")


def _percent(values: Mapping[str, float], name: str) -> str:
    value = values.get(f"{name}_percent")
    return f"{name} could not be read" if value is None else f"{name} {value:.0f} % used"
