"""The large nets: ``make test`` trains them made smaller; ``make test-storms`` as they are."""

from __future__ import annotations

HEAVY = (
    "alexnet",
    "attention",
    "gated",
    "googlenet",
    "googlenet_bn",
    "resnet",
    "senet",
    "vgg",
    "zfnet",
)


def is_light(name: str) -> bool:
    """Whether the net trains in a second or two, as it is."""
    return name not in HEAVY
