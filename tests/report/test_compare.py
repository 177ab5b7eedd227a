"""What is said of studies that share more or less."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from dlsearch.core.errors import ConfigError
from dlsearch.report.compare.compare import compare
from dlsearch.report.compare.page import write
from dlsearch.report.compare.text import show
from tests.report.records import study_record

GOOD, POOR = [0.95, 0.96, 0.955, 0.965, 0.951], [0.91, 0.93, 0.92, 0.925, 0.9]
SCORES = [0.9, 0.97, 0.8, 0.93, 0.95, 0.85]


def a(**changes: Any) -> dict[str, Any]:
    return study_record("alpha", **{"scores": SCORES, "confirmed": GOOD, "right": 190, **changes})


def b(**changes: Any) -> dict[str, Any]:
    return study_record(
        "beta", **{"scores": [s - 0.02 for s in SCORES], "confirmed": POOR, "right": 180, **changes}
    )


def test_same_seeds_are_compared_pair_by_pair() -> None:
    (pair,) = compare([a(), b()])["pairs"]
    assert pair["confirmed"]["test"] == "paired t-test"
    assert pair["holm"] == pytest.approx(stats.ttest_rel(GOOD, POOR).pvalue)
    assert pair["better"] == "alpha"


def test_pairs_go_by_seed_and_not_by_order() -> None:
    turned = compare([a(), b(confirmed=POOR[::-1], seeds=[55, 44, 33, 22, 11])])
    assert turned["pairs"][0]["confirmed"]["p"] == compare([a(), b()])["pairs"][0]["confirmed"]["p"]


def test_other_seeds_are_two_samples() -> None:
    (pair,) = compare([a(), b(seeds=[1, 2, 3, 4, 5])])["pairs"]
    assert pair["confirmed"]["test"] == "Welch's t-test"
    assert pair["confirmed"]["p"] == pytest.approx(
        stats.ttest_ind(GOOD, POOR, equal_var=False).pvalue
    )


def test_where_less_is_better_the_smaller_mean_wins() -> None:
    loss = {"objective": "val/loss", "direction": "minimize"}
    facts = compare([a(**loss), b(**loss)])
    assert facts["pairs"][0]["better"] == "beta"
    assert facts["verdict"]["headline"].startswith("beta is better than alpha")


def test_studies_that_overlap_are_not_told_apart() -> None:
    facts = compare([a(), b(confirmed=[0.949, 0.963, 0.957, 0.962, 0.953])])
    assert facts["verdict"]["headline"] == "alpha and beta are not told apart"


def test_three_trainings_each_call_none_better() -> None:
    seeds = [11, 22, 33]
    facts = compare(
        [a(confirmed=GOOD[:3], seeds=seeds), b(confirmed=[0.91, 0.92, 0.914], seeds=seeds)]
    )
    assert facts["pairs"][0]["holm"] < 0.05
    assert facts["verdict"]["headline"] == (
        "alpha has the better mean by 4.03 points; 3 trainings each are too few to call it better"
    )


def test_tests_that_disagree_call_none_better() -> None:
    """One pair of six lies far off: the t-test hardly minds, the permutation test does."""
    low = [0.900, 0.901, 0.902, 0.903, 0.904, 0.905]
    leads = [0.010, 0.012, 0.011, 0.009, 0.010, -0.0005]
    seeds = [1, 2, 3, 4, 5, 6]
    high = [score + lead for score, lead in zip(low, leads, strict=True)]
    facts = compare([a(confirmed=high, seeds=seeds), b(confirmed=low, seeds=seeds)])
    (pair,) = facts["pairs"]
    assert pair["holm"] < 0.05 < pair["confirmed"]["permutation_p"]
    assert facts["verdict"]["headline"].endswith("points; the tests disagree")


def test_what_is_quoted_are_students_intervals() -> None:
    facts = compare([a(), b()])
    low, high = facts["pairs"][0]["confirmed"]["student"]
    sentence = facts["verdict"]["sentences"][0]
    assert f"95 % interval +{100 * low:.2f} to +{100 * high:.2f} points (Student's t)" in sentence


def test_three_studies_are_corrected_by_holm() -> None:
    third = study_record("gamma", scores=SCORES, confirmed=[0.94, 0.96, 0.96, 0.95, 0.945])
    facts = compare([a(), b(), third])
    ps = [p["confirmed"]["p"] for p in facts["pairs"]]
    least = min(range(3), key=lambda i: ps[i])
    assert facts["pairs"][least]["holm"] == pytest.approx(min(1.0, 3 * ps[least]))
    assert all(p["holm"] >= q for p, q in zip(facts["pairs"], ps, strict=True))
    assert facts["verdict"]["headline"] == "2 pairs of 3 told apart; alpha has the best mean"


def test_unconfirmed_studies_get_no_test() -> None:
    facts = compare([a(confirmed=None), b(confirmed=None)])
    assert facts["pairs"][0]["confirmed"] is None
    assert facts["verdict"]["headline"] == "alpha found the best score, and nothing confirms it"
    assert any("fresh seeds in alpha and beta" in w for w in facts["verdict"]["warnings"])


def test_test_accuracies_have_newcombes_interval() -> None:
    (pair,) = compare([a(), b()])["pairs"]
    assert pair["test"]["difference"] == pytest.approx(0.05)
    assert pair["test"]["low"] < 0.05 < pair["test"]["high"]
    assert pair["test"]["mcnemar"] is None


def test_complete_lists_of_errors_give_mcnemars_test() -> None:
    (pair,) = compare(
        [a(right=197, wrong=[1, 2, 3]), b(right=192, wrong=[3, 10, 11, 12, 13, 14, 15, 16])]
    )["pairs"]
    exact = pair["test"]["mcnemar"]
    assert (exact["only_a"], exact["only_b"]) == (7, 2)
    assert exact["p"] == pytest.approx(stats.binomtest(7, 9).pvalue)


def test_other_objectives_are_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=r"'alpha' maximises val/accuracy, 'beta' maximises val/f1: not comparable",
    ):
        compare([a(), b(objective="val/f1")])
    with pytest.raises(ConfigError, match="minimises"):
        compare([a(), b(direction="minimize")])
    several = a()
    several["study"] |= {
        "objectives": ["val/accuracy", "model/n_params"],
        "directions": ["maximize", "minimize"],
    }
    with pytest.raises(ConfigError, match="several objectives"):
        compare([several, b()])


def test_other_data_are_refused_and_shown_without_tests() -> None:
    with pytest.raises(ConfigError, match="different data: digits and mnist"):
        compare([a(), b(data="mnist")])
    facts = compare([a(), b(data="mnist")], different_data=True)
    assert facts["pairs"][0]["confirmed"] is None
    assert facts["pairs"][0]["test"] is None
    assert facts["verdict"]["headline"] == "Scores on different data are not comparable"


def test_another_validation_split_leaves_the_test_accuracies() -> None:
    facts = compare([a(), b(val="another", train="another")])
    assert facts["pairs"][0]["confirmed"] is None
    assert facts["pairs"][0]["test"] is not None
    assert any("val (100 / 100 examples, other ones)" in w for w in facts["verdict"]["warnings"])


def test_other_training_examples_are_said_and_tested() -> None:
    facts = compare([a(), b(train="another")])
    assert facts["pairs"][0]["confirmed"]["test"] == "paired t-test"
    assert facts["data"]["verdict"] == "training"


def test_random_samplers_have_an_expected_best_at_equal_budget() -> None:
    longer = b(scores=[*SCORES, 0.5, 0.6])
    curves = compare([a(), longer])["curves"]
    assert (curves["kind"], curves["trials"]) == ("expected", 6)
    assert curves["rows"][0]["value"] == pytest.approx(max(SCORES))
    assert curves["rows"][1]["value"] < max(SCORES)  # of six that are drawn from eight
    adaptive = compare([a(), b(sampler="TPESampler")])["curves"]
    assert adaptive["kind"] == "best"


def test_config_rows_are_what_differs_and_no_places() -> None:
    facts = compare([a(), b()])
    assert [row["key"] for row in facts["config"]] == ["model.width"]
    assert facts["config"][0]["values"] == ["5", "4"]
    assert facts["studies"][0]["budget"]["device_hours"] == pytest.approx(6 * 30 / 3600)
    assert facts["studies"][0]["budget"]["confirm_epochs"] == 10


def test_the_page_has_the_same_bytes_each_time_and_asks_for_nothing(tmp_path: Path) -> None:
    hostile = study_record(
        "<script>alert(1)</script>\x1b[2J\u202e $x$", scores=SCORES, confirmed=POOR, right=180
    )
    facts = compare([a(), hostile])
    for name in ("one", "two"):
        write(compare([a(), hostile]), tmp_path / name)
    files = sorted(
        p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file()
    )
    names = {
        "SHA256SUMS",
        "compare.json",
        "index.html",
        "figures/confirmed.svg",
        "figures/budget.svg",
    }
    assert {str(f) for f in files} == names
    assert all(
        (tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files
    )
    page = (tmp_path / "one/index.html").read_text()
    assert "<script" not in page
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", page)
    assert not re.search(r"""(?:src|href)=["'](?!#)""", page)
    assert json.loads((tmp_path / "one/compare.json").read_text()) == facts
    for line in (tmp_path / "one/SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((tmp_path / "one" / name).read_bytes()).hexdigest() == digest


def test_a_page_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    write(compare([a(), b()]), tmp_path / "out")
    write(compare([a(), b(confirmed=None)]), tmp_path / "out")
    assert "fresh seeds in beta" in (tmp_path / "out/index.html").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="holds something that is no comparison"):
        write(compare([a(), b()]), tmp_path / "mine")


def test_the_terminal_says_what_the_page_says() -> None:
    from rich.console import Console

    console = Console(width=160, record=True, file=io.StringIO())
    show(compare([a(), b()]), console)
    said = console.export_text()
    assert "alpha is better than beta by 3.92 points" in said
    assert "paired t-test" in said
    assert "model.width" in said


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from dlsearch.report.compare import compare, page, text; import dlsearch.cli.commands.compare; \
print([m for m in ('torch', 'matplotlib', 'mlflow', 'pytorch_lightning') if m in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "[]\n"
    )
