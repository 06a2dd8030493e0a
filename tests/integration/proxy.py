# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stands between the daemon and xenstored: a connection that can be lost, at any moment or just when it hurts."""
import os
import socket
import struct
import threading

# xs_wire.h: a message's head, and the types that matter here.
HEAD = struct.Struct('<IIII')
DIRECTORY, READ, WATCH, TRANSACTION_END, WRITE, RM, SET_PERMS, ERROR = 1, 2, 4, 7, 11, 13, 14, 16


class Proxy:
    def __init__(self, path, to):
        self.path, self.to = path, to
        self.lock = threading.Lock()  # over these two
        self.sockets = []  # the daemon's ends and xenstored's in turn
        self.watching = set()  # the daemon's ends that have set a watch
        self.listener = None
        self.commits_left, self.made = None, True
        self.lost = threading.Event()
        self.before_change = lambda path: None  # called before a change of a node is passed on
        self.before_read = lambda path: None  # and before a reading in no transaction
        self.write_to_lose = None  # the connection is lost with the next write of such a path in no transaction
        self.before_commit = lambda: None
        self.refuse = lambda kind, path: None  # the name of an error: the request is answered with it, and not passed on
        self.open()

    def open(self):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(8)
        with self.lock:
            self.listener = listener
        threading.Thread(target=self.accept, args=(listener,), daemon=True).start()

    def connect(self, listener, one):
        """To xenstored; None when it was cut after the daemon had connected, and before anybody looked."""
        with self.lock:
            if listener is not self.listener:
                one.close()
                return None
            other = socket.socket(socket.AF_UNIX)
            other.connect(self.to)
            self.sockets += [one, other]
            return other

    def accept(self, listener):
        while True:
            try:
                one, _ = listener.accept()
            except OSError:
                return
            other = self.connect(listener, one)
            if not other:
                return
            swallow = []  # the request whose answer is not passed on
            threading.Thread(target=self.pump, args=(one, other, self.is_to_be_lost, self.is_refused, swallow),
                             daemon=True).start()
            threading.Thread(target=self.pump, args=(other, one, self.is_lost, lambda *_: False, swallow),
                             daemon=True).start()

    @staticmethod
    def message(end):
        head = end.recv(HEAD.size, socket.MSG_WAITALL)
        if len(head) < HEAD.size:
            return None, None, None, b'', b''
        kind, number, txn, length = HEAD.unpack(head)
        return kind, number, txn, head, end.recv(length, socket.MSG_WAITALL) if length else b''

    def pump(self, a, b, loses, refuses, swallow):
        try:
            while True:
                kind, number, txn, head, body = self.message(a)
                if kind is None or loses(kind, number, txn, body, swallow):
                    break
                if not refuses(a, head, body):
                    b.sendall(head + body)
        except OSError:
            pass
        self.hang_up((a, b))

    @staticmethod
    def hang_up(ends):
        for end in ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def lose_commit(self, number, made=True):
        """The connection is lost with the number-th commit from now on, before it is made or before it is answered."""
        self.lost.clear()
        self.commits_left, self.made = number, made

    def is_to_be_lost(self, kind, number, txn, body, swallow):
        path = body.split(b'\0', 1)[0].decode()
        if kind == TRANSACTION_END and body.startswith(b'T') and self.commits_left:
            self.commits_left -= 1
            if not self.commits_left and self.made:
                swallow.append(number)
            elif not self.commits_left:
                self.lost.set()
                return True
        if kind == WRITE and not txn and self.write_to_lose and path.endswith(self.write_to_lose):
            self.write_to_lose = None
            self.lost.set()
            return True
        if kind == TRANSACTION_END and body.startswith(b'T'):
            self.before_commit()
        if kind in (WRITE, RM, SET_PERMS):
            self.before_change(path)
        elif kind == READ and not txn:
            self.before_read(path)
        return False

    def is_refused(self, end, head, body):
        """The library has one request under way at a time, so that no answer can overtake this one."""
        kind, number, txn, _ = HEAD.unpack(head)
        if kind == WATCH:
            with self.lock:
                self.watching.add(end)
        error = self.refuse(kind, body.split(b'\0', 1)[0].decode())
        if error:
            text = error.encode() + b'\0'
            end.sendall(HEAD.pack(ERROR, number, txn, len(text)) + text)
        return bool(error)

    def is_lost(self, kind, number, _txn, _body, swallow):
        if kind != TRANSACTION_END or number not in swallow:
            return False
        self.lost.set()
        return True

    def cut_one(self, watching):
        """Of the daemon's two connections the one that has watches, or the other one."""
        with self.lock:
            pairs = list(zip(self.sockets[::2], self.sockets[1::2]))
            gone = [pair for pair in pairs if (pair[0] in self.watching) == watching]
            self.sockets = [end for pair in pairs if pair not in gone for end in pair]
        for pair in gone:
            self.hang_up(pair)
        return len(gone)

    def cut(self):
        with self.lock:
            listener, self.listener = self.listener, None
            sockets, self.sockets = self.sockets, []
        if listener:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            os.unlink(self.path)
        self.hang_up(sockets)
