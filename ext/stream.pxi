class StreamError(Exception):
    """The stream to the server broke: `error` is what the system said, `sending` in which direction."""

    def __init__(self, code, sending):
        super().__init__(os.strerror(code))
        self.error, self.sending = OSError(code, os.strerror(code)), sending


cdef inline double read_double(const char *at) noexcept nogil:
    cdef double value
    memcpy(&value, at, sizeof(double))
    return value


cdef inline int32_t read_integer(const char *at) noexcept nogil:
    cdef int32_t value
    memcpy(&value, at, sizeof(int32_t))
    return value


cdef inline bint all_finite(const double *values, Py_ssize_t n) noexcept nogil:
    """Whether no exponent is that of infinity or nan."""
    cdef const uint64_t *bits = <const uint64_t *>values
    cdef uint64_t exponent = 0x7FF0000000000000, found = 0
    cdef Py_ssize_t i
    for i in range(n):
        found |= (bits[i] & exponent) == exponent
    return found == 0


cdef class Memory:
    """Bytes that stay where they are taken from, and are moved only to make room."""

    cdef char *bytes
    cdef size_t capacity, start, end

    def __dealloc__(self):
        free(self.bytes)

    cdef int reserve(self, size_t n) except -1:
        """Room for n more bytes behind the end."""
        if self.end + n <= self.capacity:
            return 0
        cdef size_t capacity = max(self.end + n, 2 * self.capacity)
        cdef char *grown = <char *>realloc(self.bytes, capacity)
        if grown == NULL:
            raise MemoryError(f"no memory left for a message of {capacity} bytes")
        self.bytes, self.capacity = grown, capacity
        return 0

    cdef void take(self, size_t n) noexcept:
        """n bytes at the start are done with."""
        self.start += n
        if self.start == self.end:
            self.start = self.end = 0

    cdef void compact(self) noexcept:
        """Move what is left to the beginning."""
        if self.start:
            memmove(self.bytes, self.bytes + self.start, self.end - self.start)
            self.end -= self.start
            self.start = 0

    cdef void write(self, const void *of, size_t n) noexcept:
        memcpy(self.bytes + self.end, of, n)
        self.end += n


cdef class Units:
    """What numbers are in before they are sent; virials are then transposed too.

    Parameters
    ----------
    offset : float, subtracted from energies
    energy, virial : float, what energies and virials are divided by
    force : float, what forces are multiplied by
    """

    cdef readonly double offset, energy, force, virial

    def __init__(self, offset, energy, force, virial):
        self.offset, self.energy, self.force, self.virial = offset, energy, force, virial

    def converted(self, energies, forces, virials):
        """Arrays as they travel."""
        energies = (np.asarray(energies) - self.offset) / self.energy
        return energies, np.asarray(forces) * self.force, np.asarray(virials).transpose(0, 2, 1) / self.virial
