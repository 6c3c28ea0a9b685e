"""The parts of TUF's client that the agent uses, imported without those that it does not (`device_agent.lean`)."""

from device_agent import lean

lean.import_tuf()

from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig  # noqa: E402 - the order is the point

__all__ = ["FetcherInterface", "Updater", "UpdaterConfig"]
