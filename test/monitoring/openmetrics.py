"""Reads OpenMetrics from the standard input as strictly as prometheus_client does.

Writes a line "family type samples" for each family, and fails at the first fault.
"""

import io
import sys

from prometheus_client.openmetrics.parser import text_fd_to_metric_families

text = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", newline="\n").read()
for family in text_fd_to_metric_families(io.StringIO(text, newline="\n")):
    print(family.name, family.type, len(family.samples))
