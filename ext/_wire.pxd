from libc.stdint cimport uint64_t


cdef extern from "decimal.h" nogil:
    int DECIMAL_LENGTH, DECIMAL_LEAST, DECIMAL_MOST, DECIMAL_POWERS
    ctypedef struct decimal_power:
        uint64_t high, low
    size_t decimal_write(const decimal_power *powers, double number, char *to)

cdef extern from "sys/socket.h" nogil:
    int MSG_DONTWAIT, MSG_NOSIGNAL
    ssize_t recv(int descriptor, void *to, size_t n, int flags)
    ssize_t send(int descriptor, const void *of, size_t n, int flags)
