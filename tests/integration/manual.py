# SPDX-License-Identifier: LGPL-2.1-or-later
"""The manual pages as they are written: the examples that they display, and the pages that they refer to.

An example is a literal block (.Bd -literal ... .Ed) or a run of .Dl lines. Comments before it say how it is run:

    .\" given: COMMAND  what is done before, by the shell, or "no daemon"; may come more than once
    .\" example: KIND WORDS: COMMAND  one of examples.py's kinds

Without the second it is what a shell runs, successfully.
"""
import glob
import os
import re

FOLDER = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../man'))
ESCAPES = {r'\e': '\\', r'\&': '', r'\-': '-', r'\(dq': '"', r'\(aq': "'", r'\(ti': '~', r'\(ha': '^'}
ESCAPE = re.compile(r'\\(?:\((?:dq|aq|ti|ha)|[e&-])')
DISPLAY = re.compile(r'\.Bd\s+-(literal|unfilled)')
NOTE = re.compile(r'\.\\" (example|given): (.*)')


class Example:
    def __init__(self, page, line, text, notes):
        self.page, self.line, self.text = page, line, text
        self.given = [words for kind, words in notes if kind == 'given']
        marks = [words for kind, words in notes if kind == 'example'] or ['run']
        if len(marks) > 1:
            raise ValueError(f'{self}: {len(marks)} comments say how it is run, expected one')
        how, _, self.command = (part.strip() for part in marks[0].partition(':'))
        self.kind, _, self.words = how.partition(' ')

    def __str__(self):
        return f'man/{os.path.basename(self.page)}:{self.line}'


def plain(text):
    """What a reader sees of roff's text."""
    return ESCAPE.sub(lambda match: ESCAPES[match.group()], text)


def pages():
    """All of ours, as files."""
    return sorted(glob.glob(FOLDER + '/*.[1-9]'))


def source(page):
    with open(page, encoding='utf-8') as file:
        return file.read()


def examples(page):
    """Those of a page, in its order."""
    found, notes = [], []
    lines = source(page).splitlines()
    at = 0
    while at < len(lines):
        begin, body = at + 1, []
        if DISPLAY.match(lines[at]):
            while lines[at + 1] != '.Ed':
                at += 1
                body.append(lines[at])
            at += 1
        elif re.match(r'\.Bd|\.D1\s', lines[at]):
            raise ValueError(f'{page}:{begin}: display of another kind than .Bd -literal and .Dl: {lines[at]}')
        else:
            while at < len(lines) and lines[at].startswith('.Dl '):
                body.append(lines[at][4:])
                at += 1
            at -= bool(body)
        if body:
            found.append(Example(page, begin, plain('\n'.join(body) + '\n'), notes))
            notes = []
        elif note := NOTE.match(lines[at]):
            notes.append(note.groups())
        elif notes:
            raise ValueError(f'{page}:{begin}: a comment says how an example is run, and none follows')
        at += 1
    return found


def programs(page):
    """Name -> text of the examples that are whole programs for a shell."""
    return {example.words: example.text for example in examples(page) if example.kind == 'program'}


def references(page):
    """(name, section) of each page that this one refers to."""
    return re.findall(r'^\.(?:.* )?Xr (\S+) (\d)', source(page), re.MULTILINE)
