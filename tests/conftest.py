"""What is said at the end of a run of the tests."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Counts and lists the steps of the scenario scripts that are marked `later:`."""
    lines: list[str] = []
    played = False
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in report.user_properties:
            if name == "later" and report.when == "call":
                script, steps = value
                lines += [f"{script}: {step}" for step in steps]
                played = True
    if played:
        terminalreporter.write_sep("-", f"steps of scenarios marked later: {len(lines)}")
    for line in sorted(lines):
        terminalreporter.write_line(line)
