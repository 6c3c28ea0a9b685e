"""The reader of kernel modules: right about good ones, and never more than a refusal about anything else."""

import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_protocol import module_file
from fleet_protocol.errors import ProtocolError
from fleet_protocol.module_file import MACHINES, Machine, ModuleFile, read_module
from tests.fakes.elf import Module

GOOD = Module(
    depends=("core-drv", "other"), aliases=("pci:v*d1*", "usb:v*"), says={"license": "GPL", "parm": "n:a (int)"}
)
GOODS = [replace(GOOD, machine=machine) for machine in MACHINES.values()]


def refusal(data: bytes) -> str:
    with pytest.raises(ProtocolError) as caught:
        read_module(data)
    assert caught.value.code == "format"
    return caught.value.detail


@pytest.mark.parametrize("good", GOODS, ids=list(MACHINES))
def test_a_good_module_is_read_on_every_machine(good: Module) -> None:
    assert read_module(good.file()) == ModuleFile(
        machine=good.machine,
        name="demo_drv",
        vermagic="6.1.0-test SMP mod_unload",
        version="1.0",
        srcversion="0123456789ABCDEF0123456",
        build_id="040000001400000003000000474e5500" + b"one".hex() + "00" * 17,
        depends=("core_drv", "other"),
        aliases=("pci:v*d1*", "usb:v*"),
        signed=False,
        permanent=False,
    )
    assert read_module(good.file()).kernel == "6.1.0-test"


def test_what_may_be_missing_is_none() -> None:
    found = read_module(Module(version=None, srcversion=None, build=None, signed=True).file())
    assert (found.version, found.srcversion, found.build_id) == (None, None, None)
    assert (found.depends, found.aliases, found.signed) == ((), (), True)


@pytest.mark.parametrize(
    ("functions", "permanent"),
    [
        (("init_module", "cleanup_module"), False),
        (("init_module",), True),
        (("cleanup_module",), False),
        ((), False),
        (("my_init_module", "my_cleanup_module"), False),
        (("init_module", "my_cleanup_module"), True),
        (("init_module", "cleanup_module_too"), True),
    ],
)
def test_a_module_with_a_way_in_and_no_way_out_is_permanent(functions: tuple[str, ...], permanent: bool) -> None:
    """Names that only end alike do not count, though a linker may let them share their end."""
    assert read_module(Module(functions=functions).file()).permanent is permanent


def test_a_function_that_is_only_used_is_not_there() -> None:
    file = Module(functions=("init_module", "cleanup_module")).file()
    at = file.index(b"\x12\0\x01\0" + bytes(16), file.index(b"\x12\0\x01\0" + bytes(16)) + 1)
    assert read_module(file[:at] + b"\x12\0\0\0" + file[at + 4 :]).permanent


def test_the_first_of_two_counts_as_for_the_kernel() -> None:
    found = read_module(Module(says={"version": "9.9", "vermagic": "first"}).file())
    assert (found.version, found.vermagic) == ("1.0", "first")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"kind": 2}, "relocatable"),
        ({"kind": 3}, "relocatable"),
        ({"name": ""}, "no name"),
        ({"name": "demo\x1b[31m"}, "name is"),
        ({"version": "1" * 513}, "version is"),
        ({"version": "\u00fc"}, "version is"),
        ({"says": {"a": "a" * 600_000}}, "section of"),
    ],
)
def test_what_is_no_module_is_refused(wrong: dict[str, Any], words: str) -> None:
    assert words in refusal(replace(GOOD, **wrong).file())


def test_an_odd_alias_is_left_out() -> None:
    assert read_module(replace(GOOD, aliases=("pci:\n*", "usb:v*")).file()).aliases == ("usb:v*",)


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"#!/bin/sh\n", bytes(100), b"\x7fELF\x02\x01\x01" + bytes(30)])
def test_other_files_are_refused(data: bytes) -> None:
    assert "ELF" in refusal(data) or "header" in refusal(data)


def test_a_file_that_is_too_large_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_file, "FILE_SIZE", 100)
    assert "larger than 100 bytes" in refusal(GOOD.file())


def test_sections_that_are_there_twice_are_refused() -> None:
    file = GOOD.file()
    renamed = file.replace(b".note.gnu.build-id\0", b".modinfo\0" + bytes(10))
    assert "twice" in refusal(renamed)


def test_every_truncation_is_refused() -> None:
    """The section table is at the end, so nothing may be missing."""
    for good in GOODS:
        file = good.file()
        for length in range(len(file)):
            refusal(file[:length])


@settings(max_examples=300)
@given(st.binary(max_size=2_000))
def test_any_bytes_are_a_module_or_a_refusal(data: bytes) -> None:
    for head in (b"", GOOD.file()[:16], GOOD.file()[:64]):
        _read_or_refuse(head + data)


@settings(max_examples=500)
@given(
    good=st.sampled_from(GOODS),
    edits=st.lists(st.tuples(st.integers(0, 2_000), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4),
)
def test_an_altered_module_is_a_module_or_a_refusal(good: Module, edits: list[tuple[int, bytes]]) -> None:
    file = bytearray(good.file())
    for place, data in edits:
        at = place % len(file)
        file[at : at + len(data)] = data
    _read_or_refuse(bytes(file))


@settings(max_examples=300)
@given(
    good=st.sampled_from(GOODS), field=st.integers(0, 59), value=st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**64 - 1])
)
def test_numbers_that_reach_beyond_the_file_are_refused(good: Module, field: int, value: int) -> None:
    """Each field of the section table in turn is huge, zero or one."""
    width = 8 if good.machine.bits == 64 else 4
    file = bytearray(good.file())
    at = len(file) - (field + 1) * width
    file[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, good.machine.order)
    _read_or_refuse(bytes(file))


def _read_or_refuse(data: bytes) -> None:
    try:
        found = read_module(data)
    except ProtocolError as error:
        assert error.code == "format"
    else:
        assert isinstance(found, ModuleFile)


@pytest.mark.parametrize("filler", [b"\0", b"=\0", b"=a\0", b"alias=x\0"])
def test_memory_is_bounded(filler: bytes) -> None:
    """The worst that half a MiB of .modinfo can be; and a file of many MiB is not copied."""
    worst = replace(GOOD, says={"x": (filler * 500_000)[:500_000].decode()})
    file = worst.file()
    tracemalloc.start()
    try:
        _read_or_refuse(file + bytes(8 * 1024 * 1024))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * 1024 * 1024


def test_machines_are_told_apart_in_words() -> None:
    assert str(MACHINES["aarch64"]) == "aarch64 (64 bits, little endian)"
    assert str(Machine(8, 32, "big")) == "kind 8 (32 bits, big endian)"
