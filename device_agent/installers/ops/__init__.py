"""The worker's operations on artifacts: one module each, so that an operation pays for its own imports only."""
