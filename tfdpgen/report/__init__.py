"""The report: one self-contained HTML page about a release.

`page` puts it together, `charts` draws, `curves` says what is drawn.
"""

from tfdpgen.report.page import render_report, write_report

__all__ = ["render_report", "write_report"]
