"""What to install where a package is missing."""

from __future__ import annotations

import importlib

import pytest

from dlsearch.core.packages import hint_of_missing


def failed(name, given=None):
    try:
        if given is not None:
            raise ModuleNotFoundError(f"No module named {given!r}", name=given)
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        return error


@pytest.mark.parametrize(("error", "hint"), [
    (failed("", "timm_not_there.layers"), "pip install timm_not_there"),
    (failed("", "cv2"), "pip install opencv-python-headless"),
    (failed("", "lightning"), "pip install lightning, or in its place: import pytorch_lightning as pl"),
    (failed("torch.not_there"), ""),  # the package is there
    (ValueError("No module named 'x'"), ""),
])  # fmt: skip
def test_a_package_that_is_missing_is_named_as_it_is_installed(error, hint):
    assert hint_of_missing(error) == hint
    wrapped = RuntimeError("cannot be built")
    wrapped.__cause__ = error
    assert hint_of_missing(wrapped) == hint
