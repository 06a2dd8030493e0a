# SPDX-License-Identifier: LGPL-2.1-or-later
"""The figures that grow with the number of sessions, as an SVG: a panel each, both axes logarithmic."""
import math

WIDTH, HEIGHT, MARGIN, COLUMNS = 300, 190, 56, 3
OURS, THEIRS = '#0b5394', '#999999'


def escape(text):
    return text.replace('&', '&amp;').replace('<', '&lt;')


def decades(values):
    """The powers of ten around them."""
    least, most = min(values), max(values)
    low = math.floor(math.log10(least))
    return low, max(low + 1, math.ceil(math.log10(most)))


def number(value):
    return f'{value:g}' if value < 10000 else f'{value:.0f}'


class Panel:
    def __init__(self, points, left, top):
        self.left, self.top = left, top
        self.points = [(size, max(ours, 1e-3), theirs) for size, ours, theirs in points]
        self.x = decades([size for size, _, _ in self.points])
        self.y = decades([value for _, *pair in self.points for value in pair if value])

    def at(self, size, value):
        x = (math.log10(size) - self.x[0]) / (self.x[1] - self.x[0])
        y = (math.log10(value) - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + x * WIDTH, self.top + HEIGHT - y * HEIGHT

    def line(self, values, colour, name):
        places = [self.at(size, value) for size, value in values]
        path = ' '.join(f'{x:.1f},{y:.1f}' for x, y in places)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for (x, y), (size, value) in zip(places, values):
            yield (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}">'
                   f'<title>{name}, {size} sessions: {number(value)}</title></circle>')

    def axes(self):
        bottom, right = self.top + HEIGHT, self.left + WIDTH
        for power in range(self.x[0], self.x[1] + 1):
            x = self.at(10 ** power, 10 ** self.y[0])[0]
            yield f'<line x1="{x:.1f}" y1="{self.top}" x2="{x:.1f}" y2="{bottom}" class="grid"/>'
            yield f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{10 ** power}</text>'
        for power in range(self.y[0], self.y[1] + 1):
            y = self.at(10 ** self.x[0], 10 ** power)[1]
            yield f'<line x1="{self.left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" class="grid"/>'
            yield f'<text x="{self.left - 6}" y="{y + 4:.1f}" text-anchor="end">{number(10 ** power)}</text>'

    def draw(self, title):
        yield f'<text x="{self.left}" y="{self.top - 10}" class="title">{escape(title)}</text>'
        yield from self.axes()
        theirs = [(size, value) for size, _, value in self.points if value]
        if theirs:
            yield from self.line(theirs, THEIRS, 'reference')
        yield from self.line([(size, value) for size, value, _ in self.points], OURS, 'p2mguard')


def draw(series):
    rows = (len(series) + COLUMNS - 1) // COLUMNS
    width = COLUMNS * (WIDTH + MARGIN) + MARGIN
    height = rows * (HEIGHT + MARGIN + 16) + MARGIN
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
             '<style>text{font:12px sans-serif;fill:#333}.title{font-weight:bold}.grid{stroke:#ddd}</style>',
             f'<rect width="{width}" height="{height}" fill="white"/>',
             f'<text x="{MARGIN}" y="18"><tspan fill="{OURS}">p2mguard</tspan> and <tspan fill="{THEIRS}">its reference</tspan>, '
             'by the number of sessions held</text>']
    for i, (title, points) in enumerate(series.items()):
        panel = Panel(points, MARGIN + i % COLUMNS * (WIDTH + MARGIN), MARGIN + i // COLUMNS * (HEIGHT + MARGIN + 16))
        lines += panel.draw(title)
    return '\n'.join([*lines, '</svg>', ''])
