"""`maskport doctor`: check this machine, and a file against every target.

python -m export.doctor
python -m export.doctor model.rtx.onnx
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from export.diagnosis.file import diagnose_file, require_known
from export.diagnosis.finding import Diagnosis, Finding
from export.diagnosis.machine import diagnose_machine
from runtime.cli.console import DONE, FAILED, Parser, run
from runtime.cli.next_command import next_step


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run(_doctor, argv)


def _parser() -> Parser:
    parser = Parser(prog="maskport doctor", description=__doc__.splitlines()[0])
    parser.add_argument(
        "file", type=Path, nargs="?", help="an .onnx file, an .engine or a checkpoint"
    )
    return parser


def _doctor(argv: Sequence[str]) -> int:
    args = _parser().parse_args(argv)
    if args.file is not None:
        require_known(args.file)
    machine = diagnose_machine()
    _print(machine)
    diagnosis = Diagnosis((), ("export", "--help"))
    if args.file is not None:
        diagnosis = diagnose_file(args.file)
        _print(diagnosis.findings)
    problems = sum(f.status == "problem" for f in (*machine, *diagnosis.findings))
    if problems:
        print(f"{problems} problem{'s' if problems > 1 else ''}")
        return FAILED
    print(next_step(*diagnosis.next) if diagnosis.next else "0 problems")
    return DONE


def _print(findings: Iterable[Finding]) -> None:
    for finding in findings:
        print(finding.line(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
