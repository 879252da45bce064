"""Which libraries read a checkpoint that others than bitsandbytes quantized, and whether they are here.

transformers asks for them one after the other, once the model is being loaded; here all are named at once, and before
a weight is fetched. Knows the names of packages and imports none of them.
"""

from __future__ import annotations

import importlib.util

from probegrid.planning.stored import StoredForm

_PACKAGES = {
    "aqlm": ("aqlm",),
    "auto-round": ("auto-round",),
    "awq": ("gptqmodel",),
    "compressed-tensors": ("compressed-tensors",),
    "gptq": ("gptqmodel", "optimum"),
    "hqq": ("hqq",),
    "torchao": ("torchao",),
    "vptq": ("vptq",),
}
"""By ``quant_method``, as transformers' own loaders ask for them; a module is called as its package, with ``_``."""


def lacking_libraries(form: StoredForm | None) -> str | None:
    """What cannot be loaded for want of libraries, and what to do; None where none is known to be missing.

    Args:
        form: how a checkpoint is stored.
    """
    packages = _PACKAGES.get(form.kind, ()) if form else ()
    missing = [package for package in packages if not _is_here(package)]
    if form is None or not missing:
        return None
    return (
        f"is stored as {form.name}, which cannot be loaded here: {' and '.join(missing)} "
        f"{'are' if len(missing) > 1 else 'is'} not installed (pip install {' '.join(missing)})"
    )


def _is_here(package: str) -> bool:
    return importlib.util.find_spec(package.replace("-", "_")) is not None
