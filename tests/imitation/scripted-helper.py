#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""libxl-save-helper as far as libxl sees it: says and waits for what the file $SCRIPT tells, a word a line.

log | progress TEXT | unknown NUMBER | big BYTES | suspend | complete RETVAL | reply (reads an int, notes it) | garbage HEX |
touch FILE | await FILE | page (a byte to the stream) | exit STATUS. SIGTERM makes the stream unwritable, as in the real one:
"page" then fails, and with it the save: complete -1. What happened is appended to $SCRIPT.did.
"""
import os
import signal
import struct
import sys
import time

script = os.environ['SCRIPT']
stream = int(sys.argv[2]) if len(sys.argv) > 2 else -1


def did(text):
    with open(script + '.did', 'a', encoding='ascii') as file:
        file.write(text + '\n')


def say(number, body=b''):
    os.write(1, struct.pack('=HH', 2 + len(body), number) + body)


def text(value):
    data = value.encode() + b'\0'
    return struct.pack('=I', len(data)) + data


def reply():
    data = b''
    while len(data) < 4:
        more = os.read(0, 4 - len(data))
        if not more:
            did('end of replies')
            sys.exit(254)
        data += more
    return struct.unpack('=i', data)[0]


def complete(retval):
    say(10, struct.pack('=ii', retval, 0 if retval == 0 else 5))
    did(f'complete {retval}: {reply()}')
    sys.exit(0)


def stop(_signal, _frame):
    did('SIGTERM')
    os.dup2(os.open('/dev/null', os.O_RDONLY), stream)


def page():
    try:
        os.write(stream, b'.')
    except OSError:
        complete(-1)


def main():
    signal.signal(signal.SIGTERM, stop)
    did(f'started {os.getpid()} ' + ' '.join(sys.argv[1:]))
    with open(script, encoding='ascii') as file:
        for line in file:
            word, _, rest = line.strip().partition(' ')
            if word == 'log':
                say(1, struct.pack('=II', 5, 0) + text('xc') + text(rest))
            elif word == 'progress':
                say(2, text('xc') + text(rest) + struct.pack('=QQ', 1, 2))
            elif word == 'unknown':
                say(int(rest), b'??')
            elif word == 'big':
                say(1, struct.pack('=II', 5, 0) + text('xc') + text('x' * int(rest)))
            elif word == 'garbage':
                os.write(1, bytes.fromhex(rest))
            elif word == 'suspend':
                say(3)
                answer = reply()
                did(f'suspend: {answer}')
                if not answer:
                    complete(-1)
            elif word == 'reply':
                did(f'reply {reply()}')
            elif word == 'complete':
                complete(int(rest))
            elif word == 'touch':
                with open(rest, 'w', encoding='ascii'):
                    pass
            elif word == 'await':
                while not os.path.exists(rest):
                    page()
                    time.sleep(0.005)
            elif word == 'page':
                page()
            elif word == 'exit':
                sys.exit(int(rest))


main()
