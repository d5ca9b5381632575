cdef class JsonText:
    """A JSON object of numbers, written into memory that is kept: the same bytes as `json.dumps` makes of it.

    `clear`, then one call for each key, then `str(text)` or `bytes(text)`.
    """

    cdef char *memory
    cdef size_t capacity, length

    def __dealloc__(self):
        free(self.memory)

    def __cinit__(self):
        self.clear()

    def __len__(self):
        return self.length + 1

    def __bytes__(self):
        return (<char *>self.memory)[: self.length] + b"}"

    def __str__(self):
        return bytes(self).decode()

    cdef int reserve(self, size_t n) except -1:
        if self.length + n <= self.capacity:
            return 0
        cdef size_t capacity = max(self.length + n, 2 * self.capacity)
        cdef char *memory = <char *>realloc(self.memory, capacity)
        if memory == NULL:
            raise MemoryError(f"no memory left for {capacity} bytes of extras")
        self.memory, self.capacity = memory, capacity
        return 0

    cdef int begin(self, str name, size_t n_numbers) except -1:
        """Write the name, and reserve memory for so many numbers, each with brackets."""
        cdef bytes raw = name.encode()
        self.reserve(len(raw) + n_numbers * (DECIMAL_LENGTH + 4) + 16)
        if self.length > 1:
            self.write(b", ", 2)
        self.write(b'"', 1)
        self.write(raw, len(raw))
        self.write(b'": ', 3)
        return 0

    cdef void write(self, const char *text, size_t n) noexcept nogil:
        memcpy(self.memory + self.length, text, n)
        self.length += n

    def clear(self):
        """Begin anew."""
        self.length = 0
        self.reserve(256)
        self.write(b"{", 1)

    def number(self, str name, double value):
        """One number; whether it is finite. Where one is not, the text is of no use."""
        self.begin(name, 1)
        if not isfinite(value):
            return False
        self.length += decimal_write(powers, value, self.memory + self.length)
        return True

    def numbers(self, str name, const double[:] values):
        """A list of numbers; whether all are finite."""
        cdef Py_ssize_t i
        self.begin(name, values.shape[0] + 1)
        self.write(b"[", 1)
        for i in range(values.shape[0]):
            if not isfinite(values[i]):
                return False
            if i:
                self.write(b", ", 2)
            self.length += decimal_write(powers, values[i], self.memory + self.length)
        self.write(b"]", 1)
        return True

    def members(self, str name, const double[:, :, :] values, double factor=1.0):
        """A list for every member of its (rows, 3) numbers times a factor; whether all are finite."""
        cdef Py_ssize_t k, i, a
        cdef Py_ssize_t n_members = values.shape[0], n_rows = values.shape[1], width = values.shape[2]
        cdef double value
        cdef bint finite = True
        self.begin(name, n_members * (n_rows * width + 1) + 1)
        with nogil:
            self.write(b"[", 1)
            for k in range(n_members):
                self.write(b", [" if k else b"[", 3 if k else 1)
                for i in range(n_rows):
                    for a in range(width):
                        value = values[k, i, a] * factor
                        if not isfinite(value):
                            finite = False
                            continue
                        if i or a:
                            self.write(b", ", 2)
                        self.length += decimal_write(powers, value, self.memory + self.length)
                self.write(b"]", 1)
            self.write(b"]", 1)
        return finite
