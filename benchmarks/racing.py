"""How often racing drops a configuration that would have won, among equal ones.

    python benchmarks/racing.py [--rounds 2000]

Equal configurations are the worst case, since whichever is dropped might have won. Scores are
accuracies on 10,000 examples as a metric in single precision gives them, so that for a small spread
many are ties; a far worse default configuration runs beside them. For each number of finalists, of
seeds, and each spread between seeds (in examples), it prints the share of rounds in which the
winner is another one than without racing, and worse, beside the stated error rate.
"""

from __future__ import annotations

import argparse

import numpy as np

from dlsearch.confirmation.racing import ERROR_RATE, Race, race
from dlsearch.study.models import Finalist

EXAMPLES = 10_000
FINALISTS = (2, 3, 5)
SEEDS = (3, 5, 10)
SPREADS = (0.2, 0.5, 1.0, 3.0, 20.0)
#: Standard deviation, in examples, of what all configurations share on a seed.
SHARED = 3.0


def make_field(count: int) -> list[Finalist]:
    """So many finalists of the search, and the default configuration."""
    searched = [Finalist(number, False, {"lr": number}, 0.99) for number in range(count)]
    return [*searched, Finalist(None, True, {"lr": -1}, None)]


def draw_counts(rng: np.random.Generator, finalists: int, seeds: int, spread: float) -> np.ndarray:
    """Examples that are right, a row each configuration, the default one last."""
    level = 9_800 + rng.uniform(0, 1) + rng.normal(0, SHARED, seeds)
    counts = np.round(level + rng.normal(0, spread, (finalists + 1, seeds)))
    counts[-1] -= 1_000
    return counts


def run_race(field: list[Finalist], scores: np.ndarray) -> Race:
    """The round to its end, with racing, as the replicas' results come in."""
    known: list[dict[int, float | None]] = [{} for _ in field]
    seeds = scores.shape[1]
    while True:
        now = race(field, known, seeds, maximize=True, racing=True)
        if now.decided:
            return now
        for finalist, replica in now.wanted:
            known[finalist][replica] = float(scores[finalist, replica])


def measure(finalists: int, seeds: int, spread: float, rounds: int) -> tuple[float, float]:
    """The share of rounds with another winner than without racing, and of replicas left out."""
    rng = np.random.default_rng(seeds)
    field = make_field(finalists)
    wrong = 0
    left_out = 0
    for _ in range(rounds):
        counts = draw_counts(rng, finalists, seeds, spread)
        scores = (counts / EXAMPLES).astype(np.float32)
        raced = run_race(field, scores)
        assert raced.winner is not None
        whole = counts.sum(axis=1)
        wrong += bool(whole[raced.winner] < whole.max())
        left_out += sum(seeds - after for after in raced.dropped.values())
    return wrong / rounds, left_out / (rounds * finalists * seeds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2000)
    rounds = parser.parse_args().rounds
    print(f"{rounds} rounds a row; stated: at most {100 * ERROR_RATE:.0f} % of another winner")
    print("| finalists | seeds | spread, examples | another winner | replicas left out |")
    print("| --: | --: | --: | --: | --: |")
    most = 0.0
    for finalists in FINALISTS:
        for seeds in SEEDS:
            for spread in SPREADS:
                wrong, left_out = measure(finalists, seeds, spread, rounds)
                most = max(most, wrong)
                shares = f"{100 * wrong:.1f} % | {100 * left_out:.1f} %"
                print(f"| {finalists} | {seeds} | {spread} | {shares} |")
    print(f"most: {100 * most:.1f} %")


if __name__ == "__main__":
    main()
