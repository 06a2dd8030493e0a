# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clients that vanish, domains that die, a daemon that is killed, a xenstored that stops."""
import os
import random
import signal
import threading
import time
import unittest

from fixture import QUICK, SESSIONS, RpcError, wait_until
from test_asking import FEATURES, Agent
from test_guard import GuardCase


class Trouble(GuardCase):
    def wait_thawed(self, domid, before):
        wait_until(lambda: not self.host.journals(), 40, 'the journal gone')
        self.assertEqual(self.host.snapshot(domid), before)

    def test_closed_connection_thaws(self):
        before = self.host.create(1)
        other = self.host.client()
        session = other.hold(1)
        other.close()
        self.wait_thawed(1, before)
        self.assertEqual(self.client.call('guard.show', session=session['session'])['reason'], 'client-gone')

    def test_connection_closed_while_freezing_thaws(self):
        before = self.host.create(1)
        self.client.call('events.subscribe')
        other = self.host.client()
        other.send('guard.begin', domain=1, wait=True)
        self.client.event('session.pinned')
        other.close()
        self.client.event('session.gone')
        self.wait_thawed(1, before)

    def test_detached_session_outlives_its_client_until_the_deadline(self):
        before = self.host.create(1)
        self.client.call('events.subscribe')
        other = self.host.client()
        other.hold(1, hold='detached', policy={'max_hold_ms': 1500})
        other.close()
        self.assertEqual(self.client.event('session.thawing')['reason'], 'deadline')
        self.client.event('session.gone')
        self.wait_thawed(1, before)

    def test_retry_that_nobody_follows_up_thaws_after_its_grace(self):
        before = self.host.create(1)
        self.client.call('events.subscribe')
        session = self.client.hold(1, policy={'retry_grace_ms': 300})
        self.host.machine.set(1, 'tot_pages', 65530)
        self.assertEqual(self.verdict(session)['verdict'], 'retry')
        self.host.machine.set(1, 'tot_pages', 65536)
        self.assertEqual(self.client.event('session.gone')['reason'], 'grace-expired')
        self.wait_thawed(1, before)

    def test_domain_destroyed_while_held(self):
        self.host.create(1)
        session = self.client.hold(1)
        self.client.call('events.subscribe')
        self.host.destroy(1)
        self.assertEqual(self.client.event('session.gone')['reason'], 'domain-gone')
        self.assertEqual(self.host.journals(), [])
        self.assertNotIn('1', self.host.store.list('/local/domain'))
        verdict = self.verdict(session)
        self.assertEqual((verdict['verdict'], verdict['reason']), ('abort', 'domain-gone'))

    def test_more_journals_than_oxenstored_can_list(self):
        before = self.host.create(1)
        self.client.hold(1)
        self.host.kill_daemon()
        others = range(20000, 21000)
        for domid in others:
            self.host.store.write(f'/tool/p2mguard/session/{domid}', '')
        self.host.start_daemon()
        self.client = self.host.client()
        self.assertEqual(self.host.snapshot(1), before)
        self.assertEqual(self.host.journals(), [])
        self.assertEqual(self.client.hold(1)['state'], 'held')

    def test_domain_destroyed_while_freezing(self):
        self.client.call('events.subscribe')
        for step in ('session.begun', 'session.gated', 'session.pinned', 'session.quiet'):
            self.host.create(1)
            self.client.send('guard.begin', domain=1, policy={'settle_ms': 400})
            self.client.event(step)
            self.host.destroy(1)
            self.assertEqual(self.client.event('session.gone')['reason'], 'domain-gone')
            self.assertEqual(self.host.journals(), [])
            self.assertNotIn('1', self.host.store.list('/local/domain'))

    def test_rename_ends_the_session(self):
        before = self.host.create(1, name='u')
        self.client.call('events.subscribe')
        for name, outcome in (('u--migratedaway', 'completed'), ('v', 'unknown')):
            self.host.store.write('/local/domain/1/name', 'u')
            self.client.hold(1)
            self.host.store.write('/local/domain/1/name', name)
            gone = self.client.event('session.gone')
            self.assertEqual((gone['reason'], gone['outcome']), ('domain-renamed', outcome))
            self.wait_thawed(1, before)

    def test_nodes_of_a_domain_that_the_guest_has_left_go_before_it(self):
        """As libxl takes a domain apart after every migration: nothing to warn of."""
        self.host.create(1, name='u')
        self.client.hold(1)
        self.client.call('events.subscribe')
        self.host.store.write('/local/domain/1/name', 'u--migratedaway')
        wait_until(lambda: 'the guest has left its domain' in self.host.log_tail(10000), what='the name read')
        self.host.store.remove('/local/domain/1')
        wait_until(lambda: 'look_later in held' in self.host.log_tail(10000), what='a look that has found nothing')
        self.host.destroy(1)
        gone = self.client.event('session.gone')
        self.assertEqual((gone['reason'], gone['outcome']), ('domain-renamed', 'completed'))
        self.assertNotIn('warning', self.host.log_tail(10000))
        self.assertEqual(self.host.journals(), [])

    def test_rename_there_and_back_goes_on(self):
        self.host.create(1, name='u')
        session = self.client.hold(1)
        self.client.call('events.subscribe')
        self.host.store.write('/local/domain/1/name', 'u--migratedaway')
        self.host.store.write('/local/domain/1/name', 'u')
        with self.assertRaises(TimeoutError):
            self.client.event('session.thawing', timeout=4)
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')
        self.assertEqual(self.end(session)['outcome'], 'failed')

    def test_killed_while_held(self):
        self.host.create(1)
        self.client.hold(1, hold='detached')
        self.client.call('events.subscribe')
        self.host.mem_set(1, 300000)
        self.client.event('target.deferred')
        self.host.kill_daemon()
        self.host.mem_set(1, 310000)  # while nobody is there: the latest of all
        self.host.start_daemon(wait=False)
        started = time.monotonic()
        wait_until(lambda: self.host.snapshot(1)['nodes']['target'] == 'n0,r1', 40, 'the gate open')
        opened = time.monotonic() - started
        self.host.wait_rest(1, 310000)
        self.assertLess(opened, 1)
        self.assertEqual(self.host.snapshot(1)['max_pages'], 310000 // 4 + 256)
        self.assertEqual(self.host.journals(), [])
        print(f'# restored {opened * 1000:.0f} ms after the start', flush=True)

    def test_killed_at_any_moment(self):
        """Under a storm, so that every moment has something to lose."""
        self.host.create(1)
        random.seed(1)
        for turn in range(25):
            wanted = self.kill_in_storm(turn)
            self.host.start_daemon()
            self.assert_wanted(wanted, turn)
            self.host.wait_rest(1, wanted)

    def test_journal_of_a_domain_whose_domid_was_given_to_another(self):
        self.host.create(1)
        self.client.hold(1, hold='detached')
        self.host.kill_daemon()
        self.host.destroy(1)
        before = self.host.create(1, uuid='ffffffff-0000-4000-8000-000000000001', target_kib=131072)
        self.host.start_daemon()
        self.wait_thawed(1, before)

    def test_journal_that_cannot_be_read_is_left_and_told_of(self):
        self.host.kill_daemon()
        self.host.store.write(SESSIONS + '/9/restore', 'from the future')
        self.host.start_daemon()
        self.assertEqual(self.host.store.read(SESSIONS + '/9/restore'), 'from the future')
        self.assertIn('domain 9', self.host.log_tail())
        # Nor is it written over: it may know what its guest's permissions were.
        before, client = self.host.create(9), self.host.client()
        with self.assertRaises(RpcError) as caught:
            client.hold(9)
        self.assertEqual(caught.exception.data['reason'], 'error')
        self.assertEqual(self.host.store.read(SESSIONS + '/9/restore'), 'from the future')
        self.assertEqual(self.host.snapshot(9), before)

    def test_stopped_xenstored(self):
        self.host.create(1)
        session = self.client.hold(1)
        os.kill(self.host.xenstored.pid, signal.SIGSTOP)
        stopped = time.monotonic()
        number = self.client.send('guard.verdict', session=session['session'])
        listing = self.client.send('domain.list')
        slowest = 0
        while time.monotonic() - stopped < 5:
            asked = time.monotonic()
            self.assertEqual(len(self.client.call('guard.list')['sessions']), 1)
            slowest = max(slowest, time.monotonic() - asked)
            time.sleep(0.02)
        verdict = self.client.reply(number)
        self.assertEqual((verdict['verdict'], verdict['reason']), ('retry', 'store-unreachable'))
        with self.assertRaises(Exception) as caught:
            self.client.reply(listing)
        self.assertEqual(caught.exception.code, -32006)
        self.assertEqual(self.client.call('daemon.info')['store'], 'stalled')
        os.kill(self.host.xenstored.pid, signal.SIGCONT)
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')
        self.assertLess(slowest, 0.5)
        print(f'# xenstored stopped for 5 s: guard.list took at most {slowest * 1000:.2f} ms', flush=True)

    def hold_and_lose(self, proxy, number, made):
        """A session in which the connection is lost with one of its commits; False when it had fewer commits."""
        proxy.lose_commit(number, made)
        begin = self.client.send('guard.begin', domain=1, wait=True, policy=dict(QUICK, require='agent'))
        try:
            session = self.client.reply(begin)
            self.host.store.write('/local/domain/1/memory/target', '300000')
            self.verdict(session, phase='precopy')
            self.end(session)
        except RpcError as error:  # it may have failed, for the store was away
            self.assertIn(error.code, (-32004, -32005, -32006, -32007))
        if proxy.lost.is_set():
            self.client.event('store.back')
        wait_until(lambda: not self.host.journals(), 40, f'the journal gone, with commit {number} lost')
        wait_until(lambda: not self.client.call('guard.list')['sessions'], what='the session gone')
        return proxy.lost.is_set()

    def test_connection_of_the_watches_is_lost(self):
        """Requests are still answered: no verdict may rest on that, from the very moment on."""
        self.host.create(1)
        proxy = self.put_proxy_between()
        self.client.call('events.subscribe')
        for _ in range(5):
            session = self.client.hold(1)
            self.assertEqual(self.verdict(session)['verdict'], 'proceed')
            self.assertGreaterEqual(proxy.cut_one(watching=True), 1)
            verdict = self.verdict(session)
            self.assertEqual(verdict['verdict'], 'retry', verdict)
            self.assertIn(verdict['reason'], ('store-unreachable', 'observation-gap'))
            self.host.mem_set(1, 300000)  # nobody is told
            self.client.event('store.back')
            wait_until(lambda: self.host.target(1) != '300000', what='the pin put back')
            self.client.call('guard.retry', session=session['session'])
            self.assertEqual(self.verdict(session)['verdict'], 'proceed')
            self.end(session)
            self.assertEqual(self.host.target(1), '300000')
            self.host.mem_set(1, 262144)

    def test_connection_of_the_requests_is_lost(self):
        self.host.create(1)
        proxy = self.put_proxy_between()
        self.client.call('events.subscribe')
        for _ in range(5):
            session = self.client.hold(1)
            self.assertGreaterEqual(proxy.cut_one(watching=False), 1)
            self.assertEqual(self.verdict(session)['verdict'], 'retry')
            self.client.event('store.back')
            self.client.call('guard.retry', session=session['session'])
            self.assertEqual(self.verdict(session)['verdict'], 'proceed')
            self.end(session)

    def test_commit_whose_answer_is_lost(self):
        """Whether xenstored has made it the daemon cannot know: what it wrote is not taken for somebody's wish."""
        before = self.host.create(1, mode='deaf')
        self.host.machine.set(1, 'tot_pages', 65000)  # on its way to its target: the pin is another number
        self.host.machine.set(1, 'max_pages', before['max_pages'])
        proxy = self.put_proxy_between()
        self.client.call('events.subscribe')
        agent = Agent(self.host, 1)
        self.addCleanup(agent.stop)
        for made in (True, False):
            number = 1
            while self.hold_and_lose(proxy, number, made):
                case = f'commit {number}, made {made}'
                self.assertEqual(self.host.snapshot(1), {**before, 'target': self.host.target(1)}, case)
                self.assertIn(self.host.target(1), ('262144', '300000'), case)
                self.assertIsNone(agent.request(), case)
                self.host.store.write('/local/domain/1/memory/target', '262144')
                number += 1
            self.host.store.write('/local/domain/1/memory/target', '262144')
            self.assertGreater(number, 5)
            print(f'# {number - 1} commits lost', flush=True)

    def test_domid_that_is_used_again_before_any_change(self):
        """Another guest, alike and of the same number: nothing of what was meant for the one before may reach it."""
        proxy = self.put_proxy_between()
        number, change, fresh = 1, 1, None
        def replace(_path):
            nonlocal change, fresh
            if change == number:
                self.host.destroy(1)
                fresh = self.host.create(1, uuid='22222222-0000-4000-8000-000000000000')
            change += 1
        while change >= number:
            self.host.create(1, mode='deaf')
            self.host.machine.set(1, 'tot_pages', 65000)
            change, fresh = 1, None
            proxy.before_change = replace
            try:
                session = self.client.hold(1)
                self.host.mem_set(1, 300000)
                self.verdict(session)
                self.end(session)
            except RpcError as error:
                self.assertIn(error.code, (-32001, -32004, -32005))
            wait_until(lambda: not self.host.journals() and not self.client.call('guard.list')['sessions'], 10,
                       f'the session gone, its guest being replaced before change {number}')
            proxy.before_change = lambda path: None
            if fresh:
                self.assertEqual(self.host.snapshot(1), fresh if self.host.target(1) == '262144' else
                                 {**fresh, 'target': '300000', 'max_pages': 75256}, f'change {number}')
            self.host.destroy(1)
            number += 1
        self.assertGreater(number, 10)
        print(f'# replaced before each of {number - 2} changes', flush=True)

    def replace_the_new_domain(self, proxy, path):
        """Domain 2 is another one, alike, before this node is first changed; what that was at its beginning."""
        fresh, made = [], threading.Event()
        def replace(changed):
            if changed == path and not fresh and made.wait(10):
                self.host.destroy(2)
                fresh.append(self.host.create(2, uuid='22222222-0000-4000-8000-000000000000', guest=False))
        proxy.before_change = replace
        return fresh, made

    def test_new_domain_whose_number_is_used_again_while_the_target_is_passed_on(self):
        """By the next daemon: the new domain is not marked then, and any target of the pin's number is taken for it."""
        proxy = self.put_proxy_between()
        for path in (SESSIONS + '/1/raise', '/local/domain/2/memory/target'):
            self.hold_with_a_wish()
            self.host.kill_daemon()
            self.host.create(2, name='u', uuid=self.host.domains[1], guest=False)
            self.host.destroy(1)
            fresh, made = self.replace_the_new_domain(proxy, path)
            made.set()
            self.host.start_daemon()
            wait_until(lambda: not self.host.journals(), what='the journal gone')
            self.assertEqual([self.host.snapshot(2)], fresh, path)
            self.host.destroy(2)
            self.client = self.host.client()

    def test_new_domain_whose_number_is_used_again_while_it_is_marked(self):
        proxy = self.put_proxy_between()
        for path in (SESSIONS + '/1/heir', '/local/domain/2/memory/target'):
            session = self.hold_with_a_wish()
            fresh, made = self.replace_the_new_domain(proxy, path)
            self.host.create(2, name='u--incoming', uuid=self.host.domains[1], guest=False)
            made.set()
            wait_until(lambda: fresh, what='a change')
            self.end(session)
            self.assertEqual([self.host.snapshot(2)], fresh, path)
            self.assertEqual(self.host.target(1), '300000')
            self.host.destroy(2)
            self.host.destroy(1)

    def test_target_of_another_guest_is_not_passed_on(self):
        """The domain's number is used again between a look at it and the reading of its target."""
        proxy = self.put_proxy_between()
        session, fresh = self.hold_with_a_wish(), []
        self.host.create(2, name='u--incoming', uuid=self.host.domains[1])
        wait_until(lambda: self.host.target(2).startswith('0'), what='the mark')
        def replace(path):
            if path == '/local/domain/1/memory' and not fresh:
                self.host.destroy(1)
                fresh.append(self.host.create(1, target_kib=222220, uuid='22222222-0000-4000-8000-000000000000'))
        proxy.before_change = replace
        self.end(session, 'completed')
        self.assertEqual([self.host.snapshot(1)], fresh)
        self.assertEqual(self.host.target(2), '300000')

    def test_domid_that_is_used_again_before_its_agent_is_asked(self):
        self.host.create(1)
        proxy = self.put_proxy_between()
        self.host.store.write('/local/domain/1/data/p2mguard/features', FEATURES)
        replaced = []
        def replace(path):
            if path == '/local/domain/1/control/p2mguard' and not replaced:
                self.host.destroy(1)
                replaced.append(self.host.create(1, uuid='22222222-0000-4000-8000-000000000000'))
                self.host.store.write('/local/domain/1/data/p2mguard/features', FEATURES)
        proxy.before_change = replace
        with self.assertRaises(RpcError):
            self.client.hold(1, policy=dict(QUICK, require='agent'))
        wait_until(lambda: not self.host.journals() and not self.client.call('guard.list')['sessions'],
                   what='the session gone')
        self.assertIsNone(self.host.store.read_or_none('/local/domain/1/control/p2mguard'))
        self.assertEqual([self.host.snapshot(1)], replaced)

    def test_pin_goes_back_before_anything_else_is_done(self):
        """Whoever reads the target meanwhile, a toolstack that begins a migration, takes it for the guest's size."""
        before = self.host.create(1)
        proxy = self.put_proxy_between()
        session = self.client.hold(1)
        self.client.call('events.subscribe')
        written = []
        proxy.before_change = written.append
        self.host.mem_set(1, 200000)  # sets max_pages as well
        self.client.event('target.deferred', target_kib=200000)
        journal, before_it = SESSIONS + '/1/restore', written[:written.index('/local/domain/1/memory/target')]
        # One more when max_pages was looked at before the target was there.
        self.assertIn(before_it, ([journal], [journal, journal]))
        self.end(session)
        self.assertEqual(self.host.snapshot(1), {**before, 'target': '200000', 'max_pages': 50256})

    def test_max_pages_that_is_set_while_the_journal_is_written(self):
        before = self.host.create(1)
        proxy = self.put_proxy_between()
        session = self.client.hold(1)
        def set_once(path):
            if path.endswith('/restore'):
                proxy.before_change = lambda path: None
                self.host.machine.set(1, 'max_pages', 99999)
        proxy.before_change = set_once
        self.client.call('events.subscribe')
        self.host.mem_set(1, 262140)
        self.client.event('cap.restored', max_kib=399996)
        self.assertEqual(self.host.machine.get(1, 'max_pages'), self.host.tot_pages(1))
        self.end(session)
        self.assertEqual(self.host.snapshot(1), {**before, 'target': '262140', 'max_pages': 99999})

    def test_wish_that_is_taken_back_before_the_first_pin(self):
        """Written, seen, and written back to what it was: the latest wish is the first one."""
        before = self.host.create(1, mode='deaf')
        self.host.machine.set(1, 'tot_pages', 65000)  # not at rest: the gate is closed first, and the pin comes later
        proxy = self.put_proxy_between()
        wishes = ['300000', '262144']
        def write(_path):
            self.host.store.write('/local/domain/1/memory/target', wishes.pop(0))
        def ask(path):
            if len(wishes) == 2 and path == '/local/domain/1/memory/target' and self.host.journals():
                write(path)
        def take_back(path):  # which makes the transaction with the pin begin anew
            if len(wishes) == 1 and path == SESSIONS + '/1/restore':
                write(path)
        proxy.before_read, proxy.before_change = ask, take_back
        begin = self.client.send('guard.begin', domain=1, wait=True, policy=QUICK)
        wait_until(lambda: not wishes, what='both wishes written')
        wait_until(lambda: self.host.target(1).startswith('0'), what='the pin')
        self.host.stop_daemon()
        with self.assertRaises((RpcError, OSError, EOFError)):
            self.client.reply(begin)
        self.assertEqual(self.host.snapshot(1), before)

    def test_max_pages_is_not_lost_with_the_journal(self):
        """The journal was not written, for the connection was lost: it is written before max_pages is changed."""
        before = self.host.create(1)
        proxy = self.put_proxy_between()
        self.client.hold(1, hold='detached')
        self.client.call('events.subscribe')
        proxy.write_to_lose = SESSIONS + '/1/restore'
        self.host.machine.set(1, 'max_pages', 99999)
        self.assertTrue(proxy.lost.wait(10))
        self.client.event('store.back')
        wait_until(lambda: self.host.machine.get(1, 'max_pages') == self.host.tot_pages(1), what='the cap')
        self.host.kill_daemon()
        self.host.start_daemon()
        wait_until(lambda: not self.host.journals(), what='the journal gone')
        self.assertEqual(self.host.snapshot(1), {**before, 'max_pages': 99999})

    def test_connection_lost_while_the_target_is_passed_on(self):
        proxy = self.put_proxy_between()
        for made in (True, False):
            number, lost = 1, True
            while lost:
                self.host.create(1, name='u')
                session = self.client.hold(1)
                self.host.mem_set(1, 310000)
                wait_until(lambda: self.host.target(1).startswith('0'), what='the pin')
                self.host.create(2, name='u--incoming', uuid=self.host.domains[1])
                wait_until(lambda: self.host.target(2).startswith('0'), what='the mark')
                proxy.lose_commit(number, made)  # the daemon sees by itself that the domain is gone
                self.host.destroy(1)
                self.end(session, 'completed')
                wait_until(lambda: not self.host.journals(), what='the journal gone')
                self.assertEqual(self.host.target(2), '310000', f'commit {number}, made {made}')
                lost = proxy.lost.is_set()
                proxy.lose_commit(0)
                self.host.destroy(2)
                number += 1
            self.assertGreater(number, 2)

    def test_sigterm_thaws_everything(self):
        before = {domid: self.host.create(domid) for domid in (1, 2, 3)}
        for domid in before:
            self.client.hold(domid, hold='detached')
        self.assertEqual(self.host.stop_daemon(), 0)
        self.assertEqual({domid: self.host.snapshot(domid) for domid in before}, before)
        self.assertEqual(self.host.journals(), [])
        self.assertFalse(os.path.exists(self.host.control))

    def test_start_waits_for_xenstored(self):
        self.host.stop_daemon()
        self.host.environment['XENSTORED_PATH'] = self.host.folder + '/later'
        self.host.start_daemon(wait=False)
        wait_until(lambda: os.path.exists(self.host.log_path), what='a log')
        self.assertIsNone(self.host.daemon.poll())
        os.link(self.host.store_path, self.host.folder + '/later')
        wait_until(self.host._daemon_answers, 40, 'the daemon')


if __name__ == '__main__':
    unittest.main()
