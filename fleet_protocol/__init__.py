"""What travels between a Fairlead server and its devices, and nothing else.

Everything here is pure: bytes in, values out. The types are frozen standard-library
dataclasses, so that a process which may not afford a schema library can still build
them; `fleet_protocol.schema` validates peers' bytes against the same definitions.
"""

from typing import Final

PROTOCOL_VERSION: Final = 1
