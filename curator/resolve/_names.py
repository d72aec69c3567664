"""What GPUs and drivers are called, by people and by drivers.

- A GPU is a product (`A100`, `rtx 4090`, `NVIDIA GeForce RTX 4090 Laptop GPU`) or a compute
  capability (`sm_80`, `8.0`); a driver is a branch (`535`, `R535`) or a whole version.
- A product has one name here, whatever it was called: memory, form and maker are left out.
- A virtual GPU keeps the name that its driver gives it, and has no kind: what it calls itself
  depends on its licence, and forward compatibility packages are not documented for it.
- Texts are read as ASCII whatever the language, byte order marks and odd spaces aside, so that the
  page reads them alike.

>>> str(gpu("rtx 4090")), str(gpu("sm_80")), driver("R535")
('GeForce RTX 4090 (sm_89)', 'sm 8.0', '535')
"""

from __future__ import annotations

import re
from dataclasses import replace
from difflib import get_close_matches
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final, cast

from curator.facts import facts
from curator.resolve._values import Gpu

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from curator.facts import Product
    from curator.resolve._values import Kind

__all__ = [
    "architecture",
    "architecture_of",
    "called",
    "driver",
    "gpu",
    "is_brand",
    "is_name",
    "quoted",
    "squeezed",
]

MAX_NAME: Final = 100
ARCHITECTURES: Final = {
    "x86_64": "x86_64",
    "amd64": "x86_64",
    "aarch64": "aarch64",
    "arm64": "aarch64",
}

# All that Python or JavaScript takes for a space.
_SPACES = re.compile("[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\ud800-\udfff]")

_CAPABILITY = re.compile(r"(?:(sm|compute|cc)[ _-]?)?([0-9]{1,2})(\.?)([0-9])[af]?")
_DRIVER = re.compile(
    r"(?:nvidia)?[ -]?(?:driver)?[ -]?(?:version)?[ :=]{0,3}[rv]?"
    r"([3-9][0-9]{2}(?:\.[0-9]{1,4}(?:\.[0-9]{1,3})?)?)(?:-server)?(?:-open)?"
)
_CUDA = re.compile(r"(?:cuda)?[ -]?[0-9]{1,2}\.[0-9]{1,2}(?:\.[0-9]{1,2})?")

# What a name says besides the chip: memory, form, and the words around it.
_MEMORY = re.compile(r"\b[0-9]{1,3} ?g(?:i?b)?\b|\b(?:hbm|gddr)[0-9]?[ex]?\b", re.ASCII)
_FORM = re.compile(
    r"\b(?:sxm[0-9]?|pci-?e?|nvl[0-9]*|hgx|dgx|mig|laptop|mobile|notebook|with|max-?q|design|gpu"
    r"|graphics|card|superchip)\b",
    re.ASCII,
)
_SLICE = re.compile(r"-[0-9]{1,3}(?:-[0-9]{1,3})?[qcab][0-9]?\b", re.ASCII)  # GRID T4-16Q
_MAKER = re.compile(r"\b(?:nvidia|corporation|grid)\b", re.ASCII)
_VIRTUAL = re.compile(rf"{_SLICE.pattern}|\bgrid\b", re.ASCII)
_LINE = re.compile(r"^(?:geforce|quadro|tesla)")
_BRANDS: Final = ("nvidia", "tesla", "geforce", "quadro", "titan", "grid", "rtx")
_REST = re.compile(r"[^a-z0-9]+")

# GPUs that are in Arm machines alone, as Jetson boards are: Grace's, and that of AWS's G5g
# (source: github.com/aws/amazon-ecs-ami/issues/241, read 2026-11-28).
_ARM: Final = frozenset({"GH200", "GB200", "GB300", "GB10", "T4G"})


