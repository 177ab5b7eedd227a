"""What was seen inside of a net, as the record holds it: random pictures, which are results of nothing."""

from __future__ import annotations

import base64
import random
from typing import Any


def tiles(rng: random.Random, n: int, channels: int, side: int) -> dict[str, Any]:
    """Pictures as the record holds them."""
    data = base64.b64encode(rng.randbytes(n * channels * side**2)).decode()
    return {"shape": [n, channels, side, side], "data": data}


def inside(rng: random.Random) -> dict[str, Any]:
    """What was seen inside of a net, of every kind."""
    layer = {"type": "ReLU", "names": None, "kernels": None}
    maps = [
        layer | {"layer": f"features.{i}", "total": n, "sides": [side, side], "channels": list(range(min(n, 16)))}
        | {"tiles": tiles(rng, min(n, 16), 1, side)}
        for i, n, side in ((1, 6, 28), (4, 32, 10))
    ]  # fmt: skip
    fixed = {
        "layer": "kernels",
        "type": "FixedKernels",
        "total": 5,
        "sides": [28, 28],
        "channels": list(range(5)),
    }
    names = ["identity", "sobel_x", "laplace", "gabor 4 px 22.5° even", "gabor 4 px 22.5° odd"]
    maps.append(
        fixed | {"names": names, "kernels": tiles(rng, 5, 1, 5), "tiles": tiles(rng, 5, 1, 28)}
    )
    return {
        "n": 256,
        "source": "the validation data",
        "image": tiles(rng, 1, 1, 28),
        "maps": maps,
        "deconvolution": [
            {
                "layer": f"features.{i}",
                "field": [side, side],
                "channels": [0, 2, 3, 5],
                "total": 6,
                "images": 3,
            }
            | {"projections": tiles(rng, 12, 1, side), "patches": tiles(rng, 12, 1, side)}
            for i, side in ((1, 5), (4, 14))
        ],
        "warped": {
            "layer": "transformer",
            "images": tiles(rng, 8, 1, 28),
            "warped": tiles(rng, 8, 1, 28),
        }
        | {"maps": [[[0.8, -0.2, 0.1], [0.2, 0.8, -0.1]]] * 8, "labels": list(range(8))},
        "gradients": {
            "layers": ["a", "b", "c"],
            "initial": [1e-5, 0.01, 0.3],
            "kept": [0.02, 0.0, 0.4],
        },
        "curves": {"metric": "loss", "best": 7}
        | {"train": [[e, round(2.0 * 0.7**e, 4)] for e in range(12)]}
        | {"val": [[e, round(1.9 * 0.75**e + 0.1 * max(0, e - 7), 4)] for e in range(12)]},
    }
