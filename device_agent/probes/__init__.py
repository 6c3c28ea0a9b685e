"""Readings of this machine: numbers for dashboards, and checks that give a verdict."""
