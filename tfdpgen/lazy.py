"""Packages whose public names are imported when they are first used (PEP 562).

    if TYPE_CHECKING:
        from tfdpgen.privacy.ledger import Ledger          # what type checkers and import-linter read
    else:
        __getattr__, __dir__ = lazy_names(__name__, {"ledger": ("Ledger",)})

    __all__ = ["Ledger"]

So `from tfdpgen.privacy import Ledger` imports no TensorFlow, which takes seconds. A public name should not be that of
a module of the package: once imported, the module would stand in its place.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The functions `__getattr__` and `__dir__` of a package.

    Args:
      package: its `__name__`.
      modules: the names that each module of the package gives, by the module's name within the package.
    """
    module_of = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)
        setattr(sys.modules[package], name, value)  # found without this function from now on
        return value

    return get, lambda: sorted({*vars(sys.modules[package]), *module_of})
