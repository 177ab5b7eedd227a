"""A short storm: workers, drivers, shippers and trials are killed and stopped; the study comes out whole."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from tests.e2e import aftermath
from tests.e2e.running import FAST, ROOT, TINY
from tests.e2e.storm import STOP, TERM, Storm, plan

pytestmark = [pytest.mark.storm, pytest.mark.timeout(400)]  # the whole storm is one fixture

TRIALS, LEASE_S = 16, 5.0
KINDS = ["trial"] * 4 + ["worker"] * 3 + ["driver"] * 2 + ["shipper"] * 2 + [TERM] * 3 + [STOP] * 2


@pytest.fixture(scope="module")
def storm(place, warm):
    """The study, in the storm and to its end."""
    site = place("storm")
    words = [f"worker.lease_s={LEASE_S}", f"paths.store={site.store}"]
    study = [
        *TINY, "study.name=s", f"study.n_trials={TRIALS}", "study.max_attempts=20", "trainer.max_epochs=8",
        "data.train_size=1024", "data.batch_size=8", "callbacks=none",
    ]  # fmt: skip
    url = f"sqlite:///{site.store / 'dlsearch.db'}"
    storm = Storm(
        site.folder,
        [site.python, "-m", "tests.e2e.warm", f"{warm.path}#{warm.key}"],
        ["-m", *study, *words, "hydra.launcher.workers=2", "tracking.enabled=true"],
        [["worker", "study=s", "worker.slots=1", "worker.threads=1", *words, "tracking.enabled=false"]],
        url=url, study="s", seed=1, events=plan(random.Random(1), TRIALS, KINDS), lease_s=LEASE_S,
        env={**FAST, "PYTHONPATH": f"{ROOT}:{ROOT / 'dlsearch/_hydra'}"}, roots=[warm._process.pid],
    )  # fmt: skip
    seen = storm.run(300)
    site.run("sync")
    left = aftermath.read(url, "s")
    there = aftermath.tracked(site.store, site.store / "mlflow.db", "s")
    return site, seen, left, there


def test_all_of_it_was_done(storm):
    _, seen, _, _ = storm
    assert Counter(blow.kind for blow in seen.blows) == Counter(KINDS)
    assert seen.codes == []


def test_the_storage_is_whole(storm):
    _, seen, left, _ = storm
    checks = aftermath.of_storage(left, seen)
    assert aftermath.failed(checks) == []
    assert [c.found for c in checks[:2]] == [TRIALS, TRIALS]


def test_tracking_has_each_row_once_and_says_the_same(storm):
    site, _, left, there = storm
    report = json.loads((site.store / "studies/s/report/report.json").read_text("utf-8"))
    assert aftermath.failed(aftermath.of_tracking(left, there, report)) == []
    assert len(there.written) > TRIALS * 8 * 4


def test_a_blow_costs_an_epoch_at_most_and_is_found_out_in_time(storm):
    _, seen, left, there = storm
    assert aftermath.failed(aftermath.of_blows(left, there, seen, LEASE_S)) == []
    assert aftermath.detections(left, seen)


def test_a_trial_that_is_told_to_end_goes_on_from_its_checkpoint(storm):
    _, seen, left, _ = storm
    told = {each for blow in seen.blows if blow.kind == TERM for each in blow.attempts}
    # its worker was killed, say
    told -= {each for blow in seen.blows if blow.kind != TERM for each in blow.attempts}
    given_back = [a for a in left.attempts if a["id"] in told and a["state"] != "complete"]
    for attempt in given_back:
        assert (attempt["state"], attempt["reason"]) == ("interrupted", "interrupted")
        after = next(
            a for a in left.of(attempt["number"]) if a["attempt"] == attempt["attempt"] + 1
        )
        known = json.loads(after["progress"] or "{}") | json.loads(after["result"] or "{}")
        assert (known.get("resumption") or {}).get("from") == "last.ckpt" or after[
            "state"
        ] != "complete"
    assert given_back


def test_the_checks_can_fail(storm):
    """Each of them notices its damage."""
    _, seen, left, there = storm
    number = next(n for n, (state, _) in left.trials.items() if state == "COMPLETE")
    last = left.of(number)[-1]

    def found(**changed):
        other = aftermath.Left(**{**vars(left), **changed})
        checks = aftermath.of_storage(other, seen) + aftermath.of_tracking(other, there, None)
        return {line.partition(":")[0] for line in aftermath.failed(checks)}

    assert "rows" in found(numbers=[*left.numbers, number])
    assert "finished trials lost or changed" in found(
        trials={**left.trials, number: ("COMPLETE", 2.0)}
    )
    assert "attempts still RUNNING" in found(
        attempts=[*left.attempts, {**last, "state": "running"}]
    )
    again = {**last, "attempt": last["attempt"] + 1, "started": last["ended"] + 1}
    assert {"results accepted twice", "late results accepted"} <= found(
        attempts=[*left.attempts, again]
    )
    assert "attempts whose state is another in MLflow" in found(
        attempts=[a if a is not last else {**a, "state": "lost"} for a in left.attempts]
    )
