"""How much of this machine's memory is left, by its own count and by that of the container around it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Bytes of memory that may still be taken, by the machine's count and the container's."""
    free = _fields(Path("/proc/meminfo")).get("MemAvailable:", 0) * 1024
    for limit, used, num_cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, taken = _number(_CGROUP / limit), _number(_CGROUP / used)
        if most is not None and taken is not None:
            cached = _fields((_CGROUP / used).with_name("memory.stat")).get(num_cached, 0)
            free = min(free, most - taken + cached)  # cached files make room when it is needed
    return max(free, 0)


def _fields(path: Path) -> dict[str, int]:
    """The numbers of a file with a name and a number on each line; none where it is not there."""
    fields = dict[str, int]()
    with suppress(OSError):
        for line in path.read_text(encoding="ascii").splitlines():
            name, number, *_ = [*line.split(), "", ""]
            if number.isdigit():
                fields[name] = int(number)
    return fields


def _number(path: Path) -> int | None:
    """The number in a file; None where there is no file, or a word such as `max`."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
