# SPDX-License-Identifier: LGPL-2.1-or-later
"""Callers that speak only xenstore: /tool/p2mguard/migrate."""
import os
import random
import signal
import socket
import struct
import subprocess
import threading
import time
import unittest

from fixture import BUILD, KIND, PATIENT, Host, RpcError, Store, StoreError, wait_until
from test_guard import GuardCase

FOLDER = '/tool/p2mguard/migrate'
BEGIN = 'begin quiet_ms=50 settle_ms=100'
MANUAL = os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../man/p2mguardd.8')
OTHER_UUID = 'ffffffff-0000-4000-8000-000000000001'


class Watch:
    """A caller's connection of its own, which hears of every write below the folder.

    It is read all the time: oxenstored lets a connection wait whose writes fill another's queue.
    """

    def __init__(self, path):
        self.store = Store(path)
        self.heard, self.count = threading.Condition(), 0
        payload = f'{FOLDER}\0nodes\0'.encode()
        self.store.socket.sendall(struct.pack('<IIII', 4, 0, 0, len(payload)) + payload)  # XS_WATCH
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        try:
            while True:
                _, _, _, length = struct.unpack('<IIII', self.store._receive(16))
                self.store._receive(length)
                with self.heard:
                    self.count += 1
                    self.heard.notify_all()
        except (OSError, StoreError):
            pass

    def close(self):
        self.store.socket.shutdown(socket.SHUT_RDWR)
        self.store.close()

    def wait(self, condition, timeout, what):
        end = time.monotonic() + timeout
        while True:
            with self.heard:
                before = self.count
            value = condition()
            if value:
                return value
            with self.heard:
                more = self.heard.wait_for(lambda: self.count != before, max(0, end - time.monotonic()))
            if not more:
                raise AssertionError(f'{what} did not come true within {timeout} s')


class NodesCase(GuardCase):
    def setUp(self):
        super().setUp()
        self.watch = Watch(self.host.store_path)
        self.addCleanup(self.watch.close)

    def node(self, domid, leaf=''):
        try:
            return self.host.store.request('READ', f'{FOLDER}/{domid}{leaf}').decode('latin-1')
        except StoreError as error:
            if str(error) != 'ENOENT':
                raise
            return None

    def verdict_of(self, domid):
        return self.node(domid, '/verdict')

    def write(self, domid, request):
        self.host.store.write(f'{FOLDER}/{domid}', request)

    def ask(self, domid, request):
        """Writes a request, and waits until it is taken: what is answered from then on is the answer."""
        self.write(domid, request)
        self.watch.wait(lambda: not self.node(domid), 120, f'"{request}" taken')

    def wait_verdict(self, domid, *beginnings, timeout=40):
        def there():
            verdict = self.verdict_of(domid) or ''
            return verdict if verdict.startswith(beginnings) else None
        return self.watch.wait(there, timeout, f'verdict {beginnings} at {self.verdict_of(domid)}')

    def answer(self, domid, request, *beginnings):
        """Asks, and the first answer must be one of these."""
        self.ask(domid, request)
        self.watch.wait(lambda: self.verdict_of(domid) is not None, 120, f'an answer to "{request}"')
        verdict = self.verdict_of(domid)
        self.assertTrue(verdict.startswith(beginnings), f'{request}: {verdict}')
        return verdict

    def begin(self, domid, request=BEGIN):
        """Until it is held; the session's name."""
        self.ask(domid, request)
        self.wait_verdict(domid, 'held')
        return self.node(domid, '/session')

    def wait_gone(self, domid, timeout=40):
        self.watch.wait(lambda: self.node(domid) is None, timeout, f'node {domid} removed')

    def finish(self, domid, outcome='failed'):
        self.write(domid, f'end {outcome}')
        self.wait_gone(domid)

    def show(self, session):
        return self.client.call('guard.show', session=session)

    def assert_nothing_left(self, before):
        wait_until(lambda: not self.host.journals(), 40, 'the journals gone')
        self.watch.wait(lambda: not self.host.store.list(FOLDER), 40, 'no node')
        for domid, snapshot in before.items():
            self.assertEqual(self.host.snapshot(domid), snapshot)


