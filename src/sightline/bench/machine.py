"""The machine that figures depend on, and the memory that it has left."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

__all__ = ["available_memory", "fingerprint"]

#: Instructions that decide how fast attention can be.
_FLAGS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "bf16",
    "sve",
    "i8mm",
)
#: A container's limit and what of it is in use, in either version of Linux's control groups.
_CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def fingerprint() -> dict[str, Any]:
    """The machine, and the versions of what runs on it."""
    cpu = _cpu()
    flags = set(cpu.get("flags", cpu.get("Features", "")).split())
    return {
        "cpu": cpu.get("model name") or platform.processor() or platform.machine(),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _installed_memory(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "sightline": version("sightline"),
    }


def available_memory() -> int | None:
    """Bytes that can be taken without pushing anything else out; None where the system does not tell."""
    known = [bytes for bytes in (_free_memory(), *(_left(*files) for files in _CGROUPS)) if bytes is not None]
    return min(known, default=None)


def _cpu() -> dict[str, str]:
    """What Linux says of the first core."""
    path = Path("/proc/cpuinfo")
    return _fields(path.read_text().split("\n\n")[0]) if path.exists() else {}


def _installed_memory() -> int:
    if "SC_PHYS_PAGES" not in os.sysconf_names:
        return 0
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _free_memory() -> int | None:
    """What Linux calls available, or all that the machine has."""
    with suppress(OSError, KeyError):
        return int(_fields(Path("/proc/meminfo").read_text())["MemAvailable"].split()[0]) * 1024
    return _installed_memory() or None


def _left(limit: Path, used: Path) -> int | None:
    """What a container has left. Its file cache counts as used, though some of that could be dropped."""
    with suppress(OSError, ValueError):  # no such files, or no limit ("max")
        return max(0, int(limit.read_text()) - int(used.read_text()))
    return None


def _fields(text: str) -> dict[str, str]:
    """Lines of "key: value"."""
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
