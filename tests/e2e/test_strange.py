"""Whatever a user's code says, its trials end as what they are, on SQLite and PostgreSQL, and the study goes on."""

from __future__ import annotations

import pytest

from tests.e2e.running import TINY

KINDS = ("fine", "nul", "surrogate", "huge", "mute", "numeric", "names")


@pytest.mark.storm
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_no_text_of_a_users_code_stops_a_study(kind, place, tmp_path):
    site, more, server = place(f"strange-{kind}"), [], None
    if kind == "postgresql":
        from tests.storage.server import Server

        server = Server(tmp_path / "pg")
        more = [f"study.storage='{server.database('strange')}'"]
    try:
        sets = ", ".join(f"{{callbacks.strange.kind: {each}}}" for each in KINDS)
        said = site.run(
            "-m", *TINY, "study.name=s", f"study.n_trials={len(KINDS)}", "hydra.launcher.workers=2",
            "study.default_first=false", f"study.enqueue=[{sets}]", "allow_targets=[tests.e2e.strange]",
            "+callbacks.strange._target_=tests.e2e.strange.Strange",
            f"+callbacks.strange.kind=choice({','.join(KINDS)})",
            "tracking.enabled=true", *more, timeout=150,
        )  # fmt: skip
        trials = site.json("trials", "s", *more)
    finally:
        if server is not None:
            server.close()
    assert "Traceback" not in said
    assert "has reached MLflow yet" not in said
    found = {trial["params"]["callbacks.strange.kind"]: trial for trial in trials}
    assert {each: (found[each]["state"], found[each]["reason"], found[each]["attempt"]) for each in KINDS} == {
        "fine": ("complete", None, 1), "names": ("complete", None, 1),
        **dict.fromkeys(("nul", "surrogate", "huge", "mute", "numeric"), ("failed", "exception", 1)),
    }  # fmt: skip
    errors = {each: found[each]["error"] for each in KINDS if found[each]["error"]}
    assert errors["nul"].startswith("ValueError: a NUL: \\x00 (tests/e2e/strange.py:")
    assert errors["surrogate"].startswith("ValueError: half a pair: \\ud800 (tests/e2e/strange.py:")
    assert "… [20,000,000 characters] (tests/e2e/strange.py:" in errors["huge"]
    assert errors["mute"].startswith("Mute: (its text cannot be made) (tests/e2e/strange.py:")
    for trial in trials:
        if trial["state"] == "failed":
            folder = site.store / f"studies/s/t{trial['number']:05d}"
            assert "strange.py" in (folder / "error/traceback.txt").read_text(encoding="utf-8")
    assert (site.store / "studies/s/report/index.html").is_file()
