"""Who holds the seal on the test set, as a study asks."""

from __future__ import annotations

from omegaconf import OmegaConf

from dlsearch.core.machine import landlock
from dlsearch.execution.processes.confinement import AUDIT_HOOK, seal_process


def test_a_study_may_leave_the_seal_to_the_audit_hook(monkeypatch) -> None:
    given_up = []
    monkeypatch.setattr(landlock, "confine", lambda *paths, **_: given_up.append(paths))
    config = OmegaConf.create({"study": {"seal": "audit"}})
    assert seal_process([config]) == {"by": AUDIT_HOOK, "why": "study.seal=audit"}
    assert not given_up