def gpu(text: str) -> Gpu:
    """Return the GPU that somebody means.

    Raises:
        ValueError: no such GPU is known, or several are called so; the message names the nearest.
    """
    plain = squeezed(text)
    found = _CAPABILITY.fullmatch(plain.lower())
    if found and (found[1] or found[3]):
        return _capability(f"{int(found[2])}.{found[4]}")
    meant = _products(plain)
    if not meant:
        raise ValueError(_unknown(plain))
    if len({(product.sm, product.kind) for product in meant}) > 1:
        names = " or ".join(f"{product.name} (sm_{_digits(product.sm)})" for product in meant)
        raise ValueError(f"{quoted(plain)} is {names}: say which")
    return _gpu(meant[0], plain)


@lru_cache(maxsize=1024)
def called(name: str) -> Gpu:
    """Return the GPU that a driver calls so; of one that is not known, no more than its name.

    Drivers up to 535 cut names and end them with dots: what all GPUs that it can be have in common
    is known then.
    """
    plain = squeezed(name)
    cut = plain.endswith("..")
    meant = _beginning(plain.rstrip(". ")) if cut else _products(plain)
    if len(meant) == 1:
        return _gpu(meant[0], plain)
    sms, kinds = ({getattr(product, field) for product in meant} for field in ("sm", "kind"))
    sm = sms.pop() if len(sms) == 1 else None
    kind = cast("Kind", kinds.pop()) if len(kinds) == 1 else _kind(plain)
    return Gpu(name=plain[:MAX_NAME] or None, sm=sm, kind=None if _is_virtual(plain) else kind)


def driver(text: str) -> str:
    """Return a driver's version or branch, as its numbers alone.

    Raises:
        ValueError: it is none.
    """
    plain = squeezed(text)
    found = _DRIVER.fullmatch(plain.lower())
    if found:
        return found[1]
    about = f"no driver version: {quoted(plain[:MAX_NAME])}"
    if _CUDA.fullmatch(plain.lower()):
        about = f"{quoted(plain)} reads as a CUDA version, not as a driver's"
    raise ValueError(
        f"{about}; a driver is 535 or 535.104.05, as "
        "`nvidia-smi --query-gpu=driver_version --format=csv` prints it"
    )


def is_name(text: str) -> bool:
    """Return whether a text is the name of a known GPU, with its brand."""
    return is_brand(text) and bool(_products(text))


def is_brand(text: str) -> bool:
    """Return whether a text begins as the names of GPUs do that drivers show."""
    return text.lower().startswith(_BRANDS)


