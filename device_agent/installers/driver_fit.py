"""Whether a driver can be loaded here, asked before anything is touched."""

import os
from collections.abc import Collection

from device_agent.installers.kernel import Build, Kernel
from device_agent.installers.module_tree import ModuleTree
from fleet_protocol.errors import InstallError
from fleet_protocol.module_file import MACHINES, ModuleFile


def check_fits(found: ModuleFile, tree: ModuleTree, kernel: Kernel, ours: Collection[str]) -> None:
    """Raise InstallError `kernel` where the kernel that runs would refuse the module, `read-only` where it can not be
    put there. `ours` are the modules that come with it."""
    if not tree.exists:
        raise InstallError("kernel", f"this device has no /lib/modules/{tree.release}")
    if not tree.is_writable:
        raise InstallError("read-only", f"/lib/modules/{tree.release} can not be written by this agent")
    if tree.is_builtin(found.name):
        raise InstallError("kernel", f"{found.name} is built into kernel {tree.release}: no file can replace it")
    if kernel.wants_signatures and not found.signed:
        raise InstallError("kernel", f"this kernel loads signed modules only, and {found.name} is not signed")
    _check_built_alike(found, tree.sample())
    missing = sorted(name for name in found.depends if name not in ours and not tree.has(name))
    if missing:
        raise InstallError("kernel", f"{found.name} needs {', '.join(missing)}, which kernel {tree.release} has not")


def _check_built_alike(found: ModuleFile, sample: ModuleFile | None) -> None:
    machine = sample.machine if sample is not None else MACHINES.get(os.uname().machine)
    if machine is not None and found.machine != machine:
        raise InstallError("kernel", f"{found.name} is for a machine of {found.machine}, this one is of {machine}")
    if sample is not None and found.vermagic.split() != sample.vermagic.split():
        raise InstallError("kernel", f"{found.name} has vermagic {found.vermagic!a}, the kernel {sample.vermagic!a}")


def check_replaceable(
    found: ModuleFile, kernel: Kernel, ours: Collection[str], *, has_services: bool, irreversible: bool
) -> None:
    """Raise InstallError `in-use` where the module could not be replaced now, `no-way-back` where it never could.

    The kernel does not say who uses a module, only how many do: where the release brings services of its own, they are
    taken for its users, and are quiet by the time that it is replaced.
    """
    if found.permanent and not irreversible:
        raise InstallError("no-way-back", f"{found.name} has no exit function: the kernel never unloads it")
    loaded = kernel.loaded(found.name)
    if loaded is None or loaded.is_of(Build.of(found)):
        return
    others = [holder for holder in loaded.holders if holder not in ours]
    if others:
        raise InstallError("in-use", f"{found.name} is used by {', '.join(others)}")
    users = loaded.refcnt - len(loaded.holders)
    if users > 0 and not has_services:
        raise InstallError("in-use", f"{found.name} is in use: reference count {loaded.refcnt}")
