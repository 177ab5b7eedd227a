"""Seeds as functions of a study's seed and a trial's number: never of worker, order or clock."""

from __future__ import annotations

import hashlib


def derive(study_seed: int, number: int, purpose: str) -> int:
    """A seed of its own for each `purpose`, below 2**32, so that streams of one trial are independent."""
    text = f"dlsearch:{purpose}:{study_seed}:{number}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def trial_seed(study_seed: int, number: int) -> int:
    """The seed with which trial `number` trains."""
    return derive(study_seed, number, "trial")


def replica_seed(study_seed: int, number: int, replica: int) -> int:
    """The seed of replica `replica` of every finalist of round `number`: paired, and fresh in each round."""
    return derive(study_seed, replica, f"confirm:{number}")


def refit_seed(study_seed: int, number: int) -> int:
    """The seed of the training on train + validation that may end round `number`."""
    return derive(study_seed, 0, f"refit:{number}")
