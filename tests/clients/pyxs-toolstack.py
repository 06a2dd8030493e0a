#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A toolstack that speaks xenstore and nothing else, through pyxs. It does what the lines on its standard input say, and
answers each with a line. Debian's python3-pyxs is for Debian's python3, hence the first line of this file.
"""
import sys

import pyxs


def read(client, path):
    return client.read(path.encode()).decode()


def write(client, path, text):
    client.write(path.encode(), text.encode())
    return ''


def mem_set(client, domid, kib):
    """As xl does: read and written in one transaction, which is tried again when another was quicker."""
    path = f'/local/domain/{domid}/memory/target'.encode()
    while True:
        client.transaction()
        client.read(path)
        client.write(path, kib.encode())
        if client.commit():
            return ''


def wait(client, path, text):
    """Until a node has this content."""
    with client.monitor() as monitor:
        monitor.watch(path.encode(), b'wait')
        for _ in monitor.wait():
            if client.read(path.encode(), b'').decode() == text:
                return ''
    return ''


VERBS = {'read': read, 'write': write, 'mem-set': mem_set, 'wait': wait}

with pyxs.Client(unix_socket_path=sys.argv[1]) as store:
    print('ok', flush=True)
    for line in sys.stdin:
        verb, *words = line.split()
        try:
            print('ok', VERBS[verb](store, *words), flush=True)
        except pyxs.PyXSError as error:
            print('error', error, flush=True)
