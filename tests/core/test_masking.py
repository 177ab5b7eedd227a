from __future__ import annotations

import base64
import html
import json
import re
import shlex
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

import markupsafe
import pytest

from dlsearch.core import masking
from dlsearch.core.masking import MASK, mask, mask_code, mask_text

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
        {
            "model": {
                "n_tokens": 512,
                "token_dim": 64,
                "tokenizer": "bpe",
                "pass_through": "no",
                "passes": 3,
            }
        },
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


#: Not one of these stands under a key that says what it is. They are put together here, so that
#: nobody takes them for real ones that leaked.
SHAPES = {
    "openai": "sk-" + "proj-4Fz9" * 4,
    "github": "ghp_" + "0aB1cD2eF3" * 4,
    "github-fine": "github" + "_pat_11ABCDEFG0" + "x9" * 12,
    "gitlab": "glpat" + "-Ab3dEf6hIj9lMn2pQr5t",
    "slack": "xox" + "b-123456789012-abcdefghij",
    "aws-id": "AKIA" + "IOSFODNN7EXAMPLE",
    "aws-temporary": "ASIA" + "IOSFODNN7EXAMPLE",
    "hugging-face": "hf" + "_aBcDeFgHiJkLmNoPqRsTuVwX12",
    "google": "AIza" + "SyA1234567890abcdefghijklmnopqrstuv",
    "npm": "npm_" + "a1B2c3D4e5" * 4,
    "jwt": "eyJ" + "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N",
    "vault": "hvs." + "CAESIJ1a2b3c4d5e6f7g8h9i",
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "text", ["{}", "it was {}.", '{{"x": "{}"}}', "a,{},b", "https://host/p/{}/q", "x={}"]
)
def test_a_shape_alone_says_that_it_is_a_secret(shape: str, text: str) -> None:
    assert SHAPES[shape] not in mask_text(text.format(SHAPES[shape]))
    assert MASK in mask_text(text.format(SHAPES[shape]))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"Authorization: Bearer {SECRET}", f"Authorization: {MASK}"),
        (f"authorization: Basic {SECRET}==", f"authorization: {MASK}"),
        (f"{{'Authorization': 'Token {SECRET}'}}", f"{{'Authorization': '{MASK}'}}"),
        (f"curl -H 'Cookie: a=1; session={SECRET}' x", f"curl -H 'Cookie: {MASK}' x"),
        (f"Set-Cookie: id={SECRET}; Path=/", f"Set-Cookie: {MASK}"),
        (f"sent bearer {SECRET}9876", f"sent bearer {MASK}"),
        (f"GET /x?token={SECRET}&a=1", f"GET /x?token={MASK}&a=1"),
        (
            f"https://s.blob/c?sv=2020&sig={SECRET}&se=1",
            f"https://s.blob/c?sv=2020&sig={MASK}&se=1",
        ),
        (f"https://s3/b?X-Amz-Signature={SECRET}", f"https://s3/b?X-Amz-Signature={MASK}"),
        (f"https://maps/api?key={SECRET}", f"https://maps/api?key={MASK}"),
        (f"https://host/cb#access_token={SECRET}", f"https://host/cb#access_token={MASK}"),
        (
            f"https://hooks.slack.com/services/T0/B0/{SECRET}",
            f"https://hooks.slack.com/services/{MASK}",
        ),
        (
            f"https://discord.com/api/webhooks/1/{SECRET} x",
            f"https://discord.com/api/webhooks/{MASK} x",
        ),
        (f"https://api.telegram.org/bot1:{SECRET}/send", f"https://api.telegram.org/bot{MASK}"),
        (f"https:\\/\\/me:{SECRET}@host\\/x", f"https:\\/\\/{MASK}@host\\/x"),
        (f'"{{\\"password\\": \\"{SECRET}\\"}}"', None),
        (f"password%3D{SECRET}%26x", None),
        (f"password: |\n  {SECRET}\n  {SECRET}\nuser: me", None),
        (f"AccountKey={SECRET};EndpointSuffix=core", None),
        (f"OPENAI_KEY={SECRET} GITHUB_PAT={SECRET} DB_PWD={SECRET}", None),
        (f"DATABASE_DSN='host=db password={SECRET}'", None),
        (
            f"-----BEGIN RSA PRIVATE KEY-----\nMII{SECRET}\n{SECRET}=\n-----END RSA PRIVATE KEY-----\nx",
            f"{MASK}\nx",
        ),
        (f"-----BEGIN PRIVATE KEY-----\\nMII{SECRET}\\n-----END PRIVATE KEY-----", MASK),
        (f"-----BEGIN OPENSSH PRIVATE KEY-----\nMII{SECRET}", MASK),
    ],
)
def test_headers_addresses_and_key_blocks(text: str, kept: str | None) -> None:
    assert SECRET not in mask_text(text)
    assert kept is None or mask_text(text) == kept
    assert mask_text(mask_text(text)) == mask_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "monkey=chimp num_keys=3 key_size=128 max_tokens: 512 tokenizer: bpe passes=3 secretary: ann",
        "task-1234567890abcdef0123 disk-usage risk-free-rate-of-2020-and-2021",
        "the bearer of bad news, and basic blocks",
        "sk-learn-like-estimators-everywhere",
        "author: me, pattern: x, path: /a/b, patience=5, PWD=/home/me, session: 3",
        "Authorization: ${oc.env:NAME}",
        "Bearer ${oc.env:NAME}",
        "postgresql://${oc.env:DB_USER}:${oc.env:DB_PW}@host/db",
        "https://host/path?x=1&y=2#top",
        "api_key: ${oc.env:NAME}",
        "model.pad_token=[PAD] bands: low_pass=3",
        "-----BEGIN PUBLIC KEY-----",
    ],
)
def test_a_text_without_secrets_stays(text: str) -> None:
    assert mask_text(text) == text


