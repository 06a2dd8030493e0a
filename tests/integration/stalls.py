# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether the machine has stood still: no test can tell that from a daemon that does.

A process that sleeps and looks how late it was woken. It competes for the machine as the daemon under test does, and
for nothing else.
"""
import ctypes
import mmap
import os
import signal
import struct
import time

NAP_S = 0.01
PR_SET_PDEATHSIG = 1

# What a test may be told by: it has more than this wherever it waits for something in time.
STALL_MS = 250


class Stalls:
    LAYOUT = struct.Struct('=QQQ')  # naps taken; stalls, and their milliseconds

    def __init__(self):
        self.shared = mmap.mmap(-1, self.LAYOUT.size)
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._nap(parent)
            finally:
                os._exit(1)

    def _nap(self, parent):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.closerange(0, 3)  # who reads the results waits for the end of that pipe
        naps = stalls = total_ms = 0
        before = time.monotonic()
        while os.getppid() == parent:
            time.sleep(NAP_S)
            now = time.monotonic()
            late_ms = int((now - before - NAP_S) * 1000)
            before, naps = now, naps + 1
            if late_ms >= STALL_MS:
                stalls, total_ms = stalls + 1, total_ms + late_ms
            self.shared[:] = self.LAYOUT.pack(naps, stalls, total_ms)

    def so_far(self):
        """How many there were, and how many milliseconds of them in all; one that has just ended included."""
        naps = self.LAYOUT.unpack(self.shared[:])[0]
        while True:
            now, stalls, total_ms = self.LAYOUT.unpack(self.shared[:])
            if now >= naps + 2:
                return stalls, total_ms
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                raise ChildProcessError('the process that looks for stalls has ended')
            time.sleep(NAP_S / 2)

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
