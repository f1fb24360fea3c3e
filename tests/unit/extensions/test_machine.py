"""How much memory a process may take, by what /proc and /sys say."""

from pathlib import Path

import pytest

from datasync_crawler.extensions.machine import memory_limit_mb

GB = 2**30
MACHINE = {"proc/meminfo": "MemTotal:        8388608 kB\nMemFree: 1 kB\n"}
UNIT = {"proc/self/cgroup": "0::/system.slice/crawl.service\n"}
ALL = "9223372036854771712"


@pytest.mark.parametrize(
    ("files", "limit_mb"),
    [
        ({}, 0),
        (MACHINE, 4096),
        ({**MACHINE, "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GB}\n"}, 819),
        ({**MACHINE, "sys/fs/cgroup/memory/memory.limit_in_bytes": ALL}, 4096),
        ({**MACHINE, "proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": f"{GB}\n"}, 819),
        ({**MACHINE, **UNIT, "sys/fs/cgroup/system.slice/memory.max": f"{2 * GB}"}, 1638),
        (
            {**MACHINE, **UNIT, "sys/fs/cgroup/system.slice/crawl.service/memory.max": "max\n"},
            4096,
        ),
        ({**MACHINE, "proc/self/cgroup": "nonsense"}, 4096),
    ],
)
def test_the_limit_is_the_least_of_machine_and_cgroups(
    tmp_path: Path, files: dict[str, str], limit_mb: int
) -> None:
    """Half of the machine's, four fifths of a container's or unit's; none where nothing is said."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory_limit_mb(tmp_path) == limit_mb