def _basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "json": json.dumps,
    "json in json": lambda s: json.dumps(json.dumps(s)),
    "repr": repr,
    "repr of bytes": lambda s: repr(s.encode()),
    "quote": quote,
    "quote, all": lambda s: quote(s, safe=""),
    "quote_plus": quote_plus,
    "quoted in small letters": lambda s: re.sub("%..", lambda m: m[0].lower(), quote(s, safe="")),
    "urlencode": lambda s: urlencode({"a": s}),
    "html": html.escape,
    "markupsafe": lambda s: str(markupsafe.escape(s)),
    "shell": shlex.quote,
    "hex": lambda s: s.encode().hex(),
    "HEX": lambda s: s.encode().hex().upper(),
    "base32": lambda s: base64.b32encode(s.encode()).decode(),
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "urlsafe base64": lambda s: base64.urlsafe_b64encode(s.encode()).decode(),
    "basic, 1": lambda s: _basic("a", s),
    "basic, 2": lambda s: _basic("ab", s),
    "basic, 3": lambda s: _basic("abc", s),
    "base64, within": lambda s: base64.b64encode(f"xy{s}tail".encode()).decode(),
    "base64, quoted": lambda s: quote(base64.b64encode(s.encode()).decode(), safe=""),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "secret", ["canary12", 'it\'s "a" b&c/d?e+f%g~h', "zürich\\ä\n>>>???xyz", "tab\tand\x1besc"]
)
def test_what_is_known_is_replaced_in_every_form(form: str, secret: str) -> None:
    masking.learn({"hub_token": secret})
    written = FORMS[form](secret)
    shown = mask_text(f"at the hub: <{written}> was said")
    assert MASK in shown
    for part in (secret, written, *(written[i : i + 8] for i in range(2, len(written) - 10, 3))):
        assert part not in shown.replace("at the hub: ", "")
    assert shown.startswith("at the hub: <")
    assert shown.endswith("> was said")


def test_a_private_key_is_known_by_each_of_its_lines() -> None:
    lines = ["MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", "BKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"]
    for text in ("\n".join(lines), "\\n".join(lines)):
        masking.learn(
            {"private_key": f"-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----"}
        )
    for line in lines:
        assert mask_text(f"  {line}") == f"  {MASK}"


@pytest.mark.parametrize(
    "value",
    [
        ["--api-key", "canary12"],
        ["model.hub_token=canary12"],
        {"source": "https://me:canary12@host/x"},
        {"source": "https://canary12canary12@host/x"},
        {"note": "OPENAI_KEY=canary12 and so on"},
        {"x": {"credentials": {"user": "canary12"}}},
        {"token": {"value": "canary12"}},
        "postgresql://me:canary%31%32@host/db",
    ],
    ids=str,
)
def test_it_is_learned_wherever_it_stands(value: Any) -> None:
    masking.learn(value)
    assert "canary12" not in mask_text(
        f"it was {'canary12canary12' if '12@' in str(value) else 'canary12'}"
    )


def test_a_word_of_a_command_line_is_one_value() -> None:
    words = [
        "-m",
        "model.hub_token=two words & more",
        "+model.api_key='with \"quotes\"'",
        "model.width=8",
    ]
    assert mask(words) == [
        "-m",
        f"model.hub_token={MASK}",
        f"+model.api_key={MASK}",
        "model.width=8",
    ]
    masking.learn(words)
    said = mask_text(f"dlsearch {shlex.join(words)}")
    assert "two" not in said
    assert "more" not in said
    assert "quotes" not in said


def test_what_is_known_goes_from_a_result_and_nothing_else() -> None:
    masking.learn({"hub_token": SECRET})
    result = {
        "val/token": 0.5,
        "values": [0.1],
        "names": [f"a {SECRET}", {SECRET: 1}],
        "api_key": "kept: no key counts",
    }
    assert masking.mask_known_in(result) == {**result, "names": [f"a {MASK}", {MASK: 1}]}


def test_a_mapping_that_only_sounds_like_a_secret_stays() -> None:
    value = {"token": {"dim": 64, "kind": "learned"}, "pass": {"count": 3}}
    assert mask(value) == value


def test_long_runs_take_no_time() -> None:
    begin = time.process_time()
    for text in ("a" * 400_000, "key" * 130_000, "://" * 100_000, "a=" * 150_000, "-----BEGIN PRIVATE KEY-----" * 9_000,
                 "eyJ" * 100_000, "token" + "." * 300_000, "bearer " * 50_000):  # fmt: skip
        mask_text(text + " token=x")
    assert time.process_time() - begin < 15
