# SPDX-License-Identifier: LGPL-2.1-or-later
"""What hostile guests and callers are measured by: a caller that behaves well, and what the daemon uses."""
import ctypes
import json
import os
import select
import signal
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../integration'))
from fixture import Client, RpcError, wait_until  # noqa: E402

PR_SET_PDEATHSIG = 1
PATIENCE_S = 20
P99_MS = 100
ASKING = ('domain.show', 'guard.verdict final')
# A machine that keeps a server with nothing to do waiting for longer says nothing of the daemon; so often it is asked.
REFERENCE_MS = 50
ROUNDS = 3
GROWTH = 1.10
CALM_S = 3  # after the last call, when what is given back has been given back


class Process:
    """A function in a process of its own, so that no two of them wait for each other's interpreter."""

    alive = set()

    def __init__(self, body, *arguments, nice=5):
        reading, writing = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            status = 1
            try:
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                if os.getppid() != parent:
                    os._exit(1)
                os.nice(nice)
                stop = Stop()
                result = body(stop, *arguments)
                with os.fdopen(writing, 'w') as pipe:
                    json.dump(result, pipe)
                status = 0
            except Exception as error:  # told of by what it does not say
                print(f'# {body.__name__}: {error!r}', file=sys.stderr, flush=True)
            finally:
                os._exit(status)
        os.close(writing)
        self.reading = os.fdopen(reading)
        self.alive.add(self)

    def stop(self):
        """Its result, None when it has failed, or does not end."""
        self.alive.remove(self)
        os.kill(self.pid, signal.SIGTERM)
        if not select.select([self.reading], [], [], PATIENCE_S)[0]:
            os.kill(self.pid, signal.SIGKILL)
        text = self.reading.read()
        self.reading.close()
        os.waitpid(self.pid, 0)
        return json.loads(text) if text else None

    @classmethod
    def stop_all(cls):
        for process in list(cls.alive):
            process.stop()


class Stop:
    """True once the process is to end."""

    def __init__(self):
        self.asked = False
        signal.signal(signal.SIGTERM, self.ask)

    def ask(self, _signal, _frame):
        self.asked = True

    def __bool__(self):
        return self.asked


def echo(stop, listener):
    """The least that a server can do."""
    listener.settimeout(0.2)
    while not stop:
        try:
            peer = listener.accept()[0]
        except socket.timeout:
            continue
        while text := peer.recv(100):
            peer.sendall(text)
    return True


