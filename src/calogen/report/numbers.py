"""How numbers are written for readers: with their error to two digits of it, in powers of ten that rows share."""

from __future__ import annotations

import math
from collections.abc import Iterable

SMALL, LARGE = 0.1, 1e5
"""Outside of these, numbers are written with a power of ten."""
MINUS, TIMES = "\u2212", "\u00d7"
_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def exponent(values: Iterable[float]) -> int:
    """The power of ten (a multiple of three) in which all `values` are best written.

    >>> exponent([0.0041, 0.0001]), exponent([0.63]), exponent([3e6])
    (-3, 0, 6)
    """
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    if largest == 0 or SMALL <= largest < LARGE:
        return 0
    return 3 * math.floor(math.log10(largest) / 3)


def power_of_ten(e: int) -> str:
    """`10⁻³` for -3, nothing for 0."""
    return f"10{str(e).translate(_SUPERSCRIPT)}" if e else ""


def significant(value: float, digits: int = 3) -> str:
    """`value` to some digits, thousands separated; what is not finite as a dash."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}".replace("-", MINUS)


def compact(value: float, digits: int = 3) -> str:
    """`value` to some digits, with a power of ten where it is very small or very large.

    >>> compact(0.0107), compact(2.3e-5), compact(270999000.0)
    ('0.0107', '2.30×10⁻⁵', '2.71×10⁸')
    """
    if not math.isfinite(value) or value == 0:
        return significant(value)
    power = math.floor(math.log10(abs(value)))
    if -4 <= power < 6:
        return significant(value, digits)
    return f"{significant(value / 10.0**power, digits)}{TIMES}{power_of_ten(power)}"


def with_error(value: float, error: float) -> str:
    """Value and error rounded to two digits of the error; without an error three digits of the value.

    >>> with_error(4.1234, 0.21), with_error(0.5, 0.0)
    ('4.12 ± 0.21', '0.500')
    """
    if not (math.isfinite(value) and math.isfinite(error)) or error <= 0:
        return significant(value)
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:,.{decimals}f} ± {error:,.{decimals}f}".replace("-", MINUS)


def signed(value: float, decimals: int = 1) -> str:
    """With its sign, a true minus."""
    if not math.isfinite(value):
        return "∞" if value > 0 else f"{MINUS}∞" if value < 0 else "–"
    return f"{value:+.{decimals}f}".replace("-", MINUS)


def duration(seconds: float) -> str:
    """Seconds, or milliseconds below one."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{significant(seconds * 1e3)} ms"
