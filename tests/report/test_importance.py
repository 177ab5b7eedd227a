"""Importances come without scikit-learn, and nobody else is left with less than Optuna has."""

from __future__ import annotations

import subprocess
import sys

_STUDY = """
import sys
import optuna
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
study.optimize(lambda t: t.suggest_float("x", 0, 1) + 0.01 * t.suggest_float("y", 0, 1), n_trials=60)
"""


def run(code: str) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", _STUDY + code], check=True, timeout=120)


def test_importances_come_without_scikit_learn() -> None:
    run(
        "from dlsearch.report.facts.importance import PedAnovaImportanceEvaluator, get_param_importances\n"
        "shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())\n"
        "assert shares['x'] > 0.9, shares\n"
        "assert not {'sklearn', 'pandas'} & set(sys.modules)\n"
    )


def test_who_wants_a_forest_still_has_one() -> None:
    run(
        "from dlsearch.report.facts.importance import get_param_importances\n"
        "assert 'sklearn' not in sys.modules\n"
        "forest = optuna.importance.FanovaImportanceEvaluator(n_trees=8, seed=0)\n"
        "assert optuna.importance.get_param_importances(study, evaluator=forest)['x'] > 0.9\n"
        "from optuna.importance import MeanDecreaseImpurityImportanceEvaluator as Mean\n"
        "assert optuna.importance.get_param_importances(study, evaluator=Mean(seed=0))['x'] > 0.9\n"
    )


def test_a_version_of_optuna_that_needs_scikit_learn_gets_it() -> None:
    run(
        "import optuna._imports\n"
        "class Strict:\n"
        "    __enter__ = lambda self: self\n"
        "    __exit__ = lambda self, *error: None\n"
        "    is_successful = lambda self: True\n"
        "    check = lambda self: None\n"
        "optuna._imports.try_import = Strict\n"
        "from dlsearch.report.facts.importance import get_param_importances\n"
        "assert 'sklearn.ensemble' in sys.modules\n"
        "assert get_param_importances(study)['x'] > 0.9\n"
    )
