cdef enum:
    NEEDINIT, READY, HAVEDATA, CLOSED, N_STATES = 4
cdef enum:
    STATUS, INIT, POSDATA, GETFORCE, EXIT, N_MESSAGES = 5
cdef enum:
    NOTHING, SEND, EVALUATE, OVER  # what there is to do next
cdef enum:
    HEADER = 12, COUNT = 4, CELL = 72, FIRST_ROOM = 65536

STATES = ("needinit", "ready", "havedata", "closed")
cdef const char *REPLIES = b"NEEDINIT    READY       HAVEDATA    "
cdef const char *HEADERS = b"STATUS      INIT        POSDATA     GETFORCE    EXIT        "
cdef int64_t MAX_ATOMS = messages.MAX_ATOMS, MAX_BODY = messages.MAX_BODY


cdef class Conversation:
    """The part of a force client that runs at every step; see `comitia.protocol.states.ForceClient`.

    What is rare (INIT, shared memory, what is not the protocol) is left to methods of the subclass.

    Parameters
    ----------
    table : {(state, message): next state}
    n_atoms : int or None, the number of atoms that every structure must have
    """

    cdef readonly object n_atoms, reason
    cdef readonly size_t n_received
    cdef public object batch_size, shared
    cdef int state_, after[4][5]
    cdef Memory received, outgoing
    cdef bint ended, unanswered
    cdef const char *reply  # what is to be sent, and how much
    cdef size_t n_reply
    cdef const char *cells  # of the request: cell and inverse of each structure, and positions
    cdef const char *positions
    cdef Py_ssize_t n_structures, n_distinct, size
    cdef object elsewhere  # arrays of a request that did not come through the stream
    cdef object inside  # positions of the last request, converted
    cdef double[:, :, ::1] numbers  # the same

    def __init__(self, table, n_atoms=None, shared=None):
        self.n_atoms, self.shared, self.batch_size = n_atoms, shared, None
        self.received, self.outgoing = Memory(), Memory()
        for state in range(N_STATES):
            for message in range(N_MESSAGES):
                after = table.get((STATES[state], messages.FROM_SERVER[message]))
                self.after[state][message] = -1 if after is None else STATES.index(after)

    @property
    def state(self):
        """Name of the state."""
        return STATES[self.state_]

    @property
    def inside_message(self):
        """Whether a part of a message has arrived and the rest has not."""
        return self.received.end > self.received.start

    @property
    def n_requested(self):
        """Structures of the last request, padding left out."""
        return self.n_distinct

    def feed(self, const unsigned char[::1] arrived):
        """Take bytes from the server."""
        if self.unanswered:
            raise RuntimeError("the structures of the last request have not been answered")
        self.received.compact()
        self.received.reserve(arrived.shape[0])
        self.n_received += arrived.shape[0]
        if arrived.shape[0]:
            self.received.write(&arrived[0], arrived.shape[0])

    def end_of_stream(self):
        """The server closed its end."""
        self.ended = True

    def converse(self, int descriptor, bint wait, evaluate):
        """Receive, compute and send through a socket, until nothing arrives for a moment.

        Parameters
        ----------
        descriptor : int, of a connected socket
        wait : bool, whether to wait in the socket, for as long as its own timeout says
        evaluate : function without parameters, called for every request; it must call `answer`

        Returns
        -------
        bool, False when the conversation is over

        Raises
        ------
        ProtocolError, PeerError
            as `ForceClient.next_event`.
        StreamError
            if the stream broke.
        """
        cdef int what
        cdef Py_ssize_t n
        while True:
            what = self.next_step()
            if what == EVALUATE:
                evaluate()
            elif what == SEND:
                self.send_reply(descriptor)
            elif what == OVER:
                return False
            else:
                n = self.receive(descriptor, wait)
                if n < 0:
                    return True
                self.ended = n == 0

    cdef Py_ssize_t receive(self, int descriptor, bint wait) except -2:
        """Number of bytes that arrived, 0 at the end of the stream, -1 if nothing did."""
        cdef ssize_t n
        cdef int flags = 0 if wait else MSG_DONTWAIT
        cdef Memory to = self.received
        to.compact()
        to.reserve(FIRST_ROOM)
        while True:
            with nogil:
                n = recv(descriptor, to.bytes + to.end, to.capacity - to.end, flags)
            if n >= 0:
                to.end += n
                self.n_received += n
                return n
            if errno == EAGAIN:
                return -1
            if errno != EINTR:
                raise StreamError(errno, False)
            PyErr_CheckSignals()

    cdef int send_reply(self, int descriptor) except -1:
        cdef ssize_t n
        while self.n_reply:
            with nogil:
                n = send(descriptor, self.reply, self.n_reply, MSG_NOSIGNAL)
            if n >= 0:
                self.reply += n
                self.n_reply -= n
            elif errno != EINTR:
                raise StreamError(errno, True)
            else:
                PyErr_CheckSignals()
        return 0

    cdef int next_step(self) except -1:
        """What to do next; a message that is complete is taken."""
        cdef Memory received = self.received
        cdef int message
        if self.unanswered:
            raise RuntimeError("the structures of the last request have not been answered")
        while self.state_ != CLOSED:
            if received.end - received.start < HEADER:
                return self.at_end() if self.ended else NOTHING
            for message in range(N_MESSAGES):
                if memcmp(received.bytes + received.start, HEADERS + HEADER * message, HEADER) == 0:
                    break
            else:
                raise ProtocolError(f"in state {self.state}: {messages.unknown_header(self.waiting())}")
            if self.after[self.state_][message] < 0:
                name = messages.FROM_SERVER[message]
                raise ProtocolError(f"{name} arrived in state {self.state}, where it has no place")
            try:
                found = self.complete(message)
            except ProtocolError as error:
                raise ProtocolError(f"in state {self.state}: {error}") from error
            if not found:
                return self.at_end() if self.ended else NOTHING
            self.state_ = self.after[self.state_][message]
            if message == STATUS:
                self.reply, self.n_reply = REPLIES + HEADER * self.state_, HEADER
                return SEND
            if message == GETFORCE:
                self.reply, self.n_reply = self.outgoing.bytes, self.outgoing.end
                return SEND
            if message == POSDATA:
                self.unanswered = True
                self.n_distinct = self.count_distinct()
                return EVALUATE
            if message == EXIT:
                self.reason = "EXIT"
                return OVER
        return NOTHING

    cdef int at_end(self) except -1:
        if self.inside_message:
            raise PeerError(f"the server closed the connection inside a message (state {self.state})")
        if self.state_ == HAVEDATA:
            raise PeerError("the server closed the connection before it fetched the forces")
        self.state_, self.reason = CLOSED, "end of stream"
        return OVER

    cdef waiting(self):
        """What has arrived, as it lies in memory."""
        return PyMemoryView_FromMemory(
            self.received.bytes + self.received.start, self.received.end - self.received.start, PyBUF_READ)

    cdef bint complete(self, int message) except -1:
        """Take a message if all of it is there."""
        if message == POSDATA and self.shared is None:
            return self.complete_positions()
        if message == INIT or message == POSDATA:
            found = self.take_rare(messages.FROM_SERVER[message], self.waiting())
            if found is None:
                return False
            self.received.take(found)
            return True
        self.received.take(HEADER)
        return True

    cdef bint complete_positions(self) except -1:
        """Take POSDATA if all of it is there; what it counts is checked as soon as that is."""
        cdef Memory received = self.received
        cdef const char *begin = received.bytes + received.start
        cdef size_t n_bytes = received.end - received.start
        cdef bint batched = self.batch_size is not None
        cdef int64_t n_structures = self.batch_size if batched else 1, n_atoms, n_body
        cdef size_t count_at = HEADER if batched else HEADER + 2 * CELL
        if n_bytes < count_at + COUNT:
            return False
        n_atoms = read_integer(begin + count_at)
        if n_atoms < 0 or n_atoms > MAX_ATOMS or (self.n_atoms is not None and n_atoms != self.n_atoms):
            messages.check_n_atoms(n_atoms, self.n_atoms)
        n_body = COUNT + n_structures * (2 * CELL + 24 * n_atoms)
        if n_body > MAX_BODY:
            messages.check_body(n_body)
        if n_bytes < <size_t>(HEADER + n_body):
            return False
        self.cells = begin + HEADER + (COUNT if batched else 0)
        self.positions = begin + HEADER + n_body - 24 * n_structures * n_atoms
        self.n_structures, self.size = n_structures, n_atoms
        received.take(HEADER + n_body)
        return True

    def request_elsewhere(self, const double[:, :, :, ::1] cells, const double[:, :, ::1] positions):
        """The structures to compute, where the stream does not carry them.

        Parameters
        ----------
        cells : (B, 2, 3, 3) array, cell and inverse of each
        positions : (B, n_atoms, 3) array
        """
        self.elsewhere = cells, positions
        self.n_structures, self.size = positions.shape[0], positions.shape[1]
        self.cells = <const char *>&cells[0, 0, 0, 0]
        self.positions = <const char *>&positions[0, 0, 0] if self.size else NULL

    cdef Py_ssize_t count_distinct(self) noexcept:
        """How many structures are left when repetitions of the last one, the padding of a batch, are dropped."""
        cdef Py_ssize_t n = self.n_structures, width = 24 * self.size
        while (n > 1 and memcmp(self.cells + 2 * CELL * (n - 1), self.cells + 2 * CELL * (n - 2), CELL) == 0
               and memcmp(self.positions + width * (n - 1), self.positions + width * (n - 2), width) == 0):
            n -= 1
        return n

    @property
    def cells_sent(self):
        """Bytes of cell and inverse of every structure to compute."""
        self.check_requested()
        return self.cells[: 2 * CELL * self.n_distinct]

    @property
    def positions_sent(self):
        """Bytes of the positions of every structure to compute."""
        self.check_requested()
        return self.positions[: 24 * self.size * self.n_distinct] if self.size else b""

    def positions_in(self, double unit):
        """Positions to compute, times a unit, in an array that the next request uses again; None if one is not finite.

        Returns
        -------
        (n_structures, n_atoms, 3) array
        """
        cdef Py_ssize_t i, n = 3 * self.size * self.n_distinct
        cdef double *to
        cdef const char *of = self.positions
        self.check_requested()
        if self.inside is None or self.numbers.shape[0] != self.n_distinct or self.numbers.shape[1] != self.size:
            self.inside = np.empty((self.n_distinct, self.size, 3))
            self.numbers = self.inside
        if n:
            to = &self.numbers[0, 0, 0]
            for i in range(n):
                to[i] = read_double(of + 8 * i) * unit
            if not all_finite(to, n):
                return None
        return self.inside

    cdef int check_requested(self) except -1:
        if not self.unanswered:
            raise RuntimeError("there are no structures to compute")
        return 0

    def answer(self, const double[:] energies, const double[:, :, :] forces, const double[:, :, :] virials, extras,
               Units units=None):
        """The results of the structures to compute; a number that is not finite never leaves.

        Parameters
        ----------
        energies : (B,) array
        forces : (B, n_atoms, 3) array
        virials : (B, 3, 3) array
        extras : B strings, as str or JsonText
        units : Units of the numbers, or None where they are as they travel
        """
        cdef Py_ssize_t n = energies.shape[0]
        self.check_requested()
        if not (1 <= n <= self.n_structures and len(extras) == n
                and forces.shape[0] == n and forces.shape[1] == self.size and forces.shape[2] == 3
                and virials.shape[0] == n and virials.shape[1] == 3 and virials.shape[2] == 3):
            raise ValueError(f"results of {n} structures of {forces.shape[1]} atoms do not belong to the request")
        if self.shared is None:
            self.pack_numbers(energies, forces, virials, units)
        else:
            self.share_numbers(energies, forces, virials, units)
        for s in range(self.n_structures):
            self.pack_text(extras[min(s, n - 1)])
        self.elsewhere, self.unanswered = None, False

    cdef int pack_numbers(self, const double[:] energies, const double[:, :, :] forces,
                          const double[:, :, :] virials, Units units) except -1:
        cdef Py_ssize_t s, i, a, b, of, n = energies.shape[0], n_structures = self.n_structures
        cdef double value, offset = 0.0, energy = 1.0, force = 1.0, virial = 1.0
        cdef bint transposed = units is not None, finite = True
        cdef int32_t n_atoms = self.size
        cdef Memory to = self.outgoing
        cdef double *numbers
        if transposed:
            offset, energy, force, virial = units.offset, units.energy, units.force, units.virial
        to.start = to.end = 0
        to.reserve(HEADER + COUNT + n_structures * (24 * self.size + 8 + CELL))
        to.write(b"FORCEREADY  ", HEADER)
        for s in range(n_structures):
            value = (energies[min(s, n - 1)] - offset) / energy
            finite &= isfinite(value)
            to.write(&value, sizeof(double))
        to.write(&n_atoms, COUNT)
        numbers = <double *>(to.bytes + to.end)  # on a multiple of eight bytes
        for s in range(n_structures):
            of = min(s, n - 1)
            for i in range(self.size):
                for a in range(3):
                    numbers[3 * i + a] = forces[of, i, a] * force
            numbers += 3 * self.size
        for s in range(n_structures):
            of = min(s, n - 1)
            for a in range(3):
                for b in range(3):
                    numbers[3 * a + b] = (virials[of, b, a] if transposed else virials[of, a, b]) / virial
            numbers += 9
        if not (finite and all_finite(<double *>(to.bytes + to.end), n_structures * (3 * self.size + 9))):
            self.checked(energies, forces, virials, units)
        to.end += 8 * n_structures * (3 * self.size + 9)
        return 0

    cdef checked(self, energies, forces, virials, Units units):
        """The numbers as arrays, as they travel; NumericalError names the first that is not finite."""
        found = np.asarray(energies), np.asarray(forces), np.asarray(virials)
        if units is not None:
            found = units.converted(*found)
        messages.check_results(*found)
        return found

    cdef share_numbers(self, energies, forces, virials, Units units):
        found = self.checked(energies, forces, virials, units)
        index = np.minimum(np.arange(self.n_structures), len(found[0]) - 1)
        self.shared.write(*(numbers[index] for numbers in found))
        self.outgoing.start = self.outgoing.end = 0
        self.outgoing.reserve(HEADER)
        self.outgoing.write(b"FORCEREADY  ", HEADER)

    cdef int pack_text(self, text) except -1:
        cdef Memory to = self.outgoing
        cdef JsonText json = text if isinstance(text, JsonText) else None
        cdef bytes raw = text.encode() if json is None else b"}"
        cdef int32_t begun = 0 if json is None else json.length, length = begun + len(raw)
        to.reserve(COUNT + length)
        to.write(&length, COUNT)
        if begun:
            to.write(json.memory, begun)
        to.write(<const char *>raw, length - begun)
        return 0

    def advance(self):
        """What to do next: "send" what `take_reply` gives, "evaluate" and call `answer`, "closed", or None."""
        return (None, "send", "evaluate", "closed")[self.next_step()]

    def take_reply(self):
        """The bytes to be sent."""
        reply = self.reply[: self.n_reply]
        self.n_reply = 0
        return reply
