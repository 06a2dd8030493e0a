# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stands between the daemon and xenstored: a connection that can be lost, at any moment or just when it hurts."""
import os
import socket
import struct
import threading

# xs_wire.h: a message's head, and the types that matter here.
HEAD = struct.Struct('<IIII')
TRANSACTION_END, WRITE, RM, SET_PERMS = 7, 11, 13, 14


class Proxy:
    def __init__(self, path, to):
        self.path, self.to = path, to
        self.sockets = []
        self.listener = None
        self.commits_left, self.made = None, True
        self.lost = threading.Event()
        self.before_change = lambda path: None  # called before a change of a node is passed on
        self.open()

    def open(self):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(8)
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def accept(self, listener):
        while True:
            try:
                one, _ = listener.accept()
            except OSError:
                return
            other = socket.socket(socket.AF_UNIX)
            other.connect(self.to)
            self.sockets += [one, other]
            swallow = []  # the request whose answer is not passed on
            threading.Thread(target=self.pump, args=(one, other, self.is_to_be_lost, swallow), daemon=True).start()
            threading.Thread(target=self.pump, args=(other, one, self.is_lost, swallow), daemon=True).start()

    @staticmethod
    def message(end):
        head = end.recv(HEAD.size, socket.MSG_WAITALL)
        if len(head) < HEAD.size:
            return None, None, b'', b''
        kind, number, _, length = HEAD.unpack(head)
        return kind, number, head, end.recv(length, socket.MSG_WAITALL) if length else b''

    def pump(self, a, b, loses, swallow):
        try:
            while True:
                kind, number, head, body = self.message(a)
                if kind is None or loses(kind, number, body, swallow):
                    break
                b.sendall(head + body)
        except OSError:
            pass
        for end in (a, b):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def lose_commit(self, number, made=True):
        """The connection is lost with the number-th commit from now on, before it is made or before it is answered."""
        self.lost.clear()
        self.commits_left, self.made = number, made

    def is_to_be_lost(self, kind, number, body, swallow):
        if kind == TRANSACTION_END and body.startswith(b'T') and self.commits_left:
            self.commits_left -= 1
            if not self.commits_left and self.made:
                swallow.append(number)
            elif not self.commits_left:
                self.lost.set()
                return True
        if kind in (WRITE, RM, SET_PERMS):
            self.before_change(body.split(b'\0', 1)[0].decode())
        return False

    def is_lost(self, kind, number, _body, swallow):
        if kind != TRANSACTION_END or number not in swallow:
            return False
        self.lost.set()
        return True

    def cut(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        os.unlink(self.path)
        for end in self.sockets:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.sockets = []
