"""Packages that are not installed, and how they are."""

from __future__ import annotations

import importlib.util

from dlsearch.core import permission

#: By the name that is imported, the name that is installed, where the two differ.
_INSTALLED_AS = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
#: Of a package that has two names, what the other one is imported as.
_OTHER_NAMES = {
    "lightning": "import pytorch_lightning as pl",
    "lightning_fabric": "import pytorch_lightning as pl",
}


def hint_of_missing(error: BaseException) -> str:
    """What to install, where an exception comes of a package that is not there; else nothing.

    Args:
        error: As it was caught; those that led to it are looked at too.
    """
    name = _missing_package(error)
    if name is None:
        return ""
    install = f"pip install {_INSTALLED_AS.get(name, name)}"
    other = _OTHER_NAMES.get(name)
    return install if other is None else f"{install}, or in its place: {other}"


def _missing_package(error: BaseException) -> str | None:
    """The package that an exception, or one that led to it, did not find.

    None where it is there, or is the user's own.
    """
    each: BaseException | None = error
    seen: set[int] = set()
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        if isinstance(each, ModuleNotFoundError) and each.name:
            package = each.name.partition(".")[0]
            is_known = package in permission.granted() or _is_there(package)
            return None if is_known else package
        each = each.__cause__ or each.__context__
    return None


def _is_there(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False
