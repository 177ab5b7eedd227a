"""Seeds as functions of a study's seed and a trial's number: never of worker, order or clock."""

from __future__ import annotations

import hashlib

#: Bytes of a digest that become a seed: 32 bits.
_SEED_BYTES = 4


def derive_seed(
    study_seed: int,
    number: int,
    purpose: str,
) -> int:
    """A seed below 2**32 that differs for each `purpose`: streams of one trial are independent."""
    text = f"dlsearch:{purpose}:{study_seed}:{number}"
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:_SEED_BYTES], "big")


def trial_seed(
    study_seed: int,
    number: int,
) -> int:
    """The seed with which trial `number` trains."""
    return derive_seed(study_seed, number, "trial")


def replica_seed(
    study_seed: int,
    number: int,
    replica: int,
) -> int:
    """The seed of replica `replica` of every finalist of round `number`.

    Finalists share it, so that they are compared in pairs; it is fresh in each round;
    a later one takes over the seeds of those before it, and has fresh ones for what it adds.
    """
    return derive_seed(study_seed, replica, f"confirm:{number}")


def refit_seed(
    study_seed: int,
    number: int,
) -> int:
    """The seed of the training on train + validation that may end round `number`."""
    return derive_seed(study_seed, 0, f"refit:{number}")
