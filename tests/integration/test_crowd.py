# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many domains, and callers who ask for much at once. tests/load has the figures; here is what can be told exactly."""
import contextlib
import json
import os
import re
import signal
import time
import unittest

from fixture import PATIENT, QUICK, SANITIZED, Client, become, wait_until
from test_guard import GuardCase


class Crowd(GuardCase):
    def swap(self, domid):
        """Another domain, of the same number and with the same target, while the daemon does not look."""
        daemon = self.host.daemon
        daemon.send_signal(signal.SIGSTOP)
        try:
            self.host.destroy(domid)
            self.host.create(domid, uuid='deadbeef-0000-4000-8000-000000000001', guest=False)
        finally:
            daemon.send_signal(signal.SIGCONT)

    def steady_ms(self):
        return self.client.call('domain.show', domain=7)['target_steady_ms']

    def test_number_used_again_between_two_looks_is_another_domains(self):
        self.host.create(7, guest=False)
        wait_until(lambda: self.steady_ms() >= 1000, what='a target that has been the same for a second')
        begun = time.monotonic()
        self.swap(7)
        wait_until(lambda: self.steady_ms() < 1000, 2, 'the news')
        for _ in range(5):
            self.assertLessEqual(self.steady_ms(), (time.monotonic() - begun) * 1000 + 1)

    def test_agent_of_a_domain_whose_number_is_used_again_is_told_of(self):
        self.host.create(7, guest=False)
        self.client.call('events.subscribe')
        self.swap(7)
        self.host.store.write('/local/domain/7/data/p2mguard/features', 'protocol=1 version=0.1.0 balloon')
        self.assertEqual(self.client.event('agent.arrived', timeout=10)['uuid'], 'deadbeef-0000-4000-8000-000000000001')

    def test_lookups_take_turns(self):
        for domid in range(1, 51):
            self.host.create(domid, guest=False)
        greedy, modest = self.host.client(), self.host.client()
        numbers = [greedy.send('domain.show', domain='nobody') for _ in range(300)]
        for _ in range(3):
            self.assertEqual(modest.call('domain.show', domain='guest50')['domid'], 50)
        greedy.send('daemon.info')
        self.assertEqual(greedy.reply(greedy.id)['connections'], 3)
        self.assertLess(len(greedy.replies), 200)
        while len(greedy.replies) < len(numbers):
            greedy.take(30)
        # On a busy machine some are given up.
        self.assertLessEqual({reply['error']['code'] for reply in greedy.replies.values()}, {-32001, -32006})

    def test_lookups_of_a_caller_that_left_are_not_made(self):
        self.host.create(1, guest=False)
        os.kill(self.host.xenstored.pid, signal.SIGSTOP)
        gone = self.host.client()
        for _ in range(900):
            gone.send('domain.show', domain=1)
        wait_until(lambda: self.client.call('daemon.info')['store'] == 'stalled', what='a lookup at xenstored')
        gone.close()
        wait_until(lambda: self.client.call('daemon.info')['connections'] == 1, what='its end')
        gets = self.host.machine.gets()
        os.kill(self.host.xenstored.pid, signal.SIGCONT)
        self.client.call('domain.show', domain=1)
        self.assertLess(self.host.machine.gets() - gets, 20)

    @unittest.skipIf(SANITIZED, 'memory that was freed is kept, to find out who still uses it')
    def test_memory_of_callers_that_left_is_given_back(self):
        def resident_kib():
            with open(f'/proc/{self.host.daemon.pid}/status', encoding='utf-8') as status:
                return next(int(line.split()[1]) for line in status if line.startswith('VmRSS'))
        os.kill(self.host.xenstored.pid, signal.SIGSTOP)
        self.addCleanup(os.kill, self.host.xenstored.pid, signal.SIGCONT)
        before = resident_kib()
        line = json.dumps({'jsonrpc': '2.0', 'id': 'x' * 900, 'method': 'domain.show', 'params': {'domain': 1}}) + '\n'
        many = [self.host.client() for _ in range(80)]
        for one in many:
            one.socket.setblocking(False)
            one.socket.send(line.encode() * 400)  # as many as there is room for: nobody reads the answers
        wait_until(lambda: resident_kib() > before + 8192, 40, 'calls that wait')
        for one in many:
            one.close()
        os.kill(self.host.xenstored.pid, signal.SIGCONT)
        wait_until(lambda: resident_kib() < before + 4096, 40, 'the memory')

    def test_begin_of_a_caller_that_left_is_obeyed(self):
        for domid in range(1, 41):
            self.host.create(domid, guest=False)
        gone = self.host.client()
        for domid in range(1, 41):
            gone.send('guard.begin', domain=domid, hold='detached', policy=dict(QUICK, require='gate'))
        gone.close()
        wait_until(lambda: len(self.client.call('guard.list')['sessions']) == 40, what='all of them')


@unittest.skipIf(os.geteuid() != 0, "becoming another user takes root")
class ReadersCase(GuardCase):
    @staticmethod
    def is_served(client):
        try:
            client.send('daemon.info')
        except BrokenPipeError:
            pass  # it has been told why
        return 'result' in client.line(10)

    def readers(self, count):
        """So many connections of somebody else; how many of them are served."""
        os.chmod(self.host.folder, 0o755)
        wait_until(lambda: self.client.call('daemon.info')['connections'] == 1, what='being alone')
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                become()
                readers = [Client(self.host.control) for _ in range(count)]
                os.write(writing, b'%d' % sum(self.is_served(reader) for reader in readers))
                signal.pause()
            finally:
                os._exit(1)
        self.addCleanup(os.waitpid, child, 0)
        self.addCleanup(os.kill, child, signal.SIGKILL)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            return int(os.read(pipe.fileno(), 10))