class MigrateNodes(NodesCase):
    def test_main_path(self):
        before = self.host.create(1, name='web')
        self.ask(1, BEGIN)
        self.assertIn(self.wait_verdict(1, 'freezing', 'held'), ('freezing', 'held'))
        self.wait_verdict(1, 'held')
        self.assert_held(1)
        session = self.show(self.node(1, '/session'))
        self.assertEqual((session['domid'], session['name'], session['state'], session['hold']),
                         (1, 'web', 'held', 'detached'))
        self.assertEqual(session['owner'], {'pid': 0, 'uid': 0, 'via': 'xenstore', 'caller': None})
        self.assertEqual(self.node(1, '/uuid'), session['uuid'])
        self.assertEqual(self.answer(1, 'verdict', ''), 'proceed unchanged')
        self.assertEqual(self.answer(1, 'verdict', ''), 'proceed unchanged')
        self.finish(1, 'completed')
        gone = self.show(session['session'])
        self.assertEqual((gone['state'], gone['outcome'], gone['reason']), ('gone', 'completed', 'ended'))
        self.assert_nothing_left({1: before})

    def test_outcomes(self):
        self.host.create(1)
        for outcome in ('completed', 'failed', 'cancelled'):
            session = self.begin(1)
            self.finish(1, outcome)
            self.assertEqual(self.show(session)['outcome'], outcome)

    def test_guests_have_no_access(self):
        self.host.create(1)
        self.begin(1)
        for path in (FOLDER, f'{FOLDER}/1', f'{FOLDER}/1/verdict', f'{FOLDER}/1/session', f'{FOLDER}/1/uuid'):
            self.assertEqual(self.host.store.perms(path), 'n0')
            self.assertIn('EACCES', self.host.ask_guest(f'read 1 {path}'))
        self.finish(1)

    def test_policy_is_the_callers(self):
        self.host.create(1)
        session = self.show(self.begin(1, 'begin require=gate attempts=9 max_hold_ms=5000 retry_grace_ms=0'))
        policy = session['policy']
        self.assertEqual((policy['require'], policy['attempts'], policy['max_hold_ms'], policy['retry_grace_ms']),
                         ('gate', 9, 5000, 0))
        self.assertEqual(policy['freeze_timeout_ms'], 60000)
        self.finish(1)

    def test_who_began_it_is_shown(self):
        self.host.create(1)
        self.host.create(2)
        self.begin(1)
        self.client.hold(2)
        via = {session['domid']: session['owner']['via'] for session in self.client.call('guard.list')['sessions']}
        self.assertEqual(via, {1: 'xenstore', 2: 'socket'})
        shown = subprocess.run([BUILD + '/p2mguardctl', '--socket', self.host.control, 'show', '1'], check=True,
                               capture_output=True, text=True).stdout
        self.assertRegex(shown, r'owner\.via +xenstore')

    def test_verdict_asked_for_while_freezing_is_given_when_held(self):
        self.host.create(1)
        self.assertEqual(self.answer(1, 'begin quiet_ms=600', ''), 'freezing')
        self.ask(1, 'verdict')
        self.assertNotEqual(self.verdict_of(1), 'held')
        self.assertEqual(self.wait_verdict(1, 'proceed', 'held', 'retry'), 'proceed unchanged')
        self.finish(1)

    def test_change_is_told_without_being_asked_for(self):
        self.host.create(1)
        session = self.begin(1)
        self.host.machine.set(1, 'tot_pages', 65530)
        self.assertEqual(self.wait_verdict(1, 'retry'), 'retry tot-pages-changed')
        self.host.machine.set(1, 'tot_pages', 65536)
        self.assertEqual(self.answer(1, 'verdict', ''), 'retry tot-pages-changed')
        self.answer(1, 'retry', 'freezing', 'held')
        self.wait_verdict(1, 'held')
        self.assertEqual(self.show(session)['attempt'], 2)
        self.assertEqual(self.answer(1, 'verdict', ''), 'proceed unchanged')
        self.host.machine.set(1, 'tot_pages', 65530)  # what was a proceed does not stay one
        self.assertEqual(self.wait_verdict(1, 'retry'), 'retry tot-pages-changed')
        self.finish(1)

    def test_change_of_the_p2m_is_told(self):
        self.host.create(1, generation=4)
        self.begin(1)
        self.host.layouts[1].set('p2m_generation', 6)
        self.assertEqual(self.wait_verdict(1, 'retry'), 'retry generation-changed')
        self.finish(1)

    def test_opened_gate_is_told(self):
        before = self.host.create(1)
        self.begin(1)
        self.host.store.set_perms('/local/domain/1/memory/target', 'n0,r1')
        self.assertEqual(self.wait_verdict(1, 'retry'), 'retry gate-opened')
        self.finish(1)
        self.assert_nothing_left({1: before})

    def test_retry_is_never_answered_with_the_hold_before(self):
        """A guest that is at rest is held again at once, and yet it is another attempt's hold."""
        self.host.create(1)
        session = self.begin(1, BEGIN + ' attempts=100 retry_backoff_ms=0')
        for attempt in range(2, 22):
            self.ask(1, 'retry')
            self.wait_verdict(1, 'held')
            self.assertEqual(self.show(session)['attempt'], attempt)
        self.finish(1)

    def test_attempts_used_up(self):
        self.host.create(1)
        self.begin(1, BEGIN + ' attempts=2')
        self.answer(1, 'retry', 'freezing', 'held')
        self.wait_verdict(1, 'held')
        self.assertIn('attempts=2', self.answer(1, 'retry', 'error'))
        self.assertEqual(self.answer(1, 'verdict', ''), 'proceed unchanged')  # it is still held
        self.answer(1, 'retry', 'error')
        self.host.machine.set(1, 'tot_pages', 65530)
        self.assertEqual(self.wait_verdict(1, 'abort'), 'abort attempts-exhausted')  # an error hides it not
        self.finish(1)

    def test_target_deferred_and_restored_through_two_attempts(self):
        self.host.create(1)
        self.client.call('events.subscribe')
        self.begin(1)
        self.host.mem_set(1, 300000)
        self.client.event('target.deferred', target_kib=300000)
        self.assert_held(1)
        self.ask(1, 'retry')
        self.wait_verdict(1, 'held')
        self.host.mem_set(1, 310000)
        self.client.event('target.deferred', target_kib=310000)
        self.assertEqual(self.answer(1, 'verdict', ''), 'proceed unchanged')
        self.finish(1)
        self.assertEqual(self.host.target(1), '310000')  # gone means put back
        self.host.wait_rest(1, 310000)

    def test_storm_of_targets(self):
        self.host.create(1)
        storm = self.host.storm(1, interval=0.2)
        self.begin(1)
        held = self.host.tot_pages(1)
        for _ in range(5):
            self.assertEqual(self.answer(1, 'verdict', ''), 'proceed unchanged')
            self.assertEqual(self.host.tot_pages(1), held)
        wanted = storm.stop()
        self.assertIsNone(storm.error)
        self.finish(1, 'completed')
        self.host.wait_rest(1, wanted)
        self.assertEqual(self.host.snapshot(1)['nodes']['target'], 'n0,r1')

    def test_end_means_that_all_is_put_back(self):
        before = self.host.create(1)
        for _ in range(20):
            self.begin(1)
            self.finish(1)
            self.assertEqual(self.host.snapshot(1), before)
            self.assertEqual(self.host.journals(), [])

    def test_not_held_within_its_time(self):
        before = self.host.create(1, mode='stubborn')
        self.ask(1, BEGIN + ' freeze_timeout_ms=500')
        self.assertEqual(self.wait_verdict(1, 'abort', 'held'), 'abort freeze-timeout')
        self.assertEqual(self.answer(1, 'verdict', ''), 'abort freeze-timeout')
        self.finish(1)
        self.assert_nothing_left({1: before})

    def test_deadline_is_told_until_the_caller_ends(self):
        before = self.host.create(1)
        session = self.begin(1, BEGIN + ' max_hold_ms=1000')
        self.assertEqual(self.wait_verdict(1, 'abort'), 'abort deadline')
        wait_until(lambda: self.show(session)['state'] == 'gone', what='gone')
        self.assertEqual(self.host.snapshot(1), before)
        for request in ('verdict', 'retry'):
            self.assertEqual(self.answer(1, request, ''), 'abort deadline')
        self.finish(1, 'failed')
        self.assert_nothing_left({1: before})

    def test_begin_after_a_session_that_ended_by_itself(self):
        self.host.create(1)
        first = self.begin(1, BEGIN + ' max_hold_ms=1000')
        self.wait_verdict(1, 'abort')
        wait_until(lambda: self.show(first)['state'] == 'gone', what='gone')
        self.assertNotEqual(self.begin(1), first)
        self.finish(1)

    def test_grace_runs_from_a_retry_that_nobody_asked_for(self):
        before = self.host.create(1)
        session = self.begin(1, BEGIN + ' retry_grace_ms=300')
        self.host.machine.set(1, 'tot_pages', 65530)
        self.wait_verdict(1, 'retry')
        self.host.machine.set(1, 'tot_pages', 65536)
        self.assertEqual(self.wait_verdict(1, 'abort'), 'abort grace-expired')
        wait_until(lambda: self.show(session)['state'] == 'gone', what='gone')
        self.finish(1)
        self.assert_nothing_left({1: before})

    def test_nobody_reads_held_of_a_guest_that_is_let_go(self):
        """Whoever ends it: the answer is another one before the gate opens."""
        self.host.create(1)
        for _ in range(30):
            session = self.begin(1, BEGIN)
            number = self.client.send('guard.end', session=session, outcome='cancelled')
            wait_until(lambda: self.host.store.perms('/local/domain/1/memory/target') != 'n0', what='the gate open')
            self.assertEqual(self.verdict_of(1), 'abort ended')
            self.client.reply(number)
            self.finish(1)

    def test_domain_zero_and_none(self):
        self.assertIn('domain 0 is the host itself', self.answer(0, 'begin', 'error'))
        self.assertIn('there is no domain 9', self.answer(9, 'begin', 'error'))
        self.assertIn('expected begin', self.answer(9, 'verdict', 'error'))
        self.assertIsNone(self.node(9, '/session'))
        self.finish(0)
        self.finish(9)

    def test_answer_about_no_domain_goes_away(self):
        self.answer(9, 'begin', 'error')
        self.wait_gone(9, 15)

    def test_errors_name_what_was_wrong_and_what_was_expected(self):
        self.host.create(1)
        cases = (('hold', "'hold'", 'expected begin'), ('begin attempts=0', "'0'", 'from 1 to 100'),
                 ('begin attempts=1 attempts=2', 'twice', 'once'), ('begin require=all', "'all'", 'gate, settled or agent'),
                 ('begin please', "'please'", 'KEY=VALUE'), ('end', "''", 'end completed'),
                 ('end unknown', "'unknown'", 'end completed'), ('retry now', "'now'", 'nothing after'),
                 ('verdict\n', '0x0a', 'printable ASCII'))
        for request, wrong, expected in cases:
            for text in (wrong, expected):
                self.assertIn(text, self.answer(1, request, 'error'))
        for request in ('retry', 'verdict'):
            self.assertIn('expected begin', self.answer(1, request, 'error nothing was begun'))
        self.assertEqual(self.host.journals(), [])
        session = self.begin(1)
        for request, wrong, expected in cases:
            for text in (wrong, expected):
                self.assertIn(text, self.answer(1, request, 'error'))
        self.assertIn(session, self.answer(1, 'begin', 'error'))
        self.assert_held(1)
        self.assertEqual(self.answer(1, 'verdict', ''), 'proceed unchanged')
        self.finish(1)

    def test_retry_while_freezing_is_refused(self):
        self.host.create(1)
        self.assertEqual(self.answer(1, 'begin quiet_ms=1000', ''), 'freezing')
        self.assertIn('still being frozen', self.answer(1, 'retry', 'error'))
        self.wait_verdict(1, 'held')
        self.finish(1)

    def test_session_of_somebody_else_is_left_alone(self):
        before = self.host.create(1)
        session = self.client.hold(1)
        for request in (BEGIN, 'retry', 'verdict', 'end completed', 'end failed', 'end cancelled'):
            text = self.answer(1, request, 'error')
            self.assertIn(session['session'], text)
            self.assertIn('not begun here', text)
            self.assertEqual(self.show(session['session'])['attempt'], 1)
        self.assertIsNone(self.node(1, '/session'))
        self.host.store.remove(f'{FOLDER}/1')
        self.assert_held(1)
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')
        self.answer(1, 'begin', 'error')
        self.end(session)
        self.begin(1)
        self.finish(1)
        self.assert_nothing_left({1: before})

    def test_socket_may_do_with_it_what_it_may_with_any(self):
        self.host.create(1)
        session = self.begin(1)
        self.assertEqual(self.client.call('guard.retry', session=session)['attempt'], 2)
        with self.assertRaises(RpcError) as caught:
            self.client.hold(1)
        self.assertEqual((caught.exception.code, caught.exception.data['session']), (-32003, session))
        self.client.call('guard.end', session=session, outcome='cancelled')
        self.assertEqual(self.wait_verdict(1, 'abort'), 'abort ended')
        self.finish(1)

    def test_hold_of_an_attempt_that_somebody_else_began_is_not_the_callers(self):
        """The guest may have changed before that, and the caller would never hear of it."""
        self.host.create(1)
        for policy in (' require=gate', ''):
            session = self.begin(1, BEGIN + policy)
            self.assertEqual(self.answer(1, 'verdict', ''), 'proceed unchanged')
            self.client.call('guard.retry', session=session)
            self.assertEqual(self.wait_verdict(1, 'retry'), 'retry not-held-yet')
            self.assertEqual(self.client.call('guard.verdict', session=session)['verdict'], 'proceed')
            self.assertEqual(self.answer(1, 'verdict', ''), 'retry not-held-yet')
            self.answer(1, 'retry', 'freezing', 'held')
            self.wait_verdict(1, 'held')
            self.assertEqual(self.show(session)['attempt'], 3)
            self.assertEqual(self.answer(1, 'verdict', ''), 'proceed unchanged')
            self.finish(1)

    def test_node_removed_by_its_caller_ends(self):
        before = self.host.create(1)
        for request, answers in ((BEGIN, 'held'), ('begin quiet_ms=5000', 'freezing')):
            self.ask(1, request)
            self.wait_verdict(1, answers)
            session = self.node(1, '/session')
            self.host.store.remove(f'{FOLDER}/1')
            wait_until(lambda: self.show(session)['state'] == 'gone', what='gone')
            self.assertEqual(self.show(session)['outcome'], 'cancelled')
            self.assert_nothing_left({1: before})

    def test_folder_removed_with_all_that_is_in_it(self):
        before = self.host.create(1)
        session = self.begin(1, BEGIN)
        self.host.store.remove(FOLDER)
        self.host.machine.set(1, 'tot_pages', 65530)  # there is something to be written, and no node for it
        wait_until(lambda: self.show(session)['state'] == 'gone', what='gone')
        self.host.machine.set(1, 'tot_pages', 65536)
        self.begin(1)
        self.finish(1)
        self.assert_nothing_left({1: before})


