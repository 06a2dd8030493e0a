# SPDX-License-Identifier: LGPL-2.1-or-later
"""p2mguardctl top and timeline, against the daemon; a terminal is imitated by pyte (Debian: python3-pyte)."""
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
import unittest
import xml.etree.ElementTree

from fixture import BUILD, wait_until
from test_guard import GuardCase

# Its modules are the same for every python3, and the one in PATH need not be Debian's.
sys.path.append('/usr/lib/python3/dist-packages')
try:
    import pyte
except ImportError:
    pyte = None

COLOURS = re.compile(rb'\x1b\[[0-9;]*[34][0-9](?:[;0-9]*)m')


def utf8(name):
    """As the fixture wants it, for which a character is a byte."""
    return name.encode().decode('latin-1')


class Relay(threading.Thread):
    """Between one client and the daemon: notes which methods are called."""

    def __init__(self, path, control):
        super().__init__(daemon=True)
        self.methods = []
        self.control = control
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.start()

    def run(self):
        client = self.listener.accept()[0]
        daemon = socket.socket(socket.AF_UNIX)
        daemon.connect(self.control)
        with client, daemon:
            while True:
                for one in select.select([client, daemon], [], [])[0]:
                    data = one.recv(65536)
                    if not data:
                        return
                    if one is client:
                        self.methods += re.findall(rb'"method": ?"([a-z.]+)"', data)
                    (daemon if one is client else client).sendall(data)


