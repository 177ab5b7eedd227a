"""``study.confirm``: a section, or one word that switches the confirmation off or on."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlsearch.config.compose import explain
from dlsearch.config.schema import ConfirmConfig
from dlsearch.core.errors import ConfigError

if TYPE_CHECKING:
    from dlsearch.core.types import ConfigTree


def settle_confirmation(study: ConfigTree) -> None:
    """Write ``study.confirm`` as a study's document has it: a whole section, and ``finalize``.

    ``study.confirm=false`` confirms nothing, ``true`` confirms as by default, whatever the former
    name ``study.finalize`` says. A section says how, and leaves ``finalize`` as it is.

    Args:
        study: The section ``study`` of a composed config; it is changed.

    Raises:
        ConfigError: It is neither, or the section has a wrong key or a value of a wrong type.
    """
    given = study["confirm"]
    if isinstance(given, bool):
        study["finalize"] = given
        study["confirm"] = asdict(ConfirmConfig())
        return
    if not isinstance(given, dict):
        raise ConfigError(
            "study.confirm",
            f"expected false, true or a section, got {given!r}",
            "study.confirm=false confirms nothing, study.confirm.seeds=3 says how",
        )
    study["confirm"] = _fill_section(given)


def _fill_section(given: ConfigTree) -> ConfigTree:
    frame = OmegaConf.create({"study": {"confirm": OmegaConf.structured(ConfirmConfig)}})
    try:
        filled: Any = OmegaConf.merge(frame, {"study": {"confirm": given}})
    except OmegaConfBaseException as error:
        raise explain(error) from error
    found = OmegaConf.to_container(filled.study.confirm)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}
