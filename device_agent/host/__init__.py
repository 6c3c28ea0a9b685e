"""The agent's own place on a machine: its unit, its settings, its directories."""