class Terminal:
    """p2mguardctl on a terminal of some size: what it writes, and what that looks like."""

    def __init__(self, control, *arguments, columns=80, lines=24, **environment):
        self.screen = pyte.Screen(columns, lines)
        self.stream = pyte.ByteStream(self.screen)
        self.written = b''
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update({'TERM': 'xterm-256color', 'LC_ALL': 'C.UTF-8', **environment})
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('HHHH', lines, columns, 0, 0))
            os.execv(BUILD + '/p2mguardctl', ['p2mguardctl', '--socket', control, *arguments])
        self.before = termios.tcgetattr(self.fd)
        self.status = None

    def read(self, timeout):
        if select.select([self.fd], [], [], timeout)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:  # the other end is closed
                return False
            self.written += data
            self.stream.feed(data)
        return True

    def text(self):
        return '\n'.join(line.rstrip() for line in self.screen.display)

    def wait_text(self, *parts, absent=(), timeout=40):
        end = time.monotonic() + timeout
        while not (all(part in self.text() for part in parts) and not any(part in self.text() for part in absent)):
            if not self.read(0.2) or time.monotonic() > end:
                raise AssertionError(f'no {parts}, or still {absent}:\n{self.text()}')
        return self.text()

    def wait_match(self, pattern, timeout=40):
        """A screen is drawn in pieces: what is to be in a line may come after its beginning."""
        end = time.monotonic() + timeout
        while not re.search(pattern, self.text()):
            if not self.read(0.2) or time.monotonic() > end:
                raise AssertionError(f'no {pattern}:\n{self.text()}')

    def keys(self, text):
        os.write(self.fd, text.encode())

    def resize(self, columns, lines):
        self.screen.resize(lines, columns)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack('HHHH', lines, columns, 0, 0))

    def wait_end(self, timeout=40):
        end = time.monotonic() + timeout
        while self.status is None:
            self.read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                raise AssertionError('it does not end:\n' + self.text())
        while select.select([self.fd], [], [], 0)[0] and self.read(0):
            pass
        return self.status

    def close(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


class LiveCase(GuardCase):
    def run_ctl(self, *arguments, **environment):
        process = subprocess.run([BUILD + '/p2mguardctl', '--socket', self.host.control, *arguments],
                                 stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
                                 env=dict(os.environ, LC_ALL='C.UTF-8', **environment))
        return process.returncode, process.stdout, process.stderr


@unittest.skipUnless(pyte, 'there is no pyte (Debian: python3-pyte)')
class Top(LiveCase):
    def top(self, *arguments, **options):
        terminal = Terminal(self.host.control, 'top', *arguments, **options)
        self.addCleanup(terminal.close)
        return terminal

    def hold(self, domid, **options):
        self.host.create(domid, **options)
        return self.client.hold(domid)['session']

    def assert_restored(self, terminal):
        """The terminal is as it was, and on its own screen again, with a cursor."""
        self.assertEqual(termios.tcgetattr(terminal.fd), terminal.before)
        self.assertIn(b'\x1b[?1049l', terminal.written)
        self.assertEqual(terminal.written.rfind(b'\x1b[?25l') < terminal.written.rfind(b'\x1b[?25h'), True)

    def test_life_on_80_columns(self):
        top = self.top()
        top.wait_text('0 under guard')
        session = self.hold(1, name='web', generation=2)
        top.wait_text('1 under guard: 1 held', '1 web', 'store connected')
        top.wait_match(r'1 web +held +0:\d\d +256\.0M +#####\| +2 -')
        self.host.mem_set(1, 307200)
        top.wait_text('300.0M')
        self.host.layouts[1].set('p2m_generation', 6)
        top.wait_text('2+2')
        self.host.machine.set(1, 'tot_pages', 32768)
        top.wait_match(r'128\.0M +###\.\.\|')
        self.client.call('guard.verdict', session=session)
        top.wait_match(r'retry (tot-pages|generation)')
        self.client.call('guard.end', session=session, outcome='completed')
        top.wait_text('gone', 'completed ended')
        top.wait_text('0 under guard', absent=['web'])
        top.keys('q')
        self.assertEqual(top.wait_end(), 0)
        self.assert_restored(top)

    def test_colours(self):
        self.hold(1)
        for environment, coloured in (({}, True), ({'NO_COLOR': '1'}, False), ({'NO_COLOR': ''}, True),
                                      ({'TERM': 'vt100'}, False)):
            top = self.top(**environment)
            top.wait_text('1 held', 'guest1')
            top.keys('q')
            self.assertEqual(top.wait_end(), 0)
            self.assertEqual(bool(COLOURS.search(top.written)), coloured, environment)

    def test_sizes(self):
        self.hold(1, name='web')
        for columns, lines in ((200, 50), (80, 24), (40, 12), (20, 5), (10, 3), (5, 1), (1, 1)):
            top = self.top(columns=columns, lines=lines)
            parts = [part for part, least in (('web', 5), ('held', 20), ('VERDICT', 60), ('DEFER', 80), ('TRY', 200))
                     if columns >= least and (lines > 2 or part == 'web')]
            text = top.wait_text(*parts, *(['q quit'] if lines >= 4 else []))
            self.assertEqual('q quit' in text, lines >= 4, text)
            top.keys('q')
            self.assertEqual(top.wait_end(), 0)

    def test_resize(self):
        self.hold(1, name='web')
        top = self.top()
        top.wait_text('web', absent=['TRY'])
        top.resize(200, 50)
        top.wait_text('web', 'TRY', '1/3')
        wait_until(lambda: top.read(0.1) and 'q quit' in top.screen.display[49], what='the footer in its place')
        top.resize(30, 10)
        top.wait_text('web', absent=['TRY'])
        wait_until(lambda: top.read(0.1) and 'q quit' in top.screen.display[9], what='the footer in its place')
        top.keys('q')
        self.assertEqual(top.wait_end(), 0)

    def test_keys(self):
        for domid in range(1, 31):
            self.host.create(domid, name=f'guest{domid:02}')
            self.client.hold(domid, wait=False)
        top = self.top(lines=14)
        top.wait_text('30 held', '1-10 of 30', 'guest01')
        top.keys('\x1b[6~')
        top.wait_text('11-20 of 30', 'guest11', absent=['guest01'])
        top.keys('\x1bOB')
        top.wait_text('12-21 of 30')
        top.keys('\x1bOF')
        top.wait_text('21-30 of 30', 'guest30')
        top.keys('\x1bOH')
        top.wait_text('1-10 of 30')
        top.keys('s')
        top.wait_text('sort: name')
        top.keys('p')
        top.wait_text('PAUSED')
        self.host.mem_set(1, 307200)
        self.assertNotIn('300.0M', top.wait_text('PAUSED'))
        top.keys('p')
        top.wait_text('300.0M', absent=['PAUSED'])
        top.keys('q')
        self.assertEqual(top.wait_end(), 0)

    def test_daemon_killed_and_back(self):
        self.hold(1, name='web')
        top = self.top()
        top.wait_text('web')
        self.host.kill_daemon()
        top.wait_text('no daemon', 'web')
        self.host.start_daemon()
        top.wait_text('there is a daemon again', absent=['web'])
        client = self.host.client()
        client.hold(1)
        top.wait_text('1 held', 'web', absent=['daemon again'])
        os.kill(self.host.daemon.pid, signal.SIGSTOP)
        try:
            top.keys('q')  # whatever the daemon does
            self.assertEqual(top.wait_end(), 0)
        finally:
            os.kill(self.host.daemon.pid, signal.SIGCONT)
        self.assert_restored(top)

    def test_signals_put_the_terminal_back(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            top = self.top()
            top.wait_text('0 under guard')
            os.kill(top.pid, number)
            self.assertEqual(top.wait_end(), 0)
            self.assert_restored(top)

    def test_hostile_names(self):
        self.hold(1, name='a\x1b]0;x\x07\x9b2J\r\n\t<b>')
        self.hold(2, name=utf8('b\u202e\u200b\u65e5'))
        top = self.top(columns=120)
        top.wait_text('2 held', 'a?]0;x?', 'b??\u65e5')
        self.assertNotIn(b'\x1b]0', top.written)
        _, out, _ = self.run_ctl('top', '--once')
        self.assertNotIn('\x1b', out)
        self.assertNotIn('\u202e', out)

    def test_the_list_is_asked_for_once_a_second(self):
        """However many events there are."""
        self.hold(1)
        relay = Relay(self.host.folder + '/relay', self.host.control)
        top = Terminal(self.host.folder + '/relay', 'top')
        self.addCleanup(top.close)
        top.wait_text('1 held')
        before, end = relay.methods.count(b'guard.list'), time.monotonic() + 3
        self.assertGreater(before, 0)
        last = 300000
        while time.monotonic() < end:
            last += 1024
            self.host.mem_set(1, last)
            top.read(0.02)
        top.wait_text(f'{last // 1024}.')
        self.assertLessEqual(relay.methods.count(b'guard.list') - before, time.monotonic() - end + 3 + 1)
        self.assertEqual(relay.methods.count(b'events.subscribe'), 1)
        top.keys('q')
        top.wait_end()


class Once(LiveCase):
    def test_plain(self):
        self.host.create(1, name='web')
        self.client.hold(1)
        for option in ('--once',):
            status, out, err = self.run_ctl('top', option)
            self.assertEqual((status, err), (0, ''))
            self.assertIn('1 under guard: 1 held', out)
            self.assertRegex(out, r'1 web +held')
            self.assertNotIn('\x1b', out)
            self.assertTrue(all(len(line) <= 80 for line in out.splitlines()), out)
        self.assertIn('TRY', self.run_ctl('top', '--once', COLUMNS='150')[1])
        status, out, _ = self.run_ctl('--json', 'top')
        self.assertEqual(status, 0)
        self.assertEqual([session['name'] for session in json.loads(out)['sessions']], ['web'])

    def test_usage(self):
        for arguments, text in ((('top',), '--once'), (('top', 'x'), "'x'"), (('top', '--twice'), 'twice'),
                                (('timeline', 'a', 'b'), 'one SESSION')):
            status, out, err = self.run_ctl(*arguments)
            self.assertEqual((status, out), (2, ''))
            self.assertIn(text, err)


class Timeline(LiveCase):
    SVG = '{http://www.w3.org/2000/svg}'

    def session(self, name='web'):
        """Held, disturbed, judged twice and ended; its history."""
        self.host.create(1, name=name, generation=2)
        session = self.client.hold(1)['session']
        self.client.call('events.subscribe')
        self.host.mem_set(1, 307200)
        self.client.event('target.deferred')
        self.host.machine.set(1, 'tot_pages', 65000)
        self.client.event('session.changed')
        self.client.call('guard.verdict', session=session)
        self.host.machine.set(1, 'tot_pages', 65536)
        self.client.call('guard.retry', session=session)
        self.client.call('guard.verdict', session=session)
        self.client.call('guard.end', session=session, outcome='completed')
        return session

    def test_history(self):
        begun_ms = time.time() * 1000
        session = self.session()
        record = self.client.call('guard.history', session=session)
        kinds = [event['type'] for event in record['events']]
        for first, second in zip(('session.begun', 'session.gated', 'session.pinned', 'session.held', 'target.deferred',
                                  'session.verdict', 'session.retry', 'session.thawing'),
                                 ('session.gated', 'session.pinned', 'session.held', 'target.deferred', 'session.changed',
                                  'session.retry', 'session.thawing', 'session.gone')):
            self.assertLess(kinds.index(first), kinds.index(second), kinds)
        self.assertEqual([event['verdict'] for event in record['events'] if event['type'] == 'session.verdict'],
                         ['retry', 'proceed'])
        self.assertLess(abs(record['begun_ms'] - begun_ms), 30000)
        self.assertEqual([value for _, value in record['wanted_target_kib']], [262144, 307200])
        self.assertEqual(record['target_kib'][-1][1], 307200)
        self.assertEqual([value for _, value in record['tot_kib']], [262144, 260000, 262144])
        self.assertEqual([value for _, value in record['generation']], [2])
        self.assertEqual(record['last_verdict']['verdict'], 'proceed')
        self.assertEqual(sum(record['spent_ms'].values()), record['lasted_ms'])
        self.assertFalse(record['thinned'])
        phases = [phase['phase'] for phase in record['phases']]
        self.assertEqual((phases[0], phases[-1], phases.count('held')), ('gating', 'gone', 2))
        times = [event['at_ms'] for event in record['events']]
        self.assertEqual(times, sorted(times))
        self.assertLessEqual(times[-1], record['lasted_ms'])

    def test_storm_is_thinned(self):
        """A toolstack and a guest that do all they can: the answer stays small, and ends are kept."""
        self.host.create(1)
        session = self.client.hold(1)['session']
        wishes = 0
        def thinned():
            nonlocal wishes
            for _ in range(100):
                wishes += 1
                self.host.mem_set(1, 300000 + wishes * 4)
                self.host.machine.set(1, 'tot_pages', 60000 + wishes)
            return self.client.call('guard.history', session=session)['thinned']
        wait_until(thinned, 60, 'more than is kept')
        self.client.call('guard.verdict', session=session)
        record = self.client.call('guard.history', session=session)
        self.assertLess(len(json.dumps(record)), 24000)
        self.assertEqual(record['wanted_target_kib'][-1][1], 300000 + wishes * 4)
        self.assertEqual(record['tot_kib'][0][1], 262144)
        self.assertGreater(max(event['count'] for event in record['events']), 1)

    def test_memory_begins_with_the_daemon(self):
        session = self.session()
        self.host.kill_daemon()
        self.host.start_daemon()
        status, out, err = self.run_ctl('timeline', session)
        self.assertEqual((status, out), (1, ''))
        self.assertIn(f"no session of '{session}' is known", err)
        self.assertIn('The history begins at', err)
        status, _, err = self.run_ctl('timeline')
        self.assertEqual(status, 1)
        self.assertIn('there was no session yet', err)

    def test_text(self):
        session = self.session()
        texts = [self.run_ctl('timeline', *arguments) for arguments in ((session,), ('web',), ('1',), ())]
        self.assertEqual([status for status, _, _ in texts], [0] * 4)
        self.assertEqual(len({out for _, out, _ in texts}), 1)
        out = texts[0][1]
        for line in ('a toolstack asked for 300.0 MiB; kept for later, the pin of 256.0 MiB went back', 'verdict retry: ',
                     'verdict proceed: nothing changed', 'changed: ', 'gone; the target is 300.0 MiB',
                     'where the time went:'):
            self.assertIn(line, out)
        self.assertRegex(out, r'(?m)^ +\+0 ms  begun')
        self.assertRegex(out, r'(?m)^  held +[0-9.]+ m?s  #+$')
        again = self.client.hold(1)['session']  # the live one is meant now
        self.assertIn(again, self.run_ctl('timeline', 'web')[1])

    def picture(self, *arguments):
        status, out, err = self.run_ctl('timeline', *arguments, '--svg', '-')
        self.assertEqual((status, err), (0, ''))
        return xml.etree.ElementTree.fromstring(out), out

    def test_picture(self):
        self.session()
        tree, _ = self.picture('web')
        texts = [''.join(element.itertext()) for element in tree.iter(self.SVG + 'text')]
        for text in ('web (domain 1): completed', 'retry: tot-pages-changed', 'proceed: unchanged', 'deferred',
                     'generation', 'held'):
            self.assertIn(text, texts)
        classes = [element.get('class') for element in tree.iter(self.SVG + 'path')]
        for name in ('tot', 'pin', 'wanted'):
            self.assertIn(name, classes)
        path = self.host.folder + '/timeline.svg'
        self.assertEqual(self.run_ctl('timeline', '--svg', path, 'web'), (0, '', ''))
        xml.etree.ElementTree.parse(path)
        status, _, err = self.run_ctl('timeline', '--svg', self.host.folder + '/no/such', 'web')
        self.assertEqual(status, 1)
        self.assertIn('No such file', err)

    def test_picture_of_a_hostile_name(self):
        self.session(name=utf8('</text><script>&"\x1b\u202e'))
        tree, out = self.picture('1')
        self.assertNotIn('<script>', out)
        self.assertEqual(list(tree.iter(self.SVG + 'script')), [])
        self.assertNotIn('\x1b', self.run_ctl('timeline', '1')[1])

    def test_json(self):
        session = self.session()
        status, out, _ = self.run_ctl('--json', 'timeline', 'web')
        self.assertEqual(status, 0)
        self.assertEqual(json.loads(out), self.client.call('guard.history', session=session))


if __name__ == '__main__':
    unittest.main()
