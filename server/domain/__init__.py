"""The pure kernel of the server: no I/O, no clock, no randomness, no logging."""
