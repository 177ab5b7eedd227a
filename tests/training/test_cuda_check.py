from __future__ import annotations

import os

import pytest
import torch

from dlsearch.training.cuda_check import quick_cuda_check

KEY = "PYTORCH_NVML_BASED_CUDA_CHECK"


@pytest.mark.parametrize(("available", "inside"), [(False, "0"), (True, "1")])
def test_nvml_is_left_out_only_where_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch, available: bool, inside: str
) -> None:
    monkeypatch.setenv(KEY, "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    with quick_cuda_check():
        assert os.environ[KEY] == inside
    assert os.environ[KEY] == "1"


def test_the_variable_comes_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="in between"), quick_cuda_check():
        raise RuntimeError("in between")
    assert os.environ[KEY] == "1"


def test_nothing_is_set_where_nothing_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    with quick_cuda_check():
        assert KEY not in os.environ
    assert KEY not in os.environ
