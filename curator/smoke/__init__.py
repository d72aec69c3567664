"""The test of an image: a program of text that runs inside it, and what its answers mean.

- A probe's key is the hash of the program as it runs, expectations included; the nonce that marks
  a run's report is no part of it.
- Three outcomes of a check: `not-run` is neither pass nor fail, and opens no gate that asks for a
  pass. A report's verdict on the GPU knows a fourth: `bad-host`, where a known-good image failed
  as well.
- Whether a GPU was given is decided by the host. An image that was given one and does not see it
  fails; one that was given none cannot pass. The GPU that computed is told by the driver inside
  the image, and has to be one that was given.
- The negative control is part of every report: the same computation with every GPU hidden has to
  fail. A probe that passes it proves nothing, and stops the run.
- Only the marked report counts. A check that did not report has failed, whatever was printed.

The nonce keeps an image's prints from being taken for the report. It does not protect against an
image made to deceive: code that runs beside the harness can read its memory.
"""

from curator.smoke._judge import judge
from curator.smoke._program import MAX_PROGRAM_BYTES, Probe, Probes, expectations, run_program
from curator.smoke._values import (
    CONTROL,
    GPU_CHECK,
    GPU_CHECKS,
    KIND,
    Check,
    Gpu,
    HostFacts,
    Outcome,
    ProbeRun,
    Result,
    SmokeReport,
    Subject,
    printable,
)

__all__ = [
    "CONTROL",
    "GPU_CHECK",
    "GPU_CHECKS",
    "KIND",
    "MAX_PROGRAM_BYTES",
    "Check",
    "Gpu",
    "HostFacts",
    "Outcome",
    "Probe",
    "ProbeRun",
    "Probes",
    "Result",
    "SmokeReport",
    "Subject",
    "expectations",
    "judge",
    "printable",
    "run_program",
]