class Domains(NodesCase):
    """Domains that come and go, and one that has another's number."""

    def test_destroyed_while_freezing_held_and_over(self):
        for request, answer in (('begin quiet_ms=5000', 'freezing'), (BEGIN, 'held'),
                                (BEGIN + ' max_hold_ms=1000', 'abort deadline')):
            self.host.create(1)
            self.ask(1, request)
            self.wait_verdict(1, answer)
            self.host.destroy(1)
            self.wait_gone(1)
            self.assert_nothing_left({})
            self.assertNotIn('1', self.host.store.list('/local/domain'))

    def test_end_after_the_domain_has_gone(self):
        self.host.create(1)
        self.begin(1)
        self.host.destroy(1)
        self.wait_gone(1)
        self.finish(1, 'completed')
        self.assert_nothing_left({})

    def test_domid_is_used_again(self):
        self.host.create(1)
        first = self.begin(1)
        self.host.destroy(1)
        before = self.host.create(1, uuid=OTHER_UUID, target_kib=131072)
        self.wait_gone(1)
        self.assertEqual(self.host.snapshot(1), before)
        self.assertIn('expected begin', self.answer(1, 'verdict', 'error'))
        second = self.begin(1)
        self.assertNotEqual(first, second)
        self.assertEqual(self.node(1, '/uuid'), OTHER_UUID)
        self.finish(1)
        self.assert_nothing_left({1: before})

    def test_what_was_said_of_a_domain_goes_with_it(self):
        """Errors, and sessions that are over: without a session there is nobody else to see to it."""
        self.host.create(1)
        self.answer(1, 'nonsense', 'error')
        self.host.create(2)
        self.begin(2, BEGIN + ' max_hold_ms=1000')
        self.wait_verdict(2, 'abort')
        self.host.destroy(1)
        self.wait_gone(1)
        self.assertEqual(self.verdict_of(2), 'abort deadline')
        self.host.destroy(2)
        self.wait_gone(2)

    def test_domain_used_again_while_no_daemon_ran(self):
        self.host.create(1)
        self.host.create(2)
        self.host.create(3)
        for domid in (1, 2, 3):
            self.begin(domid)
        self.host.kill_daemon()
        self.host.destroy(1)
        self.host.destroy(2)
        before = self.host.create(1, uuid=OTHER_UUID)
        self.host.start_daemon()
        self.wait_gone(1)
        self.wait_gone(2)
        self.assertEqual(self.wait_verdict(3, 'abort', 'held', 'freezing'), 'abort shutdown')
        self.assertEqual(self.host.snapshot(1), before)
        self.finish(3)


