# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many guests held at once: how long it takes, what it costs to hold them, and whether anybody else has to wait."""
import collections
import json
import time

import measure
from measure import BUILD, QuietHost, Server, cpu_ns, medians, resident_kib, tool
from sockets import answer, request, rounds

HELD_S = 5
SUBSCRIBERS = 100
AT_A_TIME = 64
PV = {'generation': 2, 'layout': {'max_pfn': 4096}}  # its tables take five frames of the imitated machine
CONFIGURATION = '[daemon]\nmax_sessions = 8192\nmax_connections = 512\n'


def create(host, count, **kind):
    """None of the guests does anything, or is connected to xenstored, which takes longer for every request the more are."""
    for domid in range(1, count + 1):
        host.create(domid, guest=False, introduce=False, **kind)
        host.store.write(f'/local/domain/{domid}/control/feature-suspend', '1')


def hold_all(client, count):
    """Seconds until all are held, and the sessions' names. Who is asked for more than that at a time is asked in vain."""
    policy = {'rest_ms': 1000, 'max_hold_ms': 3600000, 'freeze_timeout_ms': 600000}
    began, asked, sessions = time.monotonic(), collections.deque(), []
    for domid in range(1, count + 1):
        asked.append(client.send('guard.begin', domain=domid, wait=True, hold='detached', policy=policy))
        if len(asked) == AT_A_TIME:
            sessions.append(client.reply(asked.popleft(), timeout=600)['session'])
    sessions += [client.reply(number, timeout=600)['session'] for number in asked]
    return time.monotonic() - began, sessions


def fan_out(host, session, repetitions):
    """Until a hundred subscribers know of a verdict; and until a hundred connections have the same bytes from the reference."""
    subscribe, trigger = request('events.subscribe'), request('guard.verdict', session=session)
    client = host.client()
    client.call('events.subscribe')
    client.call('guard.verdict', session=session)
    event = client.event('session.verdict')
    ours = tool('fanout', host.control, SUBSCRIBERS, repetitions, subscribe, trigger, '"session.verdict"')
    line = '{"jsonrpc":"2.0","method":"event","params":%s}\n' % json.dumps(event, separators=(',', ':'))
    with open(host.folder + '/event', 'w', encoding='utf-8') as file:
        file.write(line)
    with Server(host.folder + '/all', BUILD + '/bench-echo', host.folder + '/all', host.folder + '/event', 'all') as all_told:
        theirs = tool('fanout', all_told.path, SUBSCRIBERS, repetitions, '-', trigger, '"session.verdict"')
    return ours, theirs


def measure_one(table, options, count):
    host = QuietHost(CONFIGURATION)
    try:
        create(host, count, **PV)
        client = host.client()
        measure.wait_until(lambda: client.call('daemon.info')['uptime_ms'] > 3000, what='targets known to stand still')
        took_s, sessions = hold_all(client, count)
        pid = host.daemon.pid
        before_ns, began = cpu_ns(pid), time.monotonic()
        time.sleep(HELD_S)  # what is measured is what is done in that time
        share = (cpu_ns(pid) - before_ns) / 1e9 / (time.monotonic() - began) * 100
        text = request('guard.verdict', session=sessions[count // 2], phase='precopy')
        with open(host.folder + '/answer', 'wb') as file:
            file.write(answer(host.control, text))
        with Server(host.folder + '/echo', BUILD + '/bench-echo', host.folder + '/echo', host.folder + '/answer') as echo:
            pairs = [(rounds(host.control, 1, [text]), rounds(echo.path, 1, [text])) for _ in range(options.repetitions)]
        ours, theirs = (medians([pair[i] for pair in pairs]) for i in (0, 1))
        told, all_told = fan_out(host, sessions[0], 20)
        report(table, count, {'hold': took_s, 'cpu': share, 'rss': resident_kib(pid) / 1024, 'ours': ours, 'theirs': theirs,
                              'told': told, 'all_told': all_told})
    finally:
        host.stop()


def report(table, count, found):
    section = f'{count} sessions held'
    rows = (('time to hold all', 's', found['hold'], None, None),
            ('CPU while they are held', '% of a core', found['cpu'], None, None),
            ('resident memory', 'MiB', found['rss'], None, None),
            ('verdict, 1 client', 'us p50', found['ours']['p50_us'], 'echo', found['theirs']['p50_us']),
            ('verdict, 1 client', 'us p99', found['ours']['p99_us'], 'echo', found['theirs']['p99_us']),
            (f'an event to {SUBSCRIBERS} subscribers', 'us p50', found['told']['p50_us'], 'echo to all',
             found['all_told']['p50_us']))
    for what, unit, ours, reference, theirs in rows:
        table.add(section, what, unit, ours, reference, theirs)
        table.series.setdefault(f'{what}, {unit}', []).append((count, ours, theirs))


def run(table, options):
    for count in options.sizes:
        measure_one(table, options, count)
