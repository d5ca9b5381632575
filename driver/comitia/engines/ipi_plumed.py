"""i-PI, as its own script starts it, with two faults of i-PI 3.3 beside PLUMED mended.

    python ipi_plumed.py SCRIPT ARGUMENTS

PLUMED adds no hill at the first step that an engine reports, as an earlier run has added it. Engines report the step
at which they begin. i-PI begins with the one after it, whose hill then is lost: after a restart wherever PACE divides
that step. With the step reported COLVAR begins as i-PI's own files do.

Where the positions have changed since the bias was computed, as with <motion mode='replay'>, i-PI evaluates PLUMED
again at the end of the step, with a request that is not complete, and ends there.
"""

import runpy
import sys
import threading


class _Request(dict):
    """What i-PI asks of a force field, with the event that says it is answered."""

    def __init__(self, content):
        super().__init__(content)
        self._event_done = threading.Event()


def mend(force_field):
    """Let a class that evaluates PLUMED, i-PI's `FFPlumed`, end the step it begins with, and take any request."""
    evaluate, begun = force_field.evaluate, set()

    def evaluate_and_report(self, request):
        evaluate(self, request if hasattr(request, "_event_done") else _Request(request))
        if id(self) not in begun:
            begun.add(id(self))
            self.plumed.cmd("update")

    force_field.evaluate = evaluate_and_report


if __name__ == "__main__":
    from ipi.engine.forcefields import FFPlumed

    mend(FFPlumed)
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
