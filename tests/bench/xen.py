# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests/e2e/run has measured of migrations on Xen, for the table: its figures, as it has printed them."""
import re

FIGURE = re.compile(r'^\s*figure\s+(\w+)\.quiet\.(\w+) (.*)')
MEDIANS = re.compile(r'unguarded .*?\(median (\S+)\), guarded .*?\(median (\S+)\)')


def read(table, name):
    """`name` is a file with its output. What is there of the scenario "quiet" becomes rows."""
    with open(name, encoding='utf-8', errors='replace') as file:
        figures = [FIGURE.match(line) for line in file]
    for kind, figure, text in (match.groups() for match in figures if match):
        section = f'migrations of a {kind.upper()} guest on Xen'
        found = MEDIANS.search(text)
        if found:
            plain, guarded = map(float, found.groups())
            what = {'times': 'total time', 'down_ms': 'down time'}[figure]
            table.add(section, what + ', medians', 'ms', guarded, 'unguarded', plain)
        elif figure in ('ratio', 'down_ratio'):
            what = 'total time' if figure == 'ratio' else 'down time'
            table.add(section, f'{what}, median of the pairs\' ratios', '', float(text.split()[0]), 'unguarded', 1.0)
        elif figure == 'daemon_cpu_ms':
            table.add(section, 'CPU of the daemon, a migration', 'ms', float(text.split()[0]))