class Ends(NodesCase):
    """The daemon stopped, killed, started again."""

    def test_killed_while_held(self):
        before = self.host.create(1)
        self.begin(1)
        self.answer(1, 'verdict', 'proceed')
        self.host.kill_daemon()
        self.host.start_daemon()
        self.assertEqual(self.verdict_of(1), 'abort shutdown')  # since before the guest was let go
        self.assertEqual(self.host.snapshot(1), before)
        for request in ('retry', 'verdict'):
            self.assertEqual(self.answer(1, request, ''), 'abort shutdown')
        self.begin(1)
        self.finish(1)
        self.assert_nothing_left({1: before})

    def test_asked_while_no_daemon_ran(self):
        before = {domid: self.host.create(domid) for domid in range(1, 6)}
        for domid in (1, 2, 3):
            self.begin(domid)
        self.host.kill_daemon()
        self.write(1, 'verdict')
        self.write(2, 'end completed')
        self.write(3, BEGIN)
        self.write(4, BEGIN)
        self.write(5, 'retry')
        self.host.start_daemon()
        self.assertEqual(self.wait_verdict(1, 'abort', 'held', 'proceed'), 'abort shutdown')
        self.wait_gone(2)
        self.wait_verdict(3, 'held')
        self.wait_verdict(4, 'held')
        self.wait_verdict(5, 'error nothing was begun')
        for domid in (1, 3, 4, 5):
            self.finish(domid)
        self.assert_nothing_left(before)

    def test_killed_at_any_moment(self):
        before = self.host.create(1)
        random.seed(2)
        outcomes = set()
        for turn in range(25):
            self.write(1, BEGIN)
            if turn % 3 == 1:
                self.wait_verdict(1, 'held')
                self.write(1, 'verdict')
            elif turn % 3 == 2:
                self.wait_verdict(1, 'held')
                self.write(1, 'end failed')
            time.sleep(random.uniform(0, 0.02 if turn % 3 else 0.25))  # the moment is what is tried
            self.host.kill_daemon()
            self.host.start_daemon()
            if turn % 3 == 2:
                self.wait_gone(1)
                outcomes.add('gone')
            else:
                verdict = self.wait_verdict(1, 'abort', 'held', 'proceed')
                self.assertIn(verdict, ('abort shutdown', 'held'), f'turn {turn}')
                if turn % 3:
                    self.assertEqual(verdict, 'abort shutdown', f'turn {turn}')
                outcomes.add(verdict)
                self.finish(1)
            self.assertEqual(self.host.journals(), [])
            self.assertEqual(self.host.snapshot(1), before, f'turn {turn}')
        self.assertLessEqual({'gone', 'abort shutdown'}, outcomes)

    def test_stopped_in_good_order(self):
        before = {domid: self.host.create(domid) for domid in (1, 2, 3)}
        for domid in before:
            self.begin(domid)
        self.assertEqual(self.host.stop_daemon(), 0)
        self.assertEqual([self.verdict_of(domid) for domid in before], ['abort shutdown'] * 3)
        self.assertEqual({domid: self.host.snapshot(domid) for domid in before}, before)
        self.host.start_daemon()
        self.assertEqual([self.answer(domid, 'verdict', '') for domid in before], ['abort shutdown'] * 3)
        for domid in before:
            self.finish(domid)
        self.assert_nothing_left(before)

    def test_stopped_with_requests_coming_in(self):
        self.host.create(1)
        over = threading.Event()
        store = Store(self.host.store_path)
        self.addCleanup(store.close)
        def write():
            while not over.is_set():
                store.write(f'{FOLDER}/1', BEGIN)
        writer = threading.Thread(target=write)
        writer.start()
        try:
            self.wait_verdict(1, 'held', 'error')
            self.assertEqual(self.host.stop_daemon(), 0)
        finally:
            over.set()
            writer.join()
        self.assertEqual(self.host.journals(), [])
        self.host.start_daemon()
        self.ask(1, 'end cancelled')
        self.wait_gone(1)


