# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the sections have in common: programs to measure with, a host that is not logged in detail, the table."""
import json
import os
import platform
import statistics
import subprocess
import time

from fixture import BUILD, KIND, Host, wait_until


class QuietHost(Host):
    """As the unit starts it: what each poll sees is not written down."""
    log_level = 'info'


def tool(name, *arguments, **options):
    """What a program of this folder says, which is JSON."""
    done = subprocess.run([f'{BUILD}/bench-{name}', *map(str, arguments)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, text=True, check=True, **options)
    return json.loads(done.stdout)


class Server:
    """A program that listens on a socket; the reference."""

    def __init__(self, path, *command):
        self.path = path
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_until(lambda: os.path.exists(path), what=f'{command[0]} listening')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        if os.path.exists(self.path):
            os.unlink(self.path)


def medians(runs):
    """Of several runs that say the same things, each thing's median."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def pooled(runs):
    """The percentiles of all samples of several runs."""
    samples = sorted(sample for run in runs for sample in run['us'])
    return {'p50_us': samples[len(samples) // 2], 'p99_us': samples[len(samples) - 1 - len(samples) // 100]}


def cpu_ns(pid):
    """What all threads of a process have run for."""
    total = 0
    for thread in os.listdir(f'/proc/{pid}/task'):
        with open(f'/proc/{pid}/task/{thread}/schedstat', encoding='ascii') as file:
            total += int(file.read().split()[0])
    return total


def resident_kib(pid):
    """But for the guests' pages: of those that Xen maps none counts, and the imitation's are a file's."""
    total = 0
    with open(f'/proc/{pid}/smaps', encoding='ascii') as file:
        for line in file:
            words = line.split()
            if not words[0].endswith(':'):
                guests = words[-1].endswith('/machine')
            elif words[0] == 'Rss:' and not guests:
                total += int(words[1])
    return total


def machine():
    with open('/proc/cpuinfo', encoding='utf-8') as file:
        model = next((line.split(': ', 1)[1].strip() for line in file if line.startswith('model name')), '')
    return {'cpu': model, 'cores': os.cpu_count(), 'kernel': platform.release(), 'store': KIND,
            'time': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}


class Table:
    """Rows of what was measured, what it is compared with, and the ratio."""

    def __init__(self):
        self.rows = []
        self.series = {}  # of the picture: name -> [(sessions, value, reference or None)]

    def add(self, section, what, unit, ours, reference=None, theirs=None):
        ratio = ours / theirs if theirs else None
        self.rows.append({'section': section, 'what': what, 'unit': unit, 'ours': ours, 'reference': reference,
                          'theirs': theirs, 'ratio': ratio})

    @staticmethod
    def number(value):
        if value is None:
            return ''
        return f'{value:.0f}' if value >= 1000 else f'{value:.4g}'

    def text(self):
        lines = [('', 'p2mguard', '', 'reference', '', 'ratio')]
        section = None
        for row in self.rows:
            if row['section'] != section:
                section = row['section']
                lines.append((section + ':', '', '', '', '', ''))
            lines.append(('  ' + row['what'], self.number(row['ours']), row['unit'], row['reference'] or '',
                          self.number(row['theirs']), f'{row["ratio"]:.2f}' if row['ratio'] is not None else ''))
        widths = [max(len(line[i]) for line in lines) for i in range(6)]
        def show(line):
            what, ours, unit, reference, theirs, ratio = line
            return (f'{what:<{widths[0]}}  {ours:>{widths[1]}} {unit:<{widths[2]}}  {theirs:>{widths[4]}} '
                    f'{reference:<{widths[3]}}  {ratio:>{widths[5]}}').rstrip()
        return '\n'.join(map(show, lines))
