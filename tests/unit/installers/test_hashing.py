"""The lane beside other work: the right digest, in order, from memory that is used again."""

import hashlib
import platform
import subprocess
import sys

import pytest

from device_agent.installers.hashing import hash_lane, sha256

MIB = 1024 * 1024
ROUNDS = 100
FAULTS = f"""
import os, resource
from device_agent.installers.hashing import hash_lane
zeros = os.open("/dev/zero", os.O_RDONLY)
with hash_lane():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range({ROUNDS}):
        buffers = [os.read(zeros, {MIB}) for _ in range(4)]
        del buffers
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_several_digests_share_a_lane() -> None:
    pieces = [bytes([number]) * (number * 7_001) for number in range(200)]
    even, odd = sha256(), sha256()
    with hash_lane() as lane:
        for number, piece in enumerate(pieces):
            lane.update(odd if number % 2 else even, memoryview(piece))
        lane.drain()
        assert even.hexdigest() == hashlib.sha256(b"".join(pieces[::2])).hexdigest()
        assert odd.hexdigest() == hashlib.sha256(b"".join(pieces[1::2])).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 300_000, 20 * MIB])
def test_after_the_block_everything_is_hashed_and_nobody_is_waited_for(size: int) -> None:
    digest = sha256()
    with hash_lane() as lane:
        lane.update(digest, bytes(size))
    assert digest.hexdigest() == hashlib.sha256(bytes(size)).hexdigest()
    lane.drain()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have their own ways")
def test_buffers_are_made_of_the_memory_of_the_ones_before() -> None:
    """Each page that the kernel has to find and to clear again is a fault."""
    done = subprocess.run((sys.executable, "-c", FAULTS), capture_output=True, text=True, check=True)
    assert int(done.stdout) < ROUNDS * 4 * MIB // 4096 / 10
