# SPDX-License-Identifier: LGPL-2.1-or-later
"""Questions on the control socket, beside the least that a server with libevent does for the same bytes, and peers."""
import json
import shutil
import socket
import subprocess

from measure import BUILD, QuietHost, Server, medians, tool

CLIENTS = (1, 8, 64)
MEASURED_MS = 500


def request(method, **params):
    message = {'jsonrpc': '2.0', 'id': 1, 'method': method}
    if params:
        message['params'] = params
    return json.dumps(message, separators=(',', ':')) + '\n'


def answer(path, text):
    """The daemon's, as the reference is to give it."""
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(path)
        one.sendall(text.encode())
        with one.makefile('rb') as file:
            return file.readline()


def rounds(path, clients, sayings, length=0):
    return tool('rounds', path, clients, MEASURED_MS, length, *sayings)


def redis(folder, length):
    """One value, as long as the daemon's answer; and how long its answer is."""
    server = Server(folder + '/redis', 'redis-server', '--port', '0', '--unixsocket', folder + '/redis', '--save', '',
                    '--appendonly', 'no', '--dir', folder)
    subprocess.run(['redis-cli', '-s', server.path, 'set', 'session', 'x' * length], check=True, stdout=subprocess.DEVNULL)
    return server, length + len(f'${length}\r\n') + 2


def qmp(folder):
    return Server(folder + '/qmp', 'qemu-system-x86_64', '-machine', 'none', '-nodefaults', '-display', 'none', '-qmp',
                  f'unix:{folder}/qmp,server=on,wait=off')


def measure(host, text, repetitions, peers):
    """Each in its turn, so that what the machine does meanwhile meets all of them; medians."""
    runs = {}
    for _ in range(repetitions):
        for clients in CLIENTS:
            for name, path, sayings, length in [('ours', host.control, [text], 0), *peers]:
                if name != 'QMP' or clients == 1:  # which listens to one at a time
                    runs.setdefault((name, clients), []).append(rounds(path, clients, sayings, length))
    return {key: medians(all_of_it) for key, all_of_it in runs.items()}


def report(table, what, found):
    for clients in CLIENTS:
        ours = found['ours', clients]
        for name in ('echo', 'Redis GET', 'QMP'):
            theirs = found.get((name, clients))
            if not theirs:
                continue
            title = f'{what}, {clients} client{"s"[:clients > 1]}'
            for key, unit in (('p50_us', 'us p50'), ('p99_us', 'us p99'), ('per_second', '/s')):
                table.add('socket', title, unit, ours[key], name, theirs[key])


def run(table, options):
    host = QuietHost()
    try:
        host.create(1)
        session = host.client().hold(1, hold='detached', policy={'max_hold_ms': 3600000})['session']
        questions = {'verdict': request('guard.verdict', session=session, phase='precopy'),
                     'list': request('guard.list')}
        for what, text in questions.items():
            told = answer(host.control, text)
            with open(host.folder + '/answer', 'wb') as file:
                file.write(told)
            with Server(host.folder + '/echo', BUILD + '/bench-echo', host.folder + '/echo', host.folder + '/answer') as echo:
                peers = [('echo', echo.path, [text], 0)]
                others = []
                if shutil.which('redis-server'):
                    server, length = redis(host.folder, len(told))
                    others.append(server)
                    peers.append(('Redis GET', server.path, ['GET session\r\n'], length))
                if shutil.which('qemu-system-x86_64') and what == 'verdict':
                    server = qmp(host.folder)
                    others.append(server)
                    peers.append(('QMP', server.path, ['-', '{"execute":"qmp_capabilities"}\n', '{"execute":"query-status"}\n'], 0))
                found = measure(host, text, options.repetitions, peers)
                for server in others:
                    server.__exit__()
            report(table, what, found)
        # A final verdict looks at the guest's nodes once more.
        final = medians([rounds(host.control, 1, [request('guard.verdict', session=session)]) for _ in range(options.repetitions)])
        table.add('socket', 'final verdict, 1 client', 'us p50', final['p50_us'])
    finally:
        host.stop()