class Readers(ReadersCase):
    configuration = PATIENT + 'socket_mode = 0666\nmax_connections = 32\n'

    def test_readers_do_not_keep_others_out(self):
        self.assertEqual(self.readers(40), 29)  # and ourselves
        self.assertEqual(self.host.client().call('daemon.info')['connections'], 31)
        self.assertEqual(self.host.client().call('daemon.info')['connections'], 32)
        self.assertEqual(self.host.client().line(10)['error']['code'], -32008)


UNIT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../units/p2mguardd.service.in')


class Memory(GuardCase):
    configuration = PATIENT + 'max_connections = 3000\n'

    def own_kib(self):
        with open(f'/proc/{self.host.daemon.pid}/status', encoding='ascii') as file:
            return next(int(line.split()[1]) for line in file if line.startswith('RssAnon:'))

    def crowd(self, count):
        """Each asks for something, and stays until all have been answered."""
        clients = [Client(self.host.control) for _ in range(count)]
        for client in clients:
            client.call('daemon.info')
        self.assertEqual(self.client.call('daemon.info')['connections'], count + 1)
        kib = self.own_kib()
        for client in clients:
            client.close()
        wait_until(lambda: self.client.call('daemon.info')['connections'] == 1, what='being alone')
        return kib

    @unittest.skipIf(SANITIZED, 'the sanitizers keep freed memory for a while')
    def test_memory_of_a_crowd_is_given_back(self):
        for _ in range(10):
            for method in ('daemon.info', 'guard.list', 'domain.list', 'migration.list', 'rpc.discover'):
                self.client.call(method)
        before = self.own_kib()
        self.assertGreater(self.crowd(800), 1.2 * before)
        # To gather what malloc keeps for itself it is given all that it may keep, once and for all.
        wait_until(lambda: self.own_kib() <= 1.25 * before, what='memory to be given back')
        before = self.own_kib()
        self.assertGreater(self.crowd(800), 1.2 * before)
        wait_until(lambda: self.own_kib() <= 1.1 * before, what='memory to be given back again')


class Descriptors(ReadersCase):
    configuration = PATIENT + 'socket_mode = 0666\n'

    def test_unit_gives_enough(self):
        """For the standard configuration, and for ten thousand connections without a change to the unit."""
        with open(UNIT, encoding='utf-8') as file:
            given = int(re.search('^LimitNOFILE=([0-9]+)$', file.read(), re.M).group(1))
        for most in (1024, 10000):
            self.host.configuration = PATIENT + f'max_connections = {most}\n'
            self.start_daemon_with(100)
            said = re.search(f'not for {most}: no more than 100 files may be open; LimitNOFILE=([0-9]+) would do',
                             self.host.log_tail())
            self.assertLessEqual(int(said.group(1)), given)

    def start_daemon_with(self, limit):
        self.host.stop_daemon()
        self.addCleanup(os.environ.pop, 'P2MGUARD_UNDER', None)
        os.environ['P2MGUARD_UNDER'] = f'prlimit --nofile={limit}:{limit}'
        self.host.start_daemon()
        self.client = self.host.client()

    def test_connections_leave_some_for_guards(self):
        self.host.create(1, guest=False)
        self.start_daemon_with(200)
        self.assertIn('there is room for 100 connections and not for 1024', self.host.log_tail())
        others = [self.host.client() for _ in range(99)]
        wait_until(lambda: self.client.call('daemon.info')['connections'] == 100, what='all of them')
        for _ in range(3):
            one_more = self.host.client()
            self.assertEqual(one_more.line(5)['error']['code'], -32008)
            with self.assertRaises(EOFError):
                one_more.line(5)
        self.assertEqual(self.client.hold(1)['state'], 'held')
        others.pop().close()
        wait_until(lambda: self.client.call('daemon.info')['connections'] == 99, what='room')
        self.assertEqual(self.host.client().call('daemon.info')['connections'], 100)

    def any_has_two(self):
        """Descriptors of the same socket, that is."""
        files = f'/proc/{self.host.daemon.pid}/fd'
        sockets = []
        for name in os.listdir(files):
            with contextlib.suppress(FileNotFoundError):
                sockets.append(os.readlink(f'{files}/{name}'))
        sockets = [name for name in sockets if name.startswith('socket:')]
        return len(set(sockets)) < len(sockets)

    def test_readers_leave_some_for_others(self):
        self.start_daemon_with(200)
        self.assertEqual(self.readers(120), 93)  # and ourselves: 6 of 100 are not for them
        other = self.host.client()
        self.assertEqual(other.call('daemon.info')['connections'], 95)
        for _ in range(8):
            other.send('rpc.discover')
        wait_until(self.any_has_two, what='its second one, for it does not read')
        for _ in range(4):
            last = self.host.client()
        self.assertEqual(last.call('daemon.info')['connections'], 99)
        self.assertEqual(self.host.client().line(10)['error']['code'], -32008)


if __name__ == '__main__':
    unittest.main()
