"""Runs the services of releases where there is no systemd; light enough for the resident process."""
