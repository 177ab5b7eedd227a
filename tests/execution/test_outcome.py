"""What follows from an end; and who was killed by the kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dlsearch.execution.outcome import (
    FENCED,
    INTERRUPTED,
    NO_LOG,
    TIMEOUT,
    Evidence,
    KernelKills,
    Limits,
    counters,
    judge,
    micro_batches,
    reasons,
    timed_out,
)
from dlsearch.study.models import Result
from dlsearch.study.states import AttemptState

LIMITS = Limits(max_attempts=3, max_halvings=2)
OOM = {"state": "failed", "reason": "oom", "error": "no memory", "halve": True}
DISK = {"state": "failed", "reason": "disk", "error": "No space left on device"}


def attempts(*ends):
    return [SimpleNamespace(reason=end) for end in ends]


def ends(result=None, code=0, *before, **how):
    sent = None if result is None else Result.from_json(result)
    found = judge(Evidence(sent, code, reasons(attempts(*before)), **how), LIMITS)
    return found.state, found.reason, found.result is not None


@pytest.mark.parametrize("state", ["complete", "pruned"])
def test_a_result_counts(state):
    assert ends({"state": state}) == (state, None, True)
    assert ends({"state": state}, stopping=True) == (state, None, True)


@pytest.mark.parametrize("reason", ["nan", "inf", "exception"])
def test_what_would_come_again_is_recorded(reason):
    assert ends({"state": "failed", "reason": reason}) == ("failed", reason, True)


def test_out_of_memory_is_tried_in_smaller_parts_and_not_for_ever():
    assert ends(OOM) == ("interrupted", "oom", False)
    assert ends(OOM, 0, "oom", "lost") == ("interrupted", "oom", False)
    assert ends(OOM, 0, "oom", "oom") == ("failed", "oom", True)
    assert ends({**OOM, "halve": False}) == ("failed", "oom", True), (
        "one sample a part, or it cannot be split"
    )
    assert ends(None, -9, by_kernel=True) == ("interrupted", "oom", False)
    assert ends(None, -9, "oom", "oom", by_kernel=True, reached=Result(AttemptState.FAILED, epochs=2)) == (
        "failed", "oom", True,
    )  # fmt: skip


def test_others_crowded_it_out():
    assert ends(OOM, 0, "oom", "oom", crowded="beside 2") == ("interrupted", "interrupted", False)


def test_a_full_disk_is_waited_for_and_not_for_ever():
    assert ends(DISK) == ("interrupted", "disk", False)
    assert ends(DISK, 0, "disk", "disk") == ("failed", "disk", True)
    assert ends(None, NO_LOG) == ("interrupted", "disk", False)
    assert ends(None, NO_LOG, "disk", "disk") == ("lost", "lost", False)


@pytest.mark.parametrize("code", [INTERRUPTED, -signal.SIGTERM, -signal.SIGHUP])
def test_a_sigterm_or_a_hangup_gives_back_whoever_got_it(code):
    assert ends(None, code) == ("interrupted", "interrupted", False)
    assert ends(None, -9, stopping=True) == ("interrupted", "interrupted", False)


def test_a_death_is_a_loss_and_says_of_what():
    assert ends(None, -9) == ("lost", "lost", False)
    assert judge(Evidence(None, -9), LIMITS).error == "killed by SIGKILL"
    assert judge(Evidence(None, -250), LIMITS).error == "killed by signal 250"
    assert judge(Evidence(None, 1), LIMITS).error == "exit status 1"
    assert ends({"state": "complete"}, 0, killed_for=FENCED) == ("lost", "lost", False)


def test_a_timeout_is_recorded_with_what_it_reached():
    reached = timed_out(2.0, [[0, 0.5], [1, 0.75], [2, 0.7]], 3, "val/accuracy", max)
    assert reached.error == "deadline of 2 s after 3 epochs, val/accuracy 0.75 at best"
    assert (reached.epochs, reached.history) == (3, [[0, 0.5], [1, 0.75], [2, 0.7]])
    assert timed_out(2.0, [], 0, "val/loss", min).error == "deadline of 2 s after 0 epochs"
    assert ends(None, -9, killed_for=TIMEOUT, reached=reached) == ("failed", "timeout", True)


def test_parts_double_with_every_time_that_memory_ran_out():
    assert micro_batches([]) == 1
    assert micro_batches(attempts("lost", "oom", "interrupted", "oom")) == 4
    assert micro_batches(attempts("oom"), attempts("oom", "oom")) == 4, (
        "a replica begins where its trial ended"
    )


# -- the kernel ------------------------------------------------------------------------------------------------------
def test_a_kill_is_counted_once(tmp_path):
    file = tmp_path / "memory.events"
    file.write_text("low 0\nhigh 0\nmax 3\noom 2\noom_kill 2\n")
    kills = KernelKills([file])
    assert not kills.claim(), "of before"
    file.write_text("oom_kill 4\n")
    assert [kills.claim() for _ in range(3)] == [True, True, False]
    assert not KernelKills([tmp_path / "absent"]).claim()
    assert not KernelKills([]).claim()


@pytest.mark.parametrize(("line", "place"), [
    ("0::/a/b", "a/b/memory.events"), ("0::/a/b", "memory.events"), ("0::/a", "unified/a/memory.events"),
    ("4:memory:/a", "memory/a/memory.oom_control"), ("4:memory:/a", "memory/memory.oom_control"),
])  # fmt: skip
def test_the_group_is_found_in_either_version_and_in_containers(tmp_path, line, place):
    (tmp_path / "proc").write_text(f"9:cpu:/x\n{line}\n")
    file = tmp_path / "sys" / place
    file.parent.mkdir(parents=True)
    file.touch()
    assert counters(tmp_path / "proc", tmp_path / "sys") == [file]
    assert counters(tmp_path / "absent") == []


def test_a_real_kill_of_the_kernels_is_seen():
    """In a control group of 40 MB; needs root on a machine whose groups may be written."""
    group, limit = Path("/sys/fs/cgroup/memory/dlsearch-test"), "memory.limit_in_bytes"
    if not group.parent.is_dir():
        group, limit = Path("/sys/fs/cgroup/dlsearch-test"), "memory.max"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("control groups cannot be made here")
    try:
        try:
            (group / limit).write_text(str(40 << 20))
        except OSError:
            pytest.skip("memory is not controlled here")
        names = ("memory.events", "memory.oom_control")
        kills = KernelKills([group / name for name in names if (group / name).is_file()])
        code = f"open('{group}/cgroup.procs', 'w').write('0'); x = bytearray(1 << 28); x[::4096] = x[::4096]"
        ended = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
        assert ended.returncode == -signal.SIGKILL
        assert [kills.claim(), kills.claim()] == [True, False]
    finally:
        os.rmdir(group)  # noqa: PTH106  # of a file system that knows no unlink
