"""The worker: a process of its own for one heavy operation, started and answered over pipes.

Line 1 on standard input is the request, `{"op", "args", "config"}`. Lines on standard output are any number of
`{"want": topic}` (each is answered on standard input by `{"topic", "payload"}`, base64 or null, or
`{"topic", "code", "detail"}`), `{"progress": share}` and `{"alive": true}`, which says only that the operation goes on;
then exactly one answer: `{"ok": true, "result"}` or `{"ok": false, "code", "detail", "retry_after_s"}`. A worker that
dies without an answer, or says nothing for too long, has the code `worker`.
"""

from typing import Final

LINE_SIZE: Final = 8 * 1024 * 1024
"""Bytes of the longest line, either way."""
