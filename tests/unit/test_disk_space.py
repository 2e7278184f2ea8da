"""What gives way when the disk is nearly full, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.disk_space import ALWAYS_ROOM, DiskSpace, Use
from gateway.video.writer import Disk
from tests.support.disk import FullDisk

ORDER = [Use.RECORDINGS, Use.FILES, Use.RUNTIMES, Use.EVENTS]


def test_uses_stop_one_after_the_other_as_space_falls() -> None:
    disk = FullDisk(reserve=1000)
    for free, left in (
        (1001, 4), (1000, 4), (999, 3), (750, 3), (749, 2), (500, 2), (499, 1), (250, 1), (249, 0), (0, 0),
    ):  # fmt: skip
        disk.leave(free)
        assert [use for use in ORDER if disk.has_room(use)] == ORDER[len(ORDER) - left :]
    disk.leave(1000)
    assert all(map(disk.has_room, Use))


def test_a_reserve_of_nothing_never_runs_out() -> None:
    disk = FullDisk(reserve=0)
    disk.leave(0)
    assert all(map(disk.has_room, Use))
    assert all(map(ALWAYS_ROOM.has_room, Use))


def test_a_measurement_counts_for_half_a_second() -> None:
    asked: list[Path] = []
    clock = [100.0]

    def free(directory: Path) -> int:
        asked.append(directory)
        return 10

    disk = DiskSpace(Path("/data"), 1000, free, lambda: clock[0])
    for seconds in (100.0, 100.49, 100.5, 100.9, 101.0):
        clock[0] = seconds
        assert disk.free == 10
    assert asked == [Path("/data")] * 3


def test_a_real_disk_is_measured(tmp_path: Path) -> None:
    assert DiskSpace(tmp_path, 1).has_room(Use.RECORDINGS)
    assert not DiskSpace(tmp_path, 1024**5).has_room(Use.EVENTS)
    # It may be gone, which is not the same as full.
    assert DiskSpace(tmp_path / "none", 1024**5).has_room(Use.RECORDINGS)


async def test_a_nearly_full_disk_takes_no_pictures() -> None:
    space = FullDisk(reserve=1000)
    written: list[int] = []
    disk = Disk(space=space)
    space.leave(1000)
    done = disk.start(lambda: written.append(1), 1, "a recording")
    assert done is not None
    await done
    space.leave(999)
    done = disk.start(lambda: written.append(2), 1, "a recording")
    assert done is not None
    with pytest.raises(OSError, match="nearly full"):
        await done
    with pytest.raises(OSError, match="nearly full"):
        disk.check_room()
    # The end of a reel is written still.
    await disk.run(lambda: written.append(3))
    disk.close()
    assert written == [1, 3]
