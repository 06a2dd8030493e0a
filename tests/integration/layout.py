# SPDX-License-Identifier: LGPL-2.1-or-later
"""The p2m of an imitated PV guest, made of frames of the imitated machine.

Both forms of xen/include/public/arch-x86/xen.h in both widths: the list behind page tables, and the three-level tree.
Leaf pages are numbers only: nobody looks into them.
"""
import struct

FRAME = 4096
LEAVES = 0x100000  # the first leaf page's frame

# Byte offsets in the shared info page; see daemon/sharedinfo.c.
OFFSETS = {4: {'max_pfn': 2316, 'frame_list_list': 2320, 'p2m_cr3': 2328, 'p2m_vaddr': 2332, 'p2m_generation': 2336},
           8: {'max_pfn': 3088, 'frame_list_list': 3096, 'p2m_cr3': 3112, 'p2m_vaddr': 3120, 'p2m_generation': 3128}}
VADDRS = {4: 0xd0000000, 8: 0xffffc90000000000}


class Layout:
    def __init__(self, machine, kind='list', width=8, max_pfn=65536, vaddr=None, generation=0):
        self.machine, self.kind, self.width, self.max_pfn = machine, kind, width, max_pfn
        self.vaddr = VADDRS[width] if vaddr is None else vaddr
        self.entry = 8 if kind == 'list' else width
        self.levels = {('list', 8): 4, ('list', 4): 3}.get((kind, width), 2)
        self.bits = 9 if kind == 'list' or width == 8 else 10
        self.first = (self.vaddr & 0xffffffffffff) // FRAME if kind == 'list' else 0
        self.leaves = (max_pfn - 1) // (FRAME // width) + 1
        self.info = machine.new_frame()
        self.root = machine.new_frame()
        self.tables = {}
        for leaf in range(self.leaves):
            self.put_leaf(leaf, LEAVES + leaf)
        for name, value in self.members(generation).items():
            self.set(name, value)

    def members(self, generation):
        if self.kind == 'tree':
            return {'max_pfn': self.max_pfn, 'frame_list_list': self.root, 'p2m_cr3': 0}
        cr3 = self.root << 12 if self.width == 8 else (self.root << 12 | self.root >> 20) & 0xffffffff
        return {'max_pfn': self.max_pfn, 'frame_list_list': (1 << 8 * self.width) - 1, 'p2m_cr3': cr3,
                'p2m_vaddr': self.vaddr, 'p2m_generation': generation}

    def form(self, width):
        return '<I' if width == 4 else '<Q'

    def set(self, name, value):
        offset = self.machine.frame_at(self.info) + OFFSETS[self.width][name]
        struct.pack_into(self.form(self.width), self.machine.map, offset, value)

    def get(self, name):
        offset = self.machine.frame_at(self.info) + OFFSETS[self.width][name]
        return struct.unpack_from(self.form(self.width), self.machine.map, offset)[0]

    def update(self, change):
        """As a guest does: the counter before and after."""
        self.set('p2m_generation', self.get('p2m_generation') + 1)
        change()
        self.set('p2m_generation', self.get('p2m_generation') + 1)

    def index(self, level, leaf):
        return (self.first + leaf) >> self.bits * (level - 1) & ((1 << self.bits) - 1)

    def place(self, table, index):
        return self.machine.frame_at(table) + index * self.entry

    def put(self, table, index, frame, flags=1):
        value = frame << 12 | flags if self.kind == 'list' else frame
        struct.pack_into(self.form(self.entry), self.machine.map, self.place(table, index), value)

    def raw(self, table, index, value):
        struct.pack_into(self.form(self.entry), self.machine.map, self.place(table, index), value)

    def table(self, level, leaf):
        """The frame of the table of this level that leads to a leaf page; made when there is none."""
        if level == self.levels:
            return self.root
        key = (level, (self.first + leaf) >> self.bits * level)
        if key not in self.tables:
            self.tables[key] = self.machine.new_frame()
            self.put(self.table(level + 1, leaf), self.index(level + 1, leaf), self.tables[key])
        return self.tables[key]

    def put_leaf(self, leaf, frame):
        self.put(self.table(1, leaf), self.index(1, leaf), frame)

    def swap_leaves(self, one, other):
        """The same pages in another order."""
        self.put_leaf(one, LEAVES + other)
        self.put_leaf(other, LEAVES + one)

    def move_table(self, leaf, level=1):
        """A table with the same content in another frame."""
        old, key = self.table(level, leaf), (level, (self.first + leaf) >> self.bits * level)
        new = self.machine.new_frame()
        at, to = self.machine.frame_at(old), self.machine.frame_at(new)
        self.machine.map[to:to + FRAME] = self.machine.map[at:at + FRAME]
        self.tables[key] = new
        self.put(self.table(level + 1, leaf), self.index(level + 1, leaf), new)
