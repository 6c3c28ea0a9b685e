"""`${NAME}` in signed texts stands for a variable that the device's owner sets."""

import re
from collections.abc import Mapping
from typing import Final

from fleet_protocol.errors import InstallError
from fleet_protocol.ids import shown

_VARIABLE: Final = re.compile(r"\$\{([^}]*)\}?")


def substitute(text: str, variables: Mapping[str, str]) -> str:
    """The text with every `${NAME}` replaced, once. Raises InstallError `start` for a name that is not set."""

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name not in variables or not found[0].endswith("}"):
            raise InstallError("start", f"variable {shown(name)} is not set on this device")
        return variables[name]

    return _VARIABLE.sub(value, text)
