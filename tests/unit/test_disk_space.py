"""What gives way when the disk is nearly full, and in which order."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from gateway.core.disk_space import ALWAYS_ROOM, DiskSpace, Use
from gateway.domain.disk_watch import DiskWatch
from gateway.telemetry import metrics
from gateway.video.writer import Disk
from tests.support.disk import FullDisk
from tests.support.waiting import until

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


def _reported(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int, int, list[str]]]:
    lines = [record.msg for record in caplog.records if record.name == "gateway.disk"]
    return [
        (line["level"], line["step"], line["free_bytes"], line["gave_way"]) for line in lines if isinstance(line, dict)
    ]


async def test_each_change_of_step_is_one_line_of_the_log_and_in_the_gauges(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway.disk")
    disk = FullDisk(reserve=1000)
    watch = DiskWatch({"data": disk})
    for free, step in ((1000, 0), (999, 1), (998, 1), (749, 2), (249, 4), (999, 1), (1000, 0), (1001, 0)):
        disk.leave(free)
        await watch.measure()
        for name, value in (("gateway_disk_free_bytes", free), ("gateway_disk_step", step)):
            assert metrics.registry.get_sample_value(name, {"disk": "data"}) == value
    assert _reported(caplog) == [
        ("warning", 1, 999, ["recordings"]),
        ("error", 2, 749, ["recordings", "files"]),
        ("error", 4, 249, ["recordings", "files", "runtimes", "events"]),
        ("info", 1, 999, ["recordings"]),
        ("info", 0, 1000, []),
    ]


async def test_a_start_below_the_reserve_is_logged_and_watched_from_then_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway.disk")
    disk = FullDisk(reserve=1000)
    disk.leave(999)
    async with DiskWatch({"data": disk}, seconds=0.001).running():
        assert [step for _, step, _, _ in _reported(caplog)] == [1]
        disk.leave(1000)
        await until(lambda: [step for _, step, _, _ in _reported(caplog)] == [1, 0])


async def test_a_reserve_of_nothing_reports_no_step(caplog: pytest.LogCaptureFixture) -> None:
    disk = FullDisk(reserve=0)
    await DiskWatch({"data": disk}).measure()
    assert _reported(caplog) == []
