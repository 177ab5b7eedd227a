"""The key of this user's checkpoints: one for all processes, private, and never in a store."""

from __future__ import annotations

from dlsearch.core.resume_key import resume_key


def test_it_is_made_once_and_for_this_user_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    key = resume_key()
    assert (len(key), resume_key()) == (64, key)
    (path,) = (tmp_path / "dlsearch").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    assert resume_key() != key, "somebody may have read it, or written it"
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_a_folder_it_lives_as_long_as_the_process(tmp_path, monkeypatch):
    (tmp_path / "dlsearch").write_text("no folder")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert len(resume_key()) == 64
    assert resume_key() == resume_key()
