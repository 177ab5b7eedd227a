"""The rest of the corpus: configs, git, and the targets that are hostile."""

from __future__ import annotations

import pytest

from tests.security.foreign.checking import check
from tests.security.foreign.corpus import CONFIGS
from tests.security.foreign.inputs.base import Input
from tests.security.foreign.runner import Runner

pytestmark = pytest.mark.storm


@pytest.mark.parametrize("given", [pytest.param(each, id=each.id) for each in CONFIGS])
def test_nothing_happens_outside(given: Input, runner: Runner) -> None:
    check(given, runner)
