from __future__ import annotations

from typing import Any

import pytest

from dlsearch.tracking.masking import MASK, mask, mask_code, mask_text

SECRET = "hunter2x"


@pytest.mark.parametrize(
    "value",
    [
        {"password": SECRET},
        {"DB_PASSWORD": SECRET},
        {"passwd": SECRET},
        {"pass": SECRET},
        {"api_key": SECRET},
        {"apikey": SECRET},
        {"apiKey": SECRET},
        {"API-KEY": SECRET},
        {"hub": {"HF_TOKEN": SECRET}},
        {"client_secret": SECRET},
        {"credentials": {"user": SECRET, "nested": [{"x": SECRET}]}},
        {"secrets": [SECRET, SECRET]},
        {"bypass_token": SECRET},
        {"storage": f"postgresql+psycopg://user:{SECRET}@host:5432/db"},
        {"storage": f"postgresql://user:a@{SECRET}@host/db"},
        {"uri": f"http://{SECRET}@host"},
        {"uri": f"postgresql://host/db?user=a&password={SECRET}&sslmode=require"},
        [f"study.storage=mysql://u:{SECRET}@h/d", f"hub.token={SECRET}"],
        f"dlsearch -m tracking.password='{SECRET}' x=1",
        f"tool --api-key {SECRET} --verbose",
        f'{{"token": "{SECRET}", "x": 1}}',
        f"password: {SECRET}\nuser: me",
        f"--password={SECRET}",
        (f"token={SECRET}",),
        {"a": {"b": {"c": [f"secret={SECRET}"]}}},
    ],
)
def test_no_secret_comes_through(value: Any) -> None:
    assert SECRET not in str(mask(value))
    assert mask(mask(value)) == mask(value)


@pytest.mark.parametrize(
    "value",
    [
        {"optimizer": {"lr": 0.1, "betas": [0.9, 0.999]}, "seed": 0},
        {"model": {"n_tokens": 512, "token_dim": 64, "tokenizer": "bpe", "pass_through": "no", "passes": 3}},
        {"model": {"token_mixer": {"_target_": "torch.nn.Linear", "in_features": 3}}},
        {"password": None, "use_token": True},
        {"uri": "sqlite:///mlruns/mlflow.db", "home": "https://host/path?x=1"},
        ["compass=north", "highpass=3"],
        "user@host and a://b/c@d",
        3,
        None,
    ],
)
def test_what_is_no_secret_stays(value: Any) -> None:
    assert mask(value) == value


def test_numbers_are_secret_only_under_such_a_word() -> None:
    assert mask({"token": 1234, "max_tokens": 1234}) == {"token": MASK, "max_tokens": 1234}


def test_the_rest_of_the_text_stays() -> None:
    assert mask_text("a=1 password=x b=2") == f"a=1 password={MASK} b=2"
    assert mask_text("http://u:p@h:80/x") == f"http://{MASK}@h:80/x"


def test_code_keeps_its_names() -> None:
    code = "token = self.token\ndef f(password: str) -> None: ...\nkey = read(token=token)\n"
    assert mask_code(code) == code
    assert SECRET not in mask_code(f'password = "{SECRET}"\nurl = "http://a:{SECRET}@h"\n')