class StoreTrouble(NodesCase):
    """A xenstored that stands still, and one to which the connection is lost."""

    def test_stopped_xenstored(self):
        before = self.host.create(1)
        session = self.begin(1)
        os.kill(self.host.xenstored.pid, signal.SIGSTOP)
        stopped = time.monotonic()
        while time.monotonic() - stopped < 3:
            self.assertEqual(self.show(session)['state'], 'held')
            time.sleep(0.02)
        os.kill(self.host.xenstored.pid, signal.SIGCONT)
        self.assertEqual(self.answer(1, 'verdict', ''), 'proceed unchanged')
        self.finish(1)
        self.assert_nothing_left({1: before})

    def test_stopped_xenstored_and_a_deadline(self):
        before = self.host.create(1)
        session = self.begin(1, BEGIN + ' max_hold_ms=3000')
        os.kill(self.host.xenstored.pid, signal.SIGSTOP)
        wait_until(lambda: self.show(session)['state'] == 'thawing', what='thawing')
        os.kill(self.host.xenstored.pid, signal.SIGCONT)
        self.wait_verdict(1, 'abort deadline')
        self.finish(1)
        self.assert_nothing_left({1: before})

    def test_stopped_xenstored_and_a_killed_daemon(self):
        before = self.host.create(1)
        self.begin(1)
        os.kill(self.host.xenstored.pid, signal.SIGSTOP)
        self.host.kill_daemon()
        self.host.start_daemon(wait=False)
        os.kill(self.host.xenstored.pid, signal.SIGCONT)
        self.assertEqual(self.wait_verdict(1, 'abort'), 'abort shutdown')
        self.finish(1)
        self.assert_nothing_left({1: before})

    def behind_a_proxy(self):
        proxy = self.put_proxy_between()
        self.client.call('events.subscribe')
        return proxy

    def lose(self, proxy):
        proxy.cut()
        self.client.event('store.lost')

    def regain(self, proxy):
        proxy.open()
        self.client.event('store.back')

    def test_connection_lost_while_held(self):
        before = self.host.create(1)
        proxy = self.behind_a_proxy()
        self.begin(1)
        self.lose(proxy)
        self.write(1, 'verdict')
        self.regain(proxy)
        self.watch.wait(lambda: not self.node(1), 40, 'taken')
        self.assertEqual(self.wait_verdict(1, 'proceed', 'retry', 'abort'), 'retry observation-gap')
        self.ask(1, 'retry')
        self.wait_verdict(1, 'held')
        self.finish(1)
        self.assert_nothing_left({1: before})

    def test_what_happens_while_the_connection_is_lost_is_made_up_for(self):
        before = {domid: self.host.create(domid) for domid in (1, 2, 3, 4, 5)}
        proxy = self.behind_a_proxy()
        for domid in (1, 2, 3):
            self.begin(domid, BEGIN + (' max_hold_ms=3000' if domid == 3 else ''))
        self.lose(proxy)
        self.write(1, 'end failed')
        self.host.store.remove(f'{FOLDER}/2')
        self.client.event('session.thawing', domid=3)
        self.write(4, BEGIN)
        self.host.machine.set(5, 'used', 0)
        self.write(5, BEGIN)
        self.regain(proxy)
        self.wait_gone(1)
        self.client.event('session.gone', domid=2)
        self.assertIsNone(self.node(2))
        self.wait_verdict(3, 'abort deadline')
        self.wait_verdict(4, 'held')
        self.wait_verdict(5, 'error there is no domain')
        self.host.machine.set(5, 'used', 1)
        for domid in (3, 4, 5):
            self.finish(domid)
        self.assert_nothing_left(before)

    def test_request_with_which_the_connection_is_lost(self):
        """Whether it was taken before, or not: it is done."""
        before = self.host.create(1)
        proxy = self.behind_a_proxy()
        def ask_and_lose(request, made):
            proxy.lose_commit(1, made)
            self.write(1, request)
            self.client.event('store.back')
        for made in (True, False):
            ask_and_lose(BEGIN, made)
            self.wait_verdict(1, 'held')
            ask_and_lose('verdict', made)
            self.wait_verdict(1, 'proceed', 'retry')  # the store was away
            ask_and_lose('retry', made)
            self.client.event('session.retry')
            self.wait_verdict(1, 'held')
            ask_and_lose('nonsense', made)
            self.wait_verdict(1, 'error')
            ask_and_lose('end failed', made)
            self.wait_gone(1)
            self.assert_nothing_left({1: before})

    def test_connection_lost_again_and_again(self):
        before = self.host.create(1)
        proxy = self.behind_a_proxy()
        random.seed(3)
        for _ in range(8):
            self.write(1, BEGIN)
            time.sleep(random.uniform(0, 0.2))  # the moment is what is tried
            self.lose(proxy)
            self.regain(proxy)
            self.wait_verdict(1, 'held', 'abort', 'retry')
            self.finish(1)
            self.assert_nothing_left({1: before})


