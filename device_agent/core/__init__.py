"""The pure kernel of the agent: no I/O, no clock, no randomness, no logging."""
