# SPDX-License-Identifier: LGPL-2.1-or-later
"""Holding and letting go in round trips of xenstored, and beside the same requests made one after the other by hand.

The requests are the daemon's own, as they pass a relay; then they are made for a domain that nobody guards.
"""
import threading
import time

import measure
from measure import QuietHost, pooled, tool
from proxy import HEAD, Proxy

KINDS = {1: 'DIRECTORY', 2: 'READ', 3: 'GET_PERMS', 4: 'WATCH', 5: 'UNWATCH', 6: 'TRANSACTION_START',
         7: 'TRANSACTION_END', 11: 'WRITE', 13: 'RM', 14: 'SET_PERMS'}
BLOCK, BLOCKS = 10, 10  # in turns so small that a machine that slows down does so for all of them
REST_MS = 120
POLICY = {'rest_ms': 100}


class Recorder(Proxy):
    def __init__(self, path, to):
        self.requests, self.gate = [], threading.Lock()
        super().__init__(path, to)

    def is_to_be_lost(self, kind, number, txn, body, swallow):
        if kind in KINDS:
            with self.gate:
                self.requests.append((KINDS[kind], body))
        return super().is_to_be_lost(kind, number, txn, body, swallow)

    def taken(self):
        with self.gate:
            requests, self.requests = self.requests, []
        return requests


def line(request, domid, other):
    """For the list; of another domain."""
    kind, body = request
    path, _, value = body.partition(b'\0')
    if kind in ('TRANSACTION_START', 'TRANSACTION_END'):
        path = b''
    for before, after in ((b'/domain/%d/', b'/domain/%d/'), (b'/session/%d', b'/session/%d')):
        path = path.replace(before % domid, after % other)
    if path.endswith(b'/domain/%d' % domid):
        path = path[:-len(str(domid))] + b'%d' % other
    value = value.replace(b'r%d' % domid, b'r%d' % other)
    return f'{kind}\t{path.decode()}\t{value.hex()}\n'


def settle(recorder):
    """Until nothing is asked any more."""
    last = time.monotonic()
    while time.monotonic() - last < 0.2:
        if recorder.taken():
            last = time.monotonic()
        time.sleep(0.01)


def record(host, recorder, client):
    """What is asked of xenstored until the gate is closed, from there until the guest is held, and to let it go."""
    settle(recorder)
    session = client.call('guard.begin', domain=1, wait=True, policy=POLICY)['session']
    begun = recorder.taken()
    settle(recorder)
    gated = next(i for i, (kind, _) in enumerate(begun) if kind == 'TRANSACTION_END') + 1
    client.call('guard.end', session=session, outcome='failed')
    gone = []
    watches = sum(kind == 'WATCH' for kind, _ in begun)
    def unwatched():
        gone.extend(recorder.taken())
        return sum(kind == 'UNWATCH' for kind, _ in gone) >= watches
    measure.wait_until(unwatched, what='the watches gone')
    released = next(i for i, (kind, _) in enumerate(gone) if kind == 'TRANSACTION_END') + 1
    return begun[:gated], begun[gated:], gone[:released], gone[released:]


def copy(host, path, domid, other):
    """A domain's nodes for a domain that only xenstored has heard of: the daemon does not look at it."""
    new = path.replace(f'/domain/{domid}', f'/domain/{other}')
    host.store.write(new, host.store.read_or_none(path) or '')
    host.store.set_perms(new, host.store.perms(path).replace(f'r{domid}', f'r{other}'))
    for name in host.store.list(path):
        copy(host, f'{path}/{name}', domid, other)


def relayed(host):
    """The daemon, with a relay between it and xenstored that sees its requests."""
    host.stop_daemon()
    recorder = Recorder(host.folder + '/relay', host.store_path)
    host.environment['XENSTORED_PATH'] = recorder.path
    host.start_daemon()
    return recorder


def direct(host):
    host.stop_daemon()
    host.environment['XENSTORED_PATH'] = host.store_path
    host.start_daemon()


def wait_old(host):
    """A young domain is looked at once more, whether its guest is up."""
    client = host.client()
    measure.wait_until(lambda: client.call('daemon.info')['uptime_ms'] > 3000, what='a host that is not new')
    return client


def run(table, options):
    host = QuietHost()
    try:
        host.create(1)
        copy(host, '/local/domain/1', 1, 9)
        recorder = relayed(host)
        parts = record(host, recorder, wait_old(host))
        lists = []
        for number, part in enumerate(parts):
            lists.append(f'{host.folder}/list{number}')
            with open(lists[-1], 'w', encoding='utf-8') as file:
                file.writelines(line(request, 1, 9) for request in part)
        direct(host)
        wait_old(host)
        ours, theirs, served = [], [], []
        for _ in range(options.repetitions * BLOCKS):
            ours.append(tool('holds', host.control, 1, BLOCK, REST_MS))
            theirs.append(tool('trips', BLOCK, REST_MS, *lists, env=host.environment))
            served.append(tool('served', BLOCK, REST_MS, lists[0], env=host.environment))
        report(table, parts, ours, theirs, served)
    finally:
        host.stop()


def report(table, parts, ours, theirs, served):
    gated, held, gone, _ = (pooled([run[i] for run in theirs]) for i in range(4))
    counts = [len(part) for part in parts]
    for name, count in (('begin to gated', counts[0]), ('begin to held', counts[0] + counts[1]), ('thaw', counts[2])):
        table.add('store', name, 'round trips', count)
    both = {key: gated[key] + held[key] for key in ('p50_us', 'p99_us')}
    by_hand, by_thread = 'the same requests', 'a thread makes them for a loop'
    for key, name, reference, bare in (('gated', 'begin to gated', by_hand, gated),
                                       ('gated', 'begin to gated', by_thread, pooled(served)),
                                       ('held', 'begin to held', by_hand, both), ('gone', 'thaw', by_hand, gone)):
        measured = pooled([run[key] for run in ours])
        for figure, unit in (('p50_us', 'us p50'), ('p99_us', 'us p99')):
            table.add('store', name, unit, measured[figure], reference, bare[figure])
