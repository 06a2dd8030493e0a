# SPDX-License-Identifier: LGPL-2.1-or-later
"""p2mguardctl thaw: by the daemon, and without one."""
import fcntl
import json
import os
import random
import signal
import subprocess
import time
import unittest

from fixture import BUILD, HVM, QUICK, SESSIONS, wait_until
from proxy import Proxy
from test_asking import Agent
from test_guard import GuardCase

FAILED, USAGE, NO_STORE, DAEMON = 1, 2, 3, 7
MIGRATE = '/tool/p2mguard/migrate'


class ThawCase(GuardCase):
    def start_ctl(self, *arguments):
        environment = dict(self.host.environment, P2MGUARD_THAW=BUILD + '/thaw-imitated')
        return subprocess.Popen([BUILD + '/p2mguardctl', '--socket', self.host.control, *arguments], env=environment,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run_ctl(self, *arguments):
        process = self.start_ctl(*arguments)
        out, err = process.communicate(timeout=60)
        for sign in ('AddressSanitizer', 'runtime error', 'LeakSanitizer'):
            self.assertNotIn(sign, err)
        return process.returncode, out, err

    def thaw(self, *arguments):
        """Without a daemon; the answer of one that has worked."""
        status, out, err = self.run_ctl('--json', 'thaw', '--offline', *(arguments or ('--all',)))
        self.assertEqual(status, 0, err)
        return json.loads(out)


class Thaw(ThawCase):
    def hold_all_kinds(self):
        """Guests with all there is to be put back, and what they are to be in the end; the daemon is killed then."""
        store = self.host.store
        wanted = {domid: self.host.create(domid, name=f'u{domid}') for domid in (1, 2)}
        wanted[3] = self.host.create(3, name='u3', flags=HVM, offset_kib=8192)
        wanted[4] = self.host.create(4, name='u4')
        self.agent = Agent(self.host, 2)
        self.addCleanup(self.agent.stop)
        store.write('/local/domain/4/memory/hidden', 'x')  # which was dom0's alone before, and has to stay so
        store.set_perms('/local/domain/4/memory/hidden', 'n0')
        wanted[4] = self.host.snapshot(4)
        self.client.call('events.subscribe')
        self.client.hold(1, hold='detached')
        self.client.hold(2, hold='detached', policy={'require': 'agent'})
        self.client.hold(3, hold='detached')
        store.write(f'{MIGRATE}/4', 'begin quiet_ms=50 settle_ms=100')
        self.client.event('session.held', domid=4)
        wait_until(lambda: store.read_or_none(f'{MIGRATE}/4/verdict') == 'held', what='the answer')
        self.host.mem_set(1, 300000)
        self.client.event('target.deferred', domid=1)
        wanted[1] = {**wanted[1], 'target': '300000', 'max_pages': 300000 // 4 + 256}
        self.host.mem_set(3, 250000)
        self.client.event('target.deferred', domid=3)
        wanted[3] = {**wanted[3], 'target': '250000', 'max_pages': 250000 // 4 + 256}
        store.write('/local/domain/1/memory/newborn', 'x')  # made under a closed folder: closed itself
        self.assertEqual(store.perms('/local/domain/1/memory/newborn'), 'n0')
        wanted[1]['nodes'] = {**wanted[1]['nodes'], 'newborn': 'n0,r1'}
        self.assertTrue(self.agent.request().startswith('freeze '))
        self.host.kill_daemon()
        self.assertEqual(sorted(self.host.journals()), ['1', '2', '3', '4'])
        return wanted

    def assert_back(self, wanted):
        for domid, snapshot in wanted.items():
            self.assertEqual(self.host.snapshot(domid), snapshot, f'domain {domid}')
        self.assertEqual(self.host.journals(), [])

    def test_everything_a_killed_daemon_held_is_back_to_the_byte(self):
        wanted = self.hold_all_kinds()
        self.host.mem_set(2, 280000)  # while nobody is there: the latest of all
        wanted[2] = {**wanted[2], 'target': '280000', 'max_pages': 280000 // 4 + 256}
        answer = self.thaw()
        self.assertEqual(answer['failed'], 0)
        self.assertEqual({one['domid']: one['target_kib'] for one in answer['put_back']},
                         {1: 300000, 2: 280000, 3: 250000, 4: 262144})
        self.assert_back(wanted)
        self.assertIsNone(self.agent.request())
        self.assertEqual(self.host.store.read(f'{MIGRATE}/4/verdict'), 'abort shutdown')
        self.host.wait_rest(1, 300000)
        # Again, and by the next daemon: there is nothing left.
        self.assertEqual(self.thaw(), {'put_back': [], 'failed': 0})
        status, out, err = self.run_ctl('thaw', '--offline', '--all')
        self.assertEqual((status, out, err), (0, 'nothing was left to be put back\n', ''))
        self.host.start_daemon()
        self.assert_back(wanted)
        self.assertNotIn('put back what', self.host.log_tail())

    def test_one_domain_and_not_the_others(self):
        wanted = self.hold_all_kinds()
        for text, domid in (('2', 2), ('u1', 1), (self.host.domains[3].upper(), 3)):
            self.assertEqual([one['domid'] for one in self.thaw(text)['put_back']], [domid])
            self.assertEqual(self.host.snapshot(domid), wanted[domid])
        self.assertEqual(self.host.journals(), ['4'])
        self.assertEqual(self.host.store.perms('/local/domain/4/memory'), 'n0')
        self.assertEqual(self.thaw('u1'), {'put_back': [], 'failed': 0})  # a domain with nothing to be put back
        for unknown in ('u9', '9'):
            status, _, err = self.run_ctl('thaw', '--offline', unknown)
            self.assertEqual(status, FAILED)
            self.assertIn(f"'{unknown}'", err)
        self.thaw()
        self.assert_back(wanted)

    def test_refused_while_a_daemon_runs(self):
        before = self.host.create(1)
        session = self.client.hold(1)
        for arguments in (('--all',), ('1',)):
            status, _, err = self.run_ctl('thaw', '--offline', *arguments)
            self.assertEqual(status, DAEMON)
            self.assertIn(f'process {self.host.daemon.pid} has the lock', err)
        self.assert_held(1)
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')
        # One that hangs is a case for --force.
        self.host.daemon.send_signal(signal.SIGSTOP)
        self.thaw('--force', '--all')
        self.assertEqual(self.host.snapshot(1), before)
        self.host.kill_daemon()

    def test_second_daemon_does_not_put_back_what_the_first_holds(self):
        self.host.create(1)
        session = self.client.hold(1)
        first = self.host.daemon
        self.host.start_daemon(wait=False)
        second, self.host.daemon = self.host.daemon, first
        self.assertEqual(second.wait(20), 1)
        self.assertIn(f'process {first.pid} has the lock', self.host.log_tail())
        self.assert_held(1)
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')

    def test_daemon_waits_for_a_thaw_that_is_at_work(self):
        before = self.host.create(1)
        self.client.hold(1, hold='detached')
        self.host.kill_daemon()
        with open(self.host.control + '.lock', encoding='ascii') as lock:
            self.assertEqual(os.fstat(lock.fileno()).st_mode & 0o777, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.host.start_daemon(wait=False)
            with self.assertRaises(subprocess.TimeoutExpired):
                self.host.daemon.wait(0.5)
            self.assertEqual(self.host.journals(), ['1'])
        wait_until(lambda: not self.host.journals(), 40, 'the journal gone')
        self.assertEqual(self.host.snapshot(1), before)

    def test_without_xenstored(self):
        before = self.host.create(1)
        self.client.hold(1, hold='detached')
        self.host.kill_daemon()
        started = time.monotonic()
        os.kill(self.host.xenstored.pid, signal.SIGSTOP)
        status, _, err = self.run_ctl('thaw', '--offline', '--all')
        self.assertEqual(status, NO_STORE)
        self.assertIn('does not answer', err)
        os.kill(self.host.xenstored.pid, signal.SIGCONT)
        self.host.environment['XENSTORED_PATH'] = self.host.folder + '/nowhere'
        status, _, err = self.run_ctl('thaw', '--offline', '--all')
        self.assertEqual(status, NO_STORE)
        self.assertIn('/nowhere: No such file', err)
        self.assertLess(time.monotonic() - started, 30)
        self.host.environment['XENSTORED_PATH'] = self.host.store_path
        self.thaw()
        self.assertEqual(self.host.snapshot(1), before)

    def test_connection_lost_with_any_commit(self):
        """It goes on with a new connection, and knows from the store what was made."""
        wanted = self.hold_all_kinds()
        proxy = Proxy(self.host.folder + '/proxy', self.host.store_path)
        self.addCleanup(proxy.cut)
        for made, number in [(made, number) for made in (True, False) for number in (1, 2)]:
            proxy.lose_commit(number, made)
            self.host.environment['XENSTORED_PATH'] = proxy.path
            self.assertEqual(self.thaw()['failed'], 0)
            self.host.environment['XENSTORED_PATH'] = self.host.store_path
            self.assertTrue(proxy.lost.is_set())
            self.assert_back(wanted)
            self.host.start_daemon()
            self.client = self.host.client()
            for domid in wanted:
                self.client.hold(domid, hold='detached')
            self.host.kill_daemon()
        self.thaw()
        self.assert_back(wanted)

    def test_killed_at_any_moment(self):
        """The daemon, under a storm; then what puts back, which is begun anew."""
        self.host.create(1)
        random.seed(6)
        for turn in range(12):
            wanted = self.kill_in_storm(turn)
            process = self.start_ctl('thaw', '--offline', '--all')
            time.sleep(random.uniform(0, 0.01))
            process.kill()
            process.communicate()
            self.thaw()
            self.assert_wanted(wanted, turn)
            self.host.start_daemon()

    def test_domid_that_was_given_to_another(self):
        self.host.create(1)
        self.client.hold(1, hold='detached')
        self.host.kill_daemon()
        self.host.destroy(1)
        before = self.host.create(1, uuid='ffffffff-0000-4000-8000-000000000001', target_kib=131072)
        self.thaw()
        self.assert_back({1: before})

    def test_journal_that_cannot_be_read(self):
        before = self.host.create(1)
        self.client.hold(1, hold='detached')
        self.host.kill_daemon()
        self.host.store.write(SESSIONS + '/9/restore', 'from the future')
        status, out, err = self.run_ctl('thaw', '--offline', '--all')
        self.assertEqual((status, out), (FAILED, 'put back: 1, failed: 1\n'))
        self.assertIn('domain 9', err)
        self.assertEqual(self.host.store.read(SESSIONS + '/9/restore'), 'from the future')
        self.assertEqual(self.host.snapshot(1), before)

    def test_more_journals_than_oxenstored_can_list(self):
        before = self.host.create(1)
        self.client.hold(1, hold='detached')
        self.host.kill_daemon()
        for domid in range(20000, 21000):
            self.host.store.write(f'{SESSIONS}/{domid}', '')
        self.thaw()
        self.assert_back({1: before})

    def test_broken_configuration_keeps_nobody_frozen(self):
        before = self.host.create(1)
        self.client.hold(1, hold='detached')
        self.host.kill_daemon()
        path = self.host.folder + '/broken.conf'
        with open(path, 'w', encoding='ascii') as file:
            file.write('[daemon]\nnonsense = 1\n')
        thaw = subprocess.run([BUILD + '/thaw-imitated', '--socket', self.host.control, '--config', path, '--all'],
                              env=self.host.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=60, check=False)
        self.assertEqual(thaw.returncode, 0, thaw.stderr)
        self.assertIn('nonsense', thaw.stderr)
        self.assert_back({1: before})

    def test_by_the_daemon(self):
        wanted = {domid: self.host.create(domid, name=f'u{domid}') for domid in (1, 2, 3)}
        for domid in wanted:
            self.client.hold(domid, hold='detached')
        self.assertEqual(self.run_ctl('thaw', 'u2')[:2], (0, 'let go: 1\n'))
        self.assertEqual(self.host.snapshot(2), wanted[2])
        self.assert_held(1)
        status, out, _ = self.run_ctl('thaw', '--all', '--json')
        self.assertEqual((status, [one['domid'] for one in json.loads(out)]), (0, [1, 3]))
        self.assert_back(wanted)
        self.assertEqual(self.run_ctl('thaw', '--all')[:2], (0, 'let go: 0\n'))
        for arguments in ((), ('--all', '1'), ('1', '2'), ('--force', '--all'), ('--offline',), ('--wrong', '1')):
            status, out, err = self.run_ctl('thaw', *arguments)
            self.assertEqual((status, out), (USAGE, ''), arguments)
            self.assertTrue(err)
        self.host.stop_daemon()
        self.assertEqual(self.run_ctl('thaw', '--all')[0], NO_STORE)  # which is "no daemon", there
        environment = dict(os.environ, P2MGUARD_THAW='/nowhere')
        thaw = subprocess.run([BUILD + '/p2mguardctl', 'thaw', '--offline', '--all'], env=environment,
                              capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(thaw.returncode, FAILED)
        self.assertIn('/nowhere cannot be run', thaw.stderr)


if __name__ == '__main__':
    unittest.main()
