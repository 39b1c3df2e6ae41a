"""Lets the modules of a package be imported without the package's own code, which runs when somebody asks for it."""

import sys
from importlib.util import find_spec, module_from_spec
from threading import RLock
from typing import Any


def postpone(name: str) -> None:
    """Make a package of which modules are imported as ever, while its `__init__` waits for the first look at an attribute of it.

    Does nothing where it is imported already, or not installed.
    """
    if name in sys.modules or (spec := find_spec(name)) is None or (loader := spec.loader) is None:
        return
    package, lock = module_from_spec(spec), RLock()

    def complete(attribute: str) -> Any:
        with lock:
            if vars(package).pop("__getattr__", None) is not None:
                loader.exec_module(package)
        return getattr(package, attribute)

    vars(package)["__getattr__"] = complete
    sys.modules[name] = package
