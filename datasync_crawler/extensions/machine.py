"""The memory limit of this process, from the machine and its cgroups."""

import re
from pathlib import Path
from typing import Final

#: A cgroup's limit is for this container or unit; a machine's memory is shared with others.
_SHARE_OF_CGROUP: Final = 0.8
_SHARE_OF_MACHINE: Final = 0.5


def memory_limit_mb(root: Path = Path("/")) -> int:
    """MB beyond which a crawl should end; 0 where no limit is known.

    The smallest share of the machine's memory and of its cgroups' limits (version 2 or 1). /proc
    and /sys are under *root*.
    """
    limits = [_SHARE_OF_CGROUP * limit for limit in _cgroup_limits(root)]
    found = re.search(r"^MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    if found:
        limits.append(_SHARE_OF_MACHINE * int(found[1]) * 1024)
    return int(min(limits, default=0) / 2**20)


def _cgroup_limits(root: Path) -> list[int]:
    """Bytes. In version 2, the limits of all parent groups apply as well."""
    files = [root / "sys/fs/cgroup/memory/memory.limit_in_bytes"]
    for line in _text(root / "proc/self/cgroup").splitlines():
        group = root / "sys/fs/cgroup" / line.split(":", 2)[-1].strip("/")
        groups = (group, *group.parents)
        files += [one / "memory.max" for one in groups if one.is_relative_to(root / "sys/fs")]
    limits = (_text(file).strip() for file in files)
    return [int(limit) for limit in limits if limit.isdigit()]


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, ValueError):
        return ""
