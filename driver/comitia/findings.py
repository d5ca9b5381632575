"""What a check finds: a refusal where a run would fail or be wrong, a warning where it would cost something."""

from dataclasses import dataclass

REFUSAL, WARNING = "refusal", "warning"


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes
    ----------
    severity : "refusal" or "warning"
    sentence : str, what, where and what to do
    """

    severity: str
    sentence: str


def refusal(sentence):
    return Finding(REFUSAL, str(sentence))


def warning(sentence):
    return Finding(WARNING, str(sentence))
