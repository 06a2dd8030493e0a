# SPDX-License-Identifier: LGPL-2.1-or-later
"""A page of metrics as Prometheus's own library for Python understands it: to JSON, from standard input.

Run by /usr/bin/python3, which is the one that Debian's packages are for. The argument is the format.
"""
import json
import sys

if sys.argv[1] == 'openmetrics':
    from prometheus_client.openmetrics.parser import text_string_to_metric_families
else:
    from prometheus_client.parser import text_string_to_metric_families

json.dump([{'name': family.name, 'type': family.type, 'unit': family.unit, 'help': family.documentation,
            'samples': [[sample.name, sample.labels, sample.value] for sample in family.samples]}
           for family in text_string_to_metric_families(sys.stdin.read())], sys.stdout)
