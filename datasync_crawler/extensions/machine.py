"""How much memory this process may take: the last resort of a crawl whose pages are too large."""

import re
from pathlib import Path
from typing import Final

#: Of a limit that was set for this container or unit, and of a machine that others use, too.
_SHARE_OF_CGROUP: Final = 0.8
_SHARE_OF_MACHINE: Final = 0.5


def memory_limit_mb(root: Path = Path("/")) -> int:
    """MB after which a crawl had better end, before the kernel ends it; 0 where nothing is known.

    The least of what the machine has and what its cgroups allow (version 2 or 1). *root* is where
    /proc and /sys are.
    """
    limits = [_SHARE_OF_CGROUP * limit for limit in _cgroup_limits(root)]
    found = re.search(r"^MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    if found:
        limits.append(_SHARE_OF_MACHINE * int(found[1]) * 1024)
    return int(min(limits, default=0) / 2**20)


def _cgroup_limits(root: Path) -> list[int]:
    """Bytes. Of version 2, those of all groups above count, too."""
    files = [root / "sys/fs/cgroup/memory/memory.limit_in_bytes"]
    for line in _text(root / "proc/self/cgroup").splitlines():
        group = root / "sys/fs/cgroup" / line.split(":", 2)[-1].strip("/")
        groups = (group, *group.parents)
        files += [one / "memory.max" for one in groups if one.is_relative_to(root / "sys/fs")]
    said = (_text(file).strip() for file in files)
    return [int(limit) for limit in said if limit.isdigit()]


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, ValueError):
        return ""
