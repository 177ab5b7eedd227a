"""Which names say that what stands under them is a secret."""

from __future__ import annotations

import pytest

from dlsearch.core.secret_names import names_secret
from dlsearch.core.secret_shapes import is_secret

SECRET = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "pass",
    "secret",
    "secrets",
    "token",
    "api_key",
    "apikey",
    "apiKey",
    "API-KEY",
    "credential",
    "credentials",
    "creds",
    "OPENAI_KEY",
    "GITHUB_PAT",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "DATABASE_DSN",
    "SENTRY_DSN",
    "MYSQL_PWD",
    "DB_PWD",
    "SLACK_WEBHOOK",
    "SLACK_WEBHOOK_URL",
    "webhook_url",
    "session_cookie",
    "cookie",
    "Set-Cookie",
    "bearer",
    "authorization",
    "Proxy-Authorization",
    "pat",
    "dsn",
    "openai_key",
    "wandb_key",
    "hf_token",
    "hub_token",
    "HFToken",
    "HF_TOKEN",
    "GITLAB_TOKEN",
    "NPM_TOKEN_READONLY",
    "PGPASSWORD",
    "dbPassword",
    "db_password_prod",
    "password2",
    "TOKEN_2",
    "DB_PASS",
    "client_secret",
    "clientSecret",
    "private_key",
    "signing_key",
    "ssh_key",
    "connection_string",
    "CONN_STR",
    "access_tokens",
    "refresh_token",
    "x-api-key",
    "x-auth-token",
    "auth",
    "basic_auth",
    "bypass_token",
    "jwt",
    "password_for_db",
    "secret_value",
    "token_value",
    "password_hash",
    "KAGGLE_KEY",
    "WANDB_API_KEY",
    "accesskey",
    "userpwd",
    "githubtoken",
]
HARMLESS = [
    "tokenizer",
    "max_tokens",
    "n_tokens",
    "num_tokens",
    "key_size",
    "monkey",
    "num_keys",
    "token_dim",
    "secretary",
    "passes",
    "token_mixer",
    "pass_through",
    "key",
    "keys",
    "turkey",
    "donkey",
    "keyboard",
    "primary_key",
    "PUBLIC_KEY",
    "SORT_KEY",
    "sort_key",
    "query_key",
    "key_dim",
    "pad_token",
    "eos_token",
    "mask_token",
    "special_tokens",
    "tokens",
    "tokens_per_s",
    "low_pass",
    "high_pass",
    "forward_pass",
    "compass",
    "bypass",
    "passive",
    "passenger",
    "author",
    "authors",
    "pattern",
    "path",
    "patience",
    "PWD",
    "OLDPWD",
    "cookiecutter",
    "authority",
    "password_file",
    "token_path",
    "secret_length",
    "password_policy",
    "kernel_size",
    "optimizer.lr",
    "study.name",
    "pat_size",
    "webhook_enabled",
    "session_id",
    "conn",
    "keystone",
    "bearer_length",
    "GOOGLE_APPLICATION_CREDENTIALS_FILE",
    "n_pass",
    "token_id",
]


@pytest.mark.parametrize("name", SECRET)
def test_it_names_a_secret(name: str) -> None:
    assert names_secret(name)


@pytest.mark.parametrize("name", HARMLESS)
def test_it_names_none(name: str) -> None:
    assert not names_secret(name)


@pytest.mark.parametrize(
    ("name", "secret"),
    [("token", True), ("DB_PASSWORD", True), ("auth", False), ("max_tokens", False)],
)
def test_a_number_is_secret_under_few_names(name: str, secret: bool) -> None:
    assert names_secret(name, number=True) is secret


def test_a_word_that_code_chooses_by_is_no_secret() -> None:
    for key, value in [("pool_token", "average"), ("task.time_token", "first-last")]:
        assert not is_secret(key, value)
    for key, value in [
        ("pool_token", "x81Kq0zzP"), ("hub_token", "average"), ("token", "average"),
        ("POOL_TOKEN", "average"), ("pool_password", "average"), ("user_token", "swordfish"),
        ("pool_token", "abcdefghijklmnopqrstuvwxyz"),
    ]:  # fmt: skip
        assert is_secret(key, value), key
