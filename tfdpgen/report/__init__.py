"""The report: one self-contained HTML page about a release.

`page` puts it together, `charts` draws, `curves` says what is drawn.
"""

from tfdpgen.report.page import public_part, render_report, write_report

__all__ = ["public_part", "render_report", "write_report"]
