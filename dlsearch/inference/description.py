"""What is said of a model beside its weights: in its checkpoint, and in ``model.json``.

Imports nothing heavy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypeAlias, TypedDict

from dlsearch.core.errors import ConfigError

if TYPE_CHECKING:
    from dlsearch.core.types import JsonObject, Params

#: Numbers of one input.
_MAX_INPUT = 1 << 26
_INPUT_KINDS = ("image", "table", "tensor")


class TargetSpec(TypedDict):
    """A number that a model predicts.

    Args:
        name: What it is called.
        mean: Added to what the network gives, after `std`.
        std: Times what the network gives.
    """

    name: str
    mean: NotRequired[float]
    std: NotRequired[float]


class InputSpec(TypedDict):
    """How an input of one's own becomes what a network sees.

    Args:
        kind: ``image``, ``table`` or ``tensor``.
        shape: Of one input; null where it is not known.
        mean: Of each channel or column; subtracted.
        std: Of each channel or column; divided by.
        classes: Names; empty where the data have none.
        columns: Names of a table's columns, in order.
        targets: The numbers that are predicted.
    """

    kind: str
    shape: NotRequired[list[int] | None]
    mean: NotRequired[list[float]]
    std: NotRequired[list[float]]
    classes: NotRequired[list[str]]
    columns: NotRequired[list[str]]
    targets: NotRequired[list[TargetSpec]]


class ClassesOutput(TypedDict):
    """Outputs that are one number a class.

    Args:
        kind: ``classes``.
        names: Of the classes, in order.
        probabilities: ``softmax`` makes them of the outputs; of ``none`` they are the outputs; null
            where there are none.
    """

    kind: Literal["classes"]
    names: list[str]
    probabilities: str | None


class NumbersOutput(TypedDict):
    """Outputs that are numbers.

    Args:
        kind: ``numbers``.
        targets: What they are called; empty where nothing is known of them.
    """

    kind: Literal["numbers"]
    targets: list[TargetSpec]


OutputSpec: TypeAlias = ClassesOutput | NumbersOutput


class ViewSettings(TypedDict, total=False):
    """Arguments of the views that are averaged over: ``task.test_time`` of a config.

    Args:
        crops: 1, 5 or 6 windows.
        flip: Also their mirror images.
        scale: Factors on the sides.
        pad: Reflected pixels around the image.
    """

    crops: int
    flip: bool
    scale: float | list[float]
    pad: int


class Origin(TypedDict, total=False):
    """Where a model comes from.

    Args:
        study: ``name`` and ``uuid``.
        trial: Its number.
        kind: ``confirm`` or ``trial``.
        params: Searched values.
        objective: ``name``, ``direction`` and ``value``.
        test: What was measured on the test set; null where it was not opened.
        sha: Digests of what the study was made of.
        title: In a few words; not in ``model.json``.
    """

    study: JsonObject
    trial: int | None
    kind: str
    params: Params
    objective: JsonObject
    test: JsonObject | None
    sha: dict[str, str]
    title: str


class Agreement(TypedDict):
    """How far the outputs of a file lie from those of its network.

    Args:
        largest_difference: Of any output.
        tolerance: What is let pass.
        largest_output: Of the network.
        batches: Sizes of those that were compared.
    """

    largest_difference: float
    tolerance: float
    largest_output: float
    batches: list[int]


class ExportedInput(InputSpec):
    """An input, and how many of them a batch holds.

    Args:
        batch: ``any``.
        dtype: Of the numbers.
    """

    batch: str
    dtype: str


class ExportedModel(Origin):
    """The content of ``model.json``.

    Args:
        schema: Version of this form.
        input: Of the network.
        output: Of the network.
        test_time: Views that were averaged over, if any.
        checkpoint_sha256: Of the checkpoint that was exported.
        files: Digests by name.
        agreement: By format.
        made_with: Versions by package.
    """

    schema: int
    input: ExportedInput
    output: OutputSpec
    test_time: NotRequired[ViewSettings]
    checkpoint_sha256: str
    files: dict[str, str]
    agreement: dict[str, Agreement]
    made_with: dict[str, str]


def check_input(spec: Any, where: str) -> None:
    """Check what a file says of a model's inputs.

    Args:
        spec: An :class:`InputSpec`, as far as the file can be trusted.
        where: What to call the file.

    Raises:
        ConfigError: It is no description of inputs, or one of inputs that are unreasonably large.
    """
    complaint = _complaint_about(spec)
    if complaint is not None:
        raise ConfigError(where, f"describes no inputs of a model: {complaint}")


def _complaint_about(spec: Any) -> str | None:
    """What is wrong with a description of inputs; None where nothing is."""
    if not isinstance(spec, Mapping) or spec.get("kind") not in _INPUT_KINDS:
        return "its kind is none that is known"
    shape = spec.get("shape")
    if shape is not None:
        if not _is_shape(shape):
            return "its shape is no list of sizes"
        if math.prod(shape) > _MAX_INPUT:
            return f"one has more than {_MAX_INPUT:,} numbers"
    for key in ("mean", "std"):
        if not _are_numbers(spec.get(key)):
            return f"its {key} is no list of numbers"
    for key in ("classes", "columns", "targets"):
        if not isinstance(spec.get(key) or [], (list, tuple)):
            return f"its {key} are no list"
    return None


def _is_shape(shape: Any) -> bool:
    if not isinstance(shape, (list, tuple)):
        return False
    return all(type(size) is int and size > 0 for size in shape)


def _are_numbers(value: Any) -> bool:
    """Whether this is a number, a list of numbers, or nothing."""
    numbers = value if isinstance(value, (list, tuple)) else [value]
    return all(number is None or isinstance(number, (int, float)) for number in numbers)
