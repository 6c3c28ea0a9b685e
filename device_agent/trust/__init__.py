"""What the device believes, and what it takes to change its mind. Runs in the worker only."""