class Hostile(NodesCase):
    def try_write(self, path, value):
        """False when xenstored does not take it."""
        try:
            self.host.store.request('WRITE', path, value=value)
        except StoreError as error:
            self.assertIn(str(error), ('E2BIG', 'EINVAL', 'ENOSPC'))
            return False
        return True

    def test_hostile_values(self):
        before = self.host.create(1)
        self.host.create(2)
        random.seed(4)
        longest = 4000 if KIND == 'c' else 2000
        values = [b'\0', b'begin\0', b'\0begin', b' ', b'\n', b'begin\n', b'begin ' * 80, b'x' * 511, b'x' * 512,
                  b'x' * longest, b'begin ' + b'attempts=1 ' * (longest // 11 - 1), bytes(range(256)), b'\xff' * 300,
                  'begin é'.encode(), b'%s%n%s' * 80, b'error held', b'held', b'end completed\0', b'end ' + b'\xff' * 400]
        values += [random.randbytes(random.randrange(1, longest)) for _ in range(40)]
        for domid, session in ((1, None), (2, self.begin(2))):
            for value in values:
                self.assertTrue(self.try_write(f'{FOLDER}/{domid}', value), value[:20])
                self.watch.wait(lambda: not self.node(domid), 40, f'{value[:40]} taken')
                text = self.wait_verdict(domid, 'error')
                self.assertLess(len(text), 256)
                self.assertTrue(text.isascii() and text.isprintable(), text)
                self.assertIn('expected', text)
        if KIND != 'c':
            self.assertFalse(self.try_write(f'{FOLDER}/1', b'x' * 3000))
        self.assertEqual(self.host.snapshot(1), before)
        self.assert_held(2)
        self.assertEqual(self.answer(2, 'verdict', ''), 'proceed unchanged')
        self.finish(1)
        self.finish(2)

    def test_nodes_that_are_none(self):
        """Whatever is there, and however deep: nothing is answered, and nothing else is disturbed."""
        self.host.create(7)
        names = ('abc', '65536', '-1', '007', '7x', '70000', '18446744073709551623', '4294967303', 'x' * 200,
                 'a/b/c', '7/verdict/deep/er', '7/other', '0x7', '7/7')
        for name in names:
            self.assertTrue(self.try_write(f'{FOLDER}/{name}', b'begin'), name)
        self.begin(7)
        self.host.kill_daemon()
        self.host.start_daemon()  # which lists them
        self.wait_verdict(7, 'abort shutdown')
        for name in names:
            if not name.startswith('7/'):
                self.assertIsNone(self.node(name.split('/')[0], '/verdict'), name)
        self.assertEqual(self.client_is_fine(), 0)
        self.finish(7)
        for name in names:
            self.host.store.remove(f'{FOLDER}/{name}')

    def client_is_fine(self):
        return len(self.host.client().call('guard.list')['sessions'])

    def test_highest_domid(self):
        self.assertIn('there is no domain 65535', self.answer(65535, 'begin', 'error'))
        self.finish(65535)

    def test_answer_written_by_somebody_else_is_nobodys(self):
        self.host.create(1)
        self.begin(1)
        self.host.store.write(f'{FOLDER}/1/verdict', 'proceed unchanged')
        self.host.store.remove(f'{FOLDER}/1/session')
        self.host.machine.set(1, 'tot_pages', 65530)
        self.wait_verdict(1, 'retry tot-pages-changed')
        self.finish(1)

    def test_node_that_a_guest_may_write_is_closed_and_its_request_refused(self):
        before = self.host.create(1)
        self.host.store.write(f'{FOLDER}/1', '')
        for perms in ('n0,b1', 'n1', 'b0', 'n0,r1'):
            self.host.store.set_perms(f'{FOLDER}/1', perms)
            self.assertIn('permissions', self.answer(1, 'begin', 'error'))
            for leaf in ('', '/verdict'):
                self.assertEqual(self.host.store.perms(f'{FOLDER}/1{leaf}'), 'n0')
        self.assertEqual(self.host.snapshot(1), before)
        self.begin(1)
        self.finish(1)

    def memory_kib(self):
        with open(f'/proc/{self.host.daemon.pid}/status', encoding='ascii') as status:
            return next(int(line.split()[1]) for line in status if line.startswith('VmRSS'))

    def test_flood_of_nodes(self):
        before = self.host.create(1)
        session = self.begin(1)
        rss_kib = self.memory_kib()
        domids = range(1000, 6000)
        times = []
        started = time.monotonic()
        for domid in domids:
            self.write(domid, 'begin')
            if domid % 50 == 0:
                asked = time.monotonic()
                self.client.call('guard.list')
                times.append(time.monotonic() - asked)
        self.assertEqual(self.answer(1, 'verdict', ''), 'proceed unchanged')
        print(f'# 5000 nodes: {time.monotonic() - started:.1f} s until another was answered, guard.list took at most '
              f'{max(times) * 1000:.1f} ms, {self.memory_kib() - rss_kib} KiB more', flush=True)
        self.assertLess(sorted(times)[len(times) // 2], 0.1)
        self.assertLess(self.memory_kib() - rss_kib, 65536)
        self.wait_flood_gone(domids)
        self.assertEqual(self.show(session)['state'], 'held')
        self.finish(1)
        self.assert_nothing_left({1: before})

    def wait_flood_gone(self, domids):
        """More nodes than xenstored lists at once."""
        left = set(domids)
        def gone():
            left.difference_update([domid for domid in left if self.node(domid) is None])
            return not left
        wait_until(gone, 120, 'the flood gone')

    def test_more_nodes_than_can_be_listed_at_the_start(self):
        before = self.host.create(1)
        last = 65535
        self.begin(1)
        self.host.kill_daemon()
        domids = [*range(1000, 3000), last]
        for domid in domids:
            self.write(domid, 'begin')
        self.host.start_daemon()
        self.assertEqual(self.wait_verdict(1, 'abort'), 'abort shutdown')
        wait_until(lambda: self.verdict_of(last), 40, 'an answer to the last')
        self.assertIn('there is no domain', self.verdict_of(last))
        self.ask(1, 'verdict')
        self.assertEqual(self.wait_verdict(1, 'abort', 'error'), 'abort shutdown')
        self.wait_flood_gone(domids)
        self.finish(1)
        self.assert_nothing_left({1: before})

    def test_flood_at_one_node(self):
        before = self.host.create(1)
        self.begin(1)
        rss_kib = self.memory_kib()
        for i in range(5000):
            self.write(1, 'verdict' if i % 2 else f'nonsense {i}')
        self.assertEqual(self.answer(1, 'verdict', ''), 'proceed unchanged')
        self.assertLess(self.memory_kib() - rss_kib, 16384)
        self.finish(1)
        self.assert_nothing_left({1: before})


class Writers(NodesCase):
    def test_two_writes_in_a_row(self):
        """Each pair of requests, the second without a look at what has become of the first."""
        before = self.host.create(1)
        requests = (BEGIN, 'retry', 'verdict', 'end failed', 'nonsense')
        for first in requests:
            for second in requests:
                for held in (False, True):
                    if held:
                        self.begin(1)
                    self.write(1, first)
                    self.write(1, second)
                    self.watch.wait(lambda: not self.node(1), 40, f'"{first}", "{second}" taken')
                    self.watch.wait(lambda: self.verdict_of(1) != 'freezing', 40, 'not freezing')
                    self.finish(1)
                    self.assert_nothing_left({1: before})

    def test_begin_while_the_session_before_thaws(self):
        self.host.create(1)
        first = self.begin(1)
        for _ in range(20):
            self.write(1, 'end failed')
            wait_until(lambda: (self.verdict_of(1) or 'abort').startswith('abort'), what='thawing')
            second = self.begin(1)
            self.assertNotEqual(second, first)
            self.assertEqual(self.show(first)['outcome'], 'failed')
            first = second
        self.finish(1)

    def test_second_begin_is_refused_and_the_first_goes_on(self):
        self.host.create(1)
        session = self.begin(1)
        self.assertIn(session, self.answer(1, BEGIN, 'error'))
        self.assertEqual(self.node(1, '/session'), session)
        self.assertEqual(self.answer(1, 'verdict', ''), 'proceed unchanged')
        self.finish(1)

    def test_many_writers_at_once(self):
        before = {domid: self.host.create(domid) for domid in (1, 2)}
        errors = []
        def write(seed):
            chance = random.Random(seed)
            store = Store(self.host.store_path)
            try:
                for _ in range(300):
                    path = f'{FOLDER}/{chance.choice((1, 2))}'
                    if chance.random() < 0.05:
                        store.remove(path)
                    else:
                        store.write(path, chance.choice((BEGIN, BEGIN + ' attempts=50', 'retry', 'verdict', 'end failed',
                                                         'end completed', 'nonsense', '')))
                    time.sleep(chance.uniform(0, 0.02))  # the moment is what is tried
            except (OSError, StoreError) as error:
                errors.append(error)
            finally:
                store.close()
        writers = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        self.assertEqual(errors, [])
        for domid in before:
            self.finish(domid)
        self.assert_nothing_left(before)
        self.assertEqual(self.client.call('guard.list')['sessions'], [])
        self.begin(1)
        self.finish(1)


class Switch(unittest.TestCase):
    def host_with(self, value):
        host = Host(f'[daemon]\nxenstore_callers = {value}\n')
        self.addCleanup(host.stop)
        return host

    def test_off(self):
        host = self.host_with('no')
        host.create(1)
        self.assertNotIn('migrate', host.store.list('/tool/p2mguard'))
        host.store.write(f'{FOLDER}/1', 'begin')
        client = host.client()
        client.hold(1)  # as ever, and jobs of that are done after what an event would have caused
        self.assertEqual(host.store.read(f'{FOLDER}/1'), 'begin')
        host.kill_daemon()
        host.start_daemon()
        wait_until(lambda: 'migrate' not in host.store.list('/tool/p2mguard'), what='the folder removed')

    def test_on(self):
        host = self.host_with('yes')
        wait_until(lambda: 'migrate' in host.store.list('/tool/p2mguard'), what='the folder')
        self.assertEqual(host.store.perms(FOLDER), 'n0')

    def test_neither(self):
        host = self.host_with('yes')
        host.stop_daemon()
        host.configuration = '[daemon]\nxenstore_callers = maybe\n'
        host.start_daemon(wait=False)
        self.assertEqual(host.daemon.wait(20), 2)
        self.assertIn("xenstore_callers is 'maybe', expected yes or no", host.log_tail())


def shell_example():
    """The script of the manual page, as it stands there."""
    with open(MANUAL, encoding='utf-8') as file:
        text = file.read()
    script = text[text.index('#!/bin/sh\n'):]
    return script[:script.index('.Ed\n')]


class Shell(NodesCase):
    configuration = PATIENT + '[policy]\nquiet_ms = 50\nsettle_ms = 100\n'

    def setUp(self):
        super().setUp()
        self.script = self.host.folder + '/guarded'
        with open(self.script, 'w', encoding='utf-8') as file:
            file.write(shell_example())
        self.host.environment['log'] = self.host.folder + '/commands'

    def start(self, shell, domid, command):
        return subprocess.Popen([*shell, self.script, str(domid), 'sh', '-c', command], env=self.host.environment,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                start_new_session=True)

    def run_it(self, shell, domid, command):
        process = self.start(shell, domid, command)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def commands(self):
        path = self.host.environment['log']
        if not os.path.exists(path):
            return []
        with open(path, encoding='utf-8') as file:
            return file.read().split()

    def test_example(self):
        before = self.host.create(1)
        for shell in (('busybox', 'sh'), ('dash',), ('bash', '--posix')):
            with self.subTest(shell=shell):
                status, out, err = self.run_it(shell, 1, 'xenstore-read /tool/p2mguard/migrate/1/session')
                self.assertEqual((status, err), (0, ''))
                session = self.show(out.strip())
                self.assertEqual((session['state'], session['outcome']), ('gone', 'completed'))
                self.assert_nothing_left({1: before})

    def test_command_that_fails_because_the_guest_has_changed_is_run_again(self):
        before = self.host.create(1)
        process = self.start(('busybox', 'sh'), 1, 'echo run >>$log; [ $(wc -l <$log) = 2 ] && exit 0; '
                             'until xenstore-read /tool/p2mguard/migrate/1/verdict | grep -q retry; do sleep 0.1; done; '
                             'exit 1')
        wait_until(lambda: self.commands() == ['run'], 40, 'the first attempt')
        self.host.machine.set(1, 'tot_pages', 65530)
        self.wait_verdict(1, 'retry')
        self.host.machine.set(1, 'tot_pages', 65536)
        _, err = process.communicate(timeout=60)
        self.assertEqual((process.returncode, err), (0, ''))
        self.assertEqual(self.commands(), ['run', 'run'])
        self.assert_nothing_left({1: before})

    def test_domain_that_its_migration_destroys(self):
        """As xl does it: renamed, then destroyed, before the command ends."""
        self.host.create(1)
        process = self.start(('busybox', 'sh'), 1, 'xenstore-write /local/domain/1/name guest1--migratedaway; echo run '
                             '>>$log; while xenstore-read /local/domain/1/domid >/dev/null 2>&1; do sleep 0.1; done')
        wait_until(lambda: self.commands() == ['run'], 40, 'the domain renamed')
        session = self.node(1, '/session')
        self.ask(1, 'verdict')  # taken after the event of the new name
        self.wait_verdict(1, 'proceed')
        self.host.destroy(1)
        _, err = process.communicate(timeout=60)
        self.assertEqual((process.returncode, err), (0, ''))
        self.assertEqual((self.show(session)['outcome'], self.show(session)['reason']), ('completed', 'domain-renamed'))
        self.assert_nothing_left({})

    def test_command_that_fails_for_itself_is_not(self):
        before = self.host.create(1)
        status, _, err = self.run_it(('busybox', 'sh'), 1, 'echo run >>$log; exit 3')
        self.assertEqual((status, err), (1, 'not migrated: the command failed\n'))
        self.assertEqual(self.commands(), ['run'])
        self.assert_nothing_left({1: before})

    def test_guest_of_somebody_else(self):
        self.host.create(1)
        session = self.client.hold(1)
        status, _, err = self.run_it(('busybox', 'sh'), 1, 'echo run >>$log')
        self.assertEqual((status, self.commands()), (1, []))
        self.assertIn(session['session'], err)
        self.assertIsNone(self.node(1))
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')

    def test_no_such_domain(self):
        status, _, err = self.run_it(('busybox', 'sh'), 9, 'echo run >>$log')
        self.assertEqual((status, self.commands()), (1, []))
        self.assertIn('there is no domain 9', err)
        self.assertIsNone(self.node(9))

    def test_domain_gone_while_it_waits(self):
        self.host.create(1, mode='stubborn')
        process = self.start(('busybox', 'sh'), 1, 'echo run >>$log')
        self.wait_verdict(1, 'freezing')
        self.host.destroy(1)
        _, err = process.communicate(timeout=60)
        self.assertEqual((process.returncode, self.commands()), (1, []))
        self.assertIn('domain-gone', err)
        self.assert_nothing_left({})

    def test_interrupted(self):
        before = self.host.create(1)
        process = self.start(('busybox', 'sh'), 1, 'echo run >>$log; exec sleep 60')
        wait_until(lambda: self.commands() == ['run'], 40, 'the command')
        session = self.node(1, '/session')
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 1)
        self.assertEqual(self.show(session)['outcome'], 'cancelled')
        self.assert_nothing_left({1: before})


if __name__ == '__main__':
    unittest.main()
