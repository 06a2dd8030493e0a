# SPDX-License-Identifier: LGPL-2.1-or-later
"""Callers that do what they can to keep the daemon from serving others."""
import itertools
import json
import os
import resource
import signal
import socket
import time

from measure import Process, Usage, descriptors, measure
from fixture import QUICK, Client, Host, wait_until

MANY = 10000
STANDARD = 1024  # max_connections, unless configured


def connect(path):
    """To wait in the listener's queue is no failure."""
    caller = socket.socket(socket.AF_UNIX)
    caller.connect(path)
    return caller


def hold_many(stop, path, count, told, asks=False):
    """Connections that say nothing, or ask once; how many of them were turned away, and with what words."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    callers = [connect(path) for _ in range(count)]
    refused, words = 0, set()
    if asks:
        for caller in callers:
            caller.sendall(b'{"jsonrpc":"2.0","id":1,"method":"daemon.info"}\n')
            if b'"result"' not in caller.recv(4096):
                words.add('not answered')
    # Those that are turned away are told at once, and see the end of the conversation.
    time.sleep(0.5)
    for caller in callers:
        caller.setblocking(False)
        try:
            text = caller.recv(4096)
        except BlockingIOError:
            continue
        refused += 1
        message = json.loads(text)
        words.add((message['error']['code'], message['error']['data']['what']))
        caller.setblocking(True)
        caller.settimeout(5)
        if caller.recv(1) != b'':
            words.add('not closed')
    with open(told, 'w', encoding='ascii') as file:
        file.write('done')
    while not stop:
        time.sleep(0.05)
    return {'refused': refused, 'words': sorted(map(str, words))}


def come_and_go(stop, path):
    """As fast as it goes."""
    count = 0
    while not stop:
        try:
            connect(path).close()
            count += 1
        except OSError:
            pass
    return count


def lines_without_reading(stop, path):
    """Requests whose answers nobody takes, and events that nobody takes."""
    callers = []
    for number in range(40):
        caller = connect(path)
        caller.setblocking(False)
        callers.append(caller)
    methods = itertools.cycle(['rpc.discover', 'guard.list', 'events.subscribe', 'daemon.info', 'domain.list'])
    sent = 0
    while not stop:
        for caller in callers:
            method = next(methods)
            params = {'from': 1} if method == 'events.subscribe' else {}
            line = json.dumps({'jsonrpc': '2.0', 'id': 1, 'method': method, 'params': params}).encode() + b'\n'
            try:
                sent += caller.send(line * 8)
            except BlockingIOError:
                pass
            except OSError:
                callers.remove(caller)
                caller.close()
                callers.append(connect(path))
                callers[-1].setblocking(False)
        time.sleep(0.001)
    return sent


def half_lines(stop, path):
    """A byte now and then, of a line that does not end."""
    callers = [connect(path) for _ in range(200)]
    sent = 0
    while not stop:
        for at, caller in enumerate(callers):
            try:
                sent += caller.send(b'{"jsonrpc": ' if sent < len(callers) else b' ' * 61)
            except OSError:  # 65536 bytes are no message: it has been told so
                caller.close()
                callers[at] = connect(path)
        time.sleep(0.005)
    return sent


HUGE = '9' * 400
ODD_LINES = [text.encode() + b'\n' for text in (
    '[' * 30000, '{"a":' * 10000, '[' * 2000 + ']' * 2000, '{"jsonrpc":"2.0","id":%s,"method":"daemon.info"}' % HUGE,
    '{"jsonrpc":"2.0","id":1e999,"method":"daemon.info"}', '{"jsonrpc":"2.0","id":-0.0,"method":"daemon.info"}',
    '{"jsonrpc":"2.0","id":1,"id":2,"method":"daemon.info"}', '{"jsonrpc":"2.0","id":[1],"method":"daemon.info"}',
    '{"jsonrpc":"2.0","id":{},"method":"daemon.info"}', '{"jsonrpc":"2.0","id":true,"method":"daemon.info"}',
    '{"jsonrpc":"2.0","id":null,"method":"daemon.info"}', '{"jsonrpc":"2.0","id":"%s","method":"daemon.info"}' % ('x' * 60000),
    '{"jsonrpc":"2.0","id":1,"method":"guard.begin","params":{"domain":%s}}' % HUGE,
    '{"jsonrpc":"2.0","id":1,"method":"guard.begin","params":{"domain":18446744073709551616}}',
    '{"jsonrpc":"2.0","id":1,"method":"events.subscribe","params":{"from":9223372036854775807}}',
    '[' + ','.join(['{"jsonrpc":"2.0","id":1,"method":"daemon.info"}'] * 500) + ']',
    '{"jsonrpc":"2.0","id":1,"method":"guard.begin","params":{"domain":1,"policy":{%s}}}'
    % ','.join('"m%d":1' % n for n in range(3000)), 'null', '""', '\ufffe' * 100)] + [b'\xff\xfe\0\n', b'\n' * 4000]


def odd_lines(stop, path):
    """Deep JSON, huge numbers, duplicate keys, ids of every type, batches; the answers are read."""
    caller, taken = connect(path), 0
    lines = itertools.cycle(ODD_LINES)
    while not stop:
        try:
            caller.settimeout(1)
            caller.sendall(next(lines))
            caller.setblocking(False)
            while True:
                more = len(caller.recv(1 << 20))
                if not more:
                    raise ConnectionError('closed')
                taken += more
        except (BlockingIOError, socket.timeout):
            pass
        except OSError:
            caller.close()
            caller = connect(path)
    return taken


def large_batches(stop, path):
    """A line that asks for as much as a line can; the answers are read."""
    callers = [connect(path) for _ in range(20)]
    line = json.dumps([{'jsonrpc': '2.0', 'id': n, 'method': 'rpc.discover'} for n in range(256)]).encode() + b'\n'
    taken = 0
    while not stop:
        for caller in callers:
            caller.setblocking(False)
            for step in (lambda: caller.send(line) and 0, lambda: len(caller.recv(1 << 20))):
                try:
                    taken += step()
                except BlockingIOError:
                    pass
    return taken


def listen_all(stop, path):
    """Many who want every event, and read them."""
    callers = [connect(path) for _ in range(200)]
    for caller in callers:
        caller.sendall(b'{"jsonrpc":"2.0","id":1,"method":"events.subscribe","params":{"from":1}}\n')
        caller.setblocking(False)
    taken = 0
    while not stop:
        for caller in callers:
            try:
                taken += len(caller.recv(1 << 20))
            except BlockingIOError:
                pass
        time.sleep(0.01)
    return taken


def look_up_all(stop, path):
    """A thousand look-ups at once, and away before they are answered."""
    count = 0
    line = b''.join(json.dumps({'jsonrpc': '2.0', 'id': n, 'method': 'domain.show', 'params': {'domain': 'nobody'}}).encode()
                    + b'\n' for n in range(1000))
    while not stop:
        caller = connect(path)
        caller.settimeout(0.2)
        try:
            caller.sendall(line)
            caller.recv(4096)
        except OSError:
            pass
        caller.close()
        count += 1000
    return count


HOSTILE = [come_and_go, lines_without_reading, half_lines, odd_lines, look_up_all, large_batches, listen_all]


class Callers:
    def __init__(self, case):
        self.case = case
        self.host = Host('[daemon]\nmax_gap_ms = 60000\n')
        self.client = self.host.client()
        for domid in range(1, 33):
            self.host.create(domid, guest=False)
        self.session = self.client.hold(1, hold='detached', policy={'require': 'gate', 'max_hold_ms': 3600000})

    def alone(self):
        wait_until(lambda: self.client.call('daemon.info')['connections'] == 1, 20, 'the end of all other connections')

    def too_many(self):
        """More than are served: those that there is room for are, and the others are told so."""
        case, told = self.case, self.host.folder + '/told'
        self.alone()

        def body():
            wait_until(lambda: self.client.call('daemon.info')['connections'] == 2, 20, 'the caller that behaves well')
            begun = time.monotonic()
            many = Process(hold_many, self.host.control, MANY, told)
            wait_until(lambda: os.path.exists(told), 60, f'{MANY} connections')
            took_s = time.monotonic() - begun
            held = self.client.call('daemon.info')['connections'] - 2
            files = descriptors(self.host.daemon.pid)
            other = Client(self.host.control)
            case.check('too many' in json.dumps(other.line(5)), 'one too many is not told so')
            other.close()
            os.unlink(told)
            found = many.stop() or {'refused': 0, 'words': ['could not be made']}
            case.say(f"{MANY} connections in {took_s:.1f} s: {held} served, {found['refused']} turned away "
                     f"{found['words']}, {files} descriptors")
            case.check(held == STANDARD - 2, f'{held} connections were served')
            case.check(found['refused'] == MANY - held, f"{found['refused']} were turned away")
            case.check(found['words'] == ["(-32008, 'too many connections')"], f"they were told {found['words']}")
        measure(case, self.host, self.session, f'{MANY} connections, of which {STANDARD} are let in', body)

    def hostile(self, duration_s):
        processes = [Process(body, self.host.control) for body in HOSTILE]
        time.sleep(duration_s)
        for body, process in zip(HOSTILE, processes):
            found = process.stop()
            self.case.check(found is not None, f'{body.__name__} has failed')
            self.case.say(f'{body.__name__}: {found}')

    def mixed(self, duration_s):
        measure(self.case, self.host, self.session, 'hostile callers', lambda: self.hostile(duration_s))

    def stalled(self, duration_s):
        """Everything that can be said without xenstored is said, whoever else asks."""
        os.kill(self.host.xenstored.pid, signal.SIGSTOP)
        measure(self.case, self.host, self.session, f'xenstored stopped for {duration_s} s, with hostile callers',
                lambda: self.hostile(duration_s), looks_up=False)
        os.kill(self.host.xenstored.pid, signal.SIGCONT)
        wait_until(lambda: self.client.call('daemon.info')['store'] == 'connected', 30, 'xenstored')

    def warm_up(self, events=0):
        """Has every kind of question answered, among them some look-ups at once and what takes most of the stack, which is
        not given back; and fills the ring of events, which is kept for ever."""
        for _ in range(20):
            for method in ('daemon.info', 'guard.list', 'domain.list', 'migration.list', 'rpc.discover'):
                self.client.call(method)
        numbers = [self.client.send('domain.show', domain=f'guest{domid}') for domid in range(1, 33)]
        for number in numbers:
            self.client.reply(number)
        self.client.socket.sendall(b'[' * 2000 + b']' * 2000 + b'\n')
        self.case.check('error' in str(self.client.line(5)), 'deep nesting is not answered')
        for _ in range(events // 100):
            numbers = [self.client.send('guard.verdict', session=self.session['session'], phase='final')
                       for _ in range(100)]
            for number in numbers:
                self.client.reply(number)

    def whole(self):
        """It serves as it did before."""
        other = self.client.hold(2, policy={'require': 'gate'})
        self.case.check(self.client.call('guard.verdict', session=other['session'])['verdict'] == 'proceed', 'no proceed')
        self.client.call('guard.end', session=other['session'], outcome='failed')
        self.case.check(len(self.client.call('domain.list')['domains']) == 32, 'domains are missing')


def run(case, long):
    callers = Callers(case)
    try:
        callers.warm_up(4200)
        usage = Usage(callers.host)
        callers.mixed(30 if long else 5)
        callers.stalled(60 if long else 5)
        callers.too_many()
        callers.whole()
        usage.check_back(case, 'callers')
    finally:
        Process.stop_all()
        callers.host.stop()
