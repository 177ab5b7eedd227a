"""What data modules say of themselves, as JSON: of the data, their splits and their inputs."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class Overlap(TypedDict):
    """What held-out samples share with the splits that come before theirs.

    Args:
        index: Samples that are the same.
        content: Samples whose content is the same.
    """

    index: int
    content: int


class DataDescription(TypedDict):
    """What a data set is, as JSON. All that is said of splits is by their names.

    Args:
        name: Of the data set.
        shape: Of one sample.
        num_classes: Number of classes, or of outputs.
        classes: Their names.
        sizes: Samples.
        digests: Of the samples, in their order.
        class_counts: Samples of each class; empty where there are none.
        overlap: See :class:`Overlap`.
    """

    name: str
    shape: list[int]
    num_classes: int
    classes: list[str]
    sizes: dict[str, int]
    digests: dict[str, str]
    class_counts: dict[str, list[int]]
    overlap: Overlap


class SplitRecord(DataDescription):
    """What is written down about splits when they are made.

    Args:
        statistics: Of the training split alone, by name; empty where the config gives them.
    """

    statistics: dict[str, list[float]]


class TargetSpec(TypedDict):
    """A number that is predicted.

    Args:
        name: What it is called.
        mean: That it was standardised with.
        std: That it was standardised with.
    """

    name: str
    mean: NotRequired[float]
    std: NotRequired[float]


class InputSpec(TypedDict, total=False):
    """How an input of one's own becomes what the net sees (see ``docs/using-models.md``).

    Args:
        kind: ``image`` or ``table``.
        shape: Of one input.
        mean: Of each channel or column.
        std: Of each channel or column.
        classes: Names; empty where there are none.
        columns: Names of a table's columns.
        targets: The numbers that are predicted.
    """

    kind: Literal["image", "table"]
    shape: list[int]
    mean: list[float]
    std: list[float]
    classes: list[str]
    columns: list[str]
    targets: list[TargetSpec]


class Share(TypedDict):
    """A process among those that train together.

    Args:
        rank: Its number.
        world: How many there are.
    """

    rank: int
    world: int
