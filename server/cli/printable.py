"""Text of strangers on an operator's terminal: shown, never obeyed."""


def text(value: object) -> str:
    """The value without control characters, so that no device can move the cursor or hide a line."""
    return "".join(mark if mark.isprintable() else "\N{REPLACEMENT CHARACTER}" for mark in str(value).expandtabs(4))


def line(value: object) -> str:
    """The same on one line, with single spaces."""
    return text(" ".join(str(value).split()))
