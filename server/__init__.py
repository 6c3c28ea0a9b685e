"""The server: publishes manifests, watches the evidence, and drives rollouts."""
