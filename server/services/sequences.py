"""The numbers of signed documents, which only rise, over the loss of the documents that had them.

A document's next sequence is above the one that the store holds, above every peak of its topic (a device was removed,
or a document of our own hand was found on the broker), and above the floor that an operator set.
"""

from typing import Final

from server.ports import Reads, Work

_FLOOR: Final = "floor"


def following(work: Reads, topic: str, stored: int) -> int:
    """The sequence of the topic's next document, where `stored` is that of the newest known; 0 where none is."""
    return max(stored, lowest(work, topic)) + 1


def lowest(work: Reads, topic: str) -> int:
    """Nothing on the topic may carry this number, or one below it, any more."""
    return max(work.peak(topic), work.peak(_FLOOR))


def set_floor(work: Work, sequence: int) -> None:
    """From now on no document of any topic gets this sequence or one below it; a lower floor changes nothing."""
    work.raise_peak(_FLOOR, sequence)