def percentile(times, percent):
    return sorted(times)[len(times) * percent // 100] if times else 0


def ask_regularly(stop, path, session, looks_up, echo_path):
    """A caller that behaves well: it asks for little, and waits for the answer. Without looking up: what can be said
    without xenstored. In between it asks a server that is never busy, which tells how busy the machine is."""
    client, other = Client(path), socket.socket(socket.AF_UNIX)
    other.connect(echo_path)
    methods = [('daemon.info', {}), ('guard.list', {}), ('migration.list', {}),
               ('guard.verdict', {'session': session, 'phase': 'precopy'})]
    of_the_loop = len(methods)  # the others are xenstored's to answer as well, and are shown, and not judged
    if looks_up:
        methods += [('domain.show', {'domain': 1}), ('guard.verdict', {'session': session, 'phase': 'final'})]
    took_ms, machine_ms, each_ms, refused, count = [], [], {}, [], 0
    while not stop:
        method, params = methods[count % len(methods)]
        begun = time.monotonic()
        try:
            client.call(method, **params)
        except RpcError as error:
            refused.append(f'{method}: {error}')
        ms = (time.monotonic() - begun) * 1000
        if count % len(methods) < of_the_loop:
            took_ms.append(ms)
        each_ms.setdefault(f"{method} {params.get('phase', '')}".strip(), []).append(ms)
        count += 1
        begun = time.monotonic()
        other.sendall(b'x')
        other.recv(1)
        machine_ms.append((time.monotonic() - begun) * 1000)
        time.sleep(0.005)
    return {'asked': len(took_ms), 'p50': percentile(took_ms, 50), 'p99': percentile(took_ms, 99), 'most': max(took_ms),
            'refused': refused, 'machine': percentile(machine_ms, 99),
            'each': {name: percentile(times, 99) for name, times in each_ms.items()}}


class Prober:
    def __init__(self, host, session, looks_up=True):
        path = host.folder + '/echo'
        if os.path.exists(path):
            os.unlink(path)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            self.echo = Process(echo, listener, nice=0)
        self.process = Process(ask_regularly, host.control, session['session'], looks_up, path, nice=0)

    def stop(self):
        found = self.process.stop()
        self.echo.stop()
        return found


def measure(case, host, session, what, body, looks_up=True):
    """What a caller that behaves well sees while something is done; its result. It is done anew when nobody else would
    have been served well either."""
    for left in reversed(range(ROUNDS)):
        prober = Prober(host, session, looks_up)
        result = body()
        found = prober.stop()
        case.check(found is not None, f'{what}: the caller that behaves well was not answered')
        if not found:
            return result
        case.say(f"{what}: {found['asked']} answers, p50 {found['p50']:.1f} ms, p99 {found['p99']:.1f} ms, "
                 f"at most {found['most']:.0f} ms; a server with nothing to do: p99 {found['machine']:.1f} ms")
        if found['p99'] <= P99_MS or found['machine'] <= REFERENCE_MS or not left:
            break
        case.say(f'{what}: once more, since a server with nothing to do was not quick either')
    asking = [f'{name} {ms:.0f} ms' for name, ms in found['each'].items() if name in ASKING]
    if asking:
        case.say(f"{what}: of those that ask xenstored, p99: {', '.join(asking)}")
    case.check(not found['refused'], f"{what}: {len(found['refused'])} were refused: {found['refused'][:3]}")
    case.check(found['p99'] <= P99_MS, f'{what}: p99 is above {P99_MS} ms: '
               + ', '.join(f'{name} {ms:.0f}' for name, ms in found['each'].items()))
    return result


def resident_kib(pid):
    """All of it, and what is its own, without programs, libraries and the imitated machine's file."""
    with open(f'/proc/{pid}/status', encoding='ascii') as file:
        sizes = {line.split(':')[0]: int(line.split()[1]) for line in file if line.startswith(('VmRSS:', 'RssAnon:'))}
    return sizes['VmRSS'], sizes['RssAnon']


def descriptors(pid):
    return len(os.listdir(f'/proc/{pid}/fd'))


class Usage:
    """Of the daemon, before and after."""

    def __init__(self, host):
        self.pid = host.daemon.pid
        Client(host.control).close()
        time.sleep(CALM_S)
        (self.kib, self.own_kib), self.files = resident_kib(self.pid), descriptors(self.pid)

    def check_back(self, case, what):
        def back():
            return descriptors(self.pid) == self.files and resident_kib(self.pid)[0] <= self.kib * GROWTH
        try:
            wait_until(back, 20)
        except AssertionError:
            case.check(False, f'{what}: memory or descriptors have not come back')
        kib, own_kib = resident_kib(self.pid)
        case.say(f'{what}: resident {self.kib} KiB before, {kib} KiB after ({kib / self.kib:.2f}); of that its own '
                 f'{self.own_kib} KiB, {own_kib} KiB ({own_kib / self.own_kib:.2f}); '
                 f'descriptors {self.files}, {descriptors(self.pid)}')


class Case:
    """Collects what is to be told, and what was wrong."""

    def __init__(self, name):
        self.name, self.lines, self.wrong = name, [], []

    def say(self, text):
        self.lines.append(text)
        print(f'# {self.name}: {text}', flush=True)

    def check(self, condition, text):
        if not condition:
            self.wrong.append(text)
            print(f'# {self.name}: WRONG: {text}', flush=True)
