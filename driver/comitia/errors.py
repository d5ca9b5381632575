"""What can go wrong, and the exit code that says so."""


class ComitiaError(Exception):
    """Base of every error that a user can cause or meet; `exit_code` is what the command ends with."""

    exit_code = 3


class UsageError(ComitiaError):
    """The command line does not make sense."""

    exit_code = 2


class SettingsError(ComitiaError):
    """A YAML or XML input that cannot be read, or says something that is not known."""


class StructureError(ComitiaError):
    """A structure file, or a structure, that cannot be used."""


class ModelError(ComitiaError):
    """A model file that is damaged, of another version, or does not fit the request."""


class SeriesError(ComitiaError):
    """A time series (properties, extras, trajectory) that cannot be read or does not fit the others."""


class OutputError(ComitiaError):
    """A file or folder that cannot be written."""


class PeerError(ComitiaError):
    """The other end of a connection, or a child process, went away, stalled or never came."""

    exit_code = 4


class ProtocolError(PeerError):
    """Bytes that are not the protocol, or a message that has no place in this state."""


class UncertaintyError(ComitiaError):
    """The uncertainty threshold was passed and the run was told to stop."""

    exit_code = 5


class EngineError(ComitiaError):
    """A force engine ran and could not compute a structure."""

    exit_code = 6


class NumericalError(ComitiaError):
    """A number that is not finite was computed, or arrived on the wire; `place` maps axes to indices where known."""

    exit_code = 6

    def __init__(self, message, place=None):
        super().__init__(message)
        self.place = place or {}


class StoppedBySignal(BaseException):
    """A signal asked the command to stop; raised where the command was, so that everything is closed on the way out."""

    def __init__(self, number):
        super().__init__(number)
        self.exit_code = 128 + number
