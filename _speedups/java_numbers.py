"""Java's text of floating-point numbers: what an entity key of type float or double looks like (spec core 3).

`Double.toString` and `Float.toString` (documentation of Java SE 19) print the shortest decimal that reads back as the
same number, of at least two digits, and with an exponent below 0.001 and from 10 million on. Keys of these types are
rare, so exactness comes before speed.
"""

import struct
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from math import copysign, inf, isinf, isnan

EXACT = Context(prec=400)
MOST_FLOAT_DIGITS = 9  # always enough for a 32-bit float


def double_text(value: float) -> str:
    magnitude = abs(value)
    return special_text(value) or sign(value) + notation(shortest_double(magnitude), magnitude)


def float_text(value: float) -> str:
    """Of a number that is a 32-bit float."""
    magnitude = abs(value)
    return special_text(value) or sign(value) + notation(shortest_float(magnitude), magnitude)


def special_text(value: float) -> str:
    """Of zero and of what is no number; empty for everything else."""
    if isnan(value):
        return "NaN"
    if isinf(value):
        return sign(value) + "Infinity"
    return sign(value) + "0.0" if value == 0 else ""


def sign(value: float) -> str:
    return "-" if copysign(1, value) < 0 else ""


def notation(shortest: Decimal, value: float) -> str:
    digits = "".join(map(str, shortest.as_tuple().digits)).rstrip("0")
    exponent = shortest.adjusted()
    if len(digits) == 1:
        # of all decimals with two digits, Java takes the nearest: 4.9E-324 although 5E-324 reads back too
        mantissa, _, power = f"{value:.1e}".partition("e")
        digits, exponent = mantissa.replace(".", ""), int(power)
    if exponent < -3 or exponent >= 7:
        return f"{digits[0]}.{digits[1:]}E{exponent}"
    if exponent < 0:
        return "0." + "0" * (-exponent - 1) + (digits.rstrip("0") or "0")
    whole, fraction = digits[: exponent + 1].ljust(exponent + 1, "0"), digits[exponent + 1 :]
    return f"{whole}.{fraction or '0'}"


def shortest_double(value: float) -> Decimal:
    return Decimal(repr(value))


def shortest_float(value: float) -> Decimal:
    """The decimal with the fewest digits among those that read back as the 32-bit float; of several, the nearest."""
    low, high = float_interval(value)
    exact = Decimal(value)
    ends = (low, high) if float_bits(value) % 2 == 0 else ()
    for digits in range(1, MOST_FLOAT_DIGITS):
        both = [Context(prec=digits, rounding=rounding).plus(exact) for rounding in (ROUND_FLOOR, ROUND_CEILING)]
        within = [decimal for decimal in both if low < decimal < high or decimal in ends]
        if within:
            return min(within, key=lambda decimal: abs(EXACT.subtract(decimal, exact)))
    return Context(prec=MOST_FLOAT_DIGITS).plus(exact)


def float_interval(value: float) -> tuple[Decimal, Decimal]:
    """The points half-way to the 32-bit floats before and after a positive one."""
    bits = float_bits(value)
    below, above = float_of_bits(bits - 1), float_of_bits(bits + 1)
    # behind the largest float the interval ends as if there were one more
    return half_way(below, value), half_way(value, 2.0**128 if above == inf else above)


def half_way(low: float, high: float) -> Decimal:
    return EXACT.divide(EXACT.add(Decimal(low), Decimal(high)), Decimal(2))


def float_bits(value: float) -> int:
    bits: int = struct.unpack("<I", struct.pack("<f", value))[0]
    return bits


def float_of_bits(bits: int) -> float:
    value: float = struct.unpack("<f", struct.pack("<I", bits))[0]
    return value