def architecture(text: str) -> str:
    """Return an architecture as `uname -m` says it.

    Raises:
        ValueError: it is none that images are built for.
    """
    plain = squeezed(text)
    if plain.lower() not in ARCHITECTURES:
        raise ValueError(f"{quoted(plain)} is none of {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[plain.lower()]


def architecture_of(gpus: Iterable[Gpu]) -> str:
    """Return what `uname -m` says where these GPUs are: some are in Arm machines alone."""
    given = tuple(gpus)
    return "aarch64" if given and all(_is_arm(found) for found in given) else "x86_64"


def _is_arm(found: Gpu) -> bool:
    words = re.split("[ -]", found.name or "")
    return found.kind == "embedded" or not _ARM.isdisjoint(words)


def squeezed(text: str) -> str:
    """Return a text without byte order marks, and with one plain space for all kinds of space."""
    return _SPACES.sub(" ", text.replace("\ufeff", "")).strip(" ")


def quoted(text: str) -> str:
    """Return a text in quotes as messages show it: what cannot be printed is replaced."""
    return f"'{_UNPRINTABLE.sub(chr(0xFFFD), text)}'"


def _capability(sm: str) -> Gpu:
    known = facts()
    every = {*known.capabilities, *(product.sm for product in known.products.values())}
    if sm in every:
        return Gpu(sm=sm)
    number = _number(sm)
    near = sorted(every, key=lambda other: (abs(_number(other) - number), _number(other)))[:3]
    names = ", ".join(sorted(near, key=_number))
    raise ValueError(f"no GPU of compute capability {sm} is known; near: {names}")


def _number(sm: str) -> int:
    return int(_digits(sm))


def _digits(sm: str) -> str:
    return sm.replace(".", "")


def _gpu(product: Product, text: str) -> Gpu:
    found = Gpu(name=product.name, sm=product.sm, kind=cast("Kind", product.kind))
    return replace(found, name=text[:MAX_NAME], kind=None) if _is_virtual(text) else found


def _is_virtual(text: str) -> bool:
    """Return whether a GPU is a share of one, as NVIDIA's vGPU software names it.

    Source: github.com/gpuopenanalytics/pynvml/issues/38 (a GRID V100DX-16Q has brand 10, that of
    virtual workstations), read 2026-11-28; the brands are those of NVML's nvmlBrandType_t.
    """
    return _VIRTUAL.search(text.lower()) is not None


def _kind(name: str) -> Kind | None:
    """Return what a brand says of a GPU that is not known."""
    words = name.lower()
    if "geforce" in words:
        return "geforce"
    if "titan" in words:
        return "titan"
    return "workstation" if "quadro" in words else None


def _unknown(text: str) -> str:
    keys = _keys()
    shown = f"no GPU called {quoted(text[:MAX_NAME])} is known"
    near = get_close_matches(_key(text), keys, n=5, cutoff=0.5) if len(text) <= MAX_NAME else []
    names = dict.fromkeys(product.name for key in near for product in keys[key])
    nearest = f"; near: {', '.join(list(names)[:3])}" if names else ""
    return f"{shown}{nearest}; a compute capability will do, such as sm_80 or 8.0"


def _products(text: str) -> tuple[Product, ...]:
    """Return the products that a text is a name of, the whole text or all but its extras."""
    if len(text) > MAX_NAME:
        return ()
    keys = _keys()
    for key in dict.fromkeys((_key(text), _key(_without_extras(text)))):
        if key and key in keys:
            return keys[key]
    return ()


def _beginning(text: str) -> tuple[Product, ...]:
    """Return the products whose names, as drivers show them, begin so."""
    if len(text) > MAX_NAME:
        return ()
    start = _key(text)
    whole = _key(_without_extras(text))
    if whole != start and whole in _shown():  # it was cut behind the name of the chip
        return _shown()[whole]
    if not any(letter.isdigit() for letter in whole):
        return ()
    found = {
        product.name: product
        for key, products in _shown().items()
        if key.startswith(start)
        for product in products
    }
    return tuple(found.values())


def _key(text: str) -> str:
    return _REST.sub("", _MAKER.sub(" ", text.lower()))


def _without_extras(text: str) -> str:
    plain = _MAKER.sub(" ", text.lower())
    for extra in (_SLICE, _MEMORY, _FORM):
        plain = extra.sub(" ", plain)
    return plain


@cache
def _shown() -> Mapping[str, tuple[Product, ...]]:
    """Return the products by the names that drivers show, brand and all."""
    whole: dict[str, tuple[Product, ...]] = {}
    less: dict[str, tuple[Product, ...]] = {}
    for product in facts().products.values():
        for name in (product.name, *product.aliases):
            for found, key in ((whole, _key(name)), (less, _key(_without_extras(name)))):
                if product not in found.get(key, ()):
                    found[key] = (*found.get(key, ()), product)
    return {**less, **whole}


@cache
def _keys() -> Mapping[str, tuple[Product, ...]]:
    """Return the products by all that people call them: `geforcertx4090`, `rtx4090`, `4090`."""
    found = dict(_shown())
    for key, products in _shown().items():
        for product in products:
            bare = _LINE.sub("", key)
            number = re.sub("^[rg]tx", "", bare) if product.kind == "geforce" else bare
            for short in (bare, number):
                if short not in _shown() and product not in found.get(short, ()):
                    found[short] = (*found.get(short, ()), product)
    return found
