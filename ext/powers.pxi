cdef decimal_power[617] powers


def _fill_powers():
    """10^e with 128 bits, rounded up: exact from integers."""
    for e in range(DECIMAL_LEAST, DECIMAL_MOST + 1):
        size = 10 ** abs(e)
        n_bits = size.bit_length()
        if e < 0:
            power = -(-(1 << (127 + n_bits)) // size)
        else:
            power = size << (128 - n_bits) if n_bits <= 128 else -(-size >> (n_bits - 128))
        powers[e - DECIMAL_LEAST].high = power >> 64
        powers[e - DECIMAL_LEAST].low = power & (2 ** 64 - 1)


_fill_powers()
