# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a session does to a guest, and that all of it is put back."""
import random
import time
import unittest

from fixture import HVM, QUICK, SHUTDOWN, SUSPENDED, Host, RpcError, wait_until
from proxy import Proxy


class GuardCase(unittest.TestCase):
    configuration = None

    def setUp(self):
        self.host = Host(self.configuration)
        self.addCleanup(self.host.stop)
        self.client = self.host.client()

    def put_proxy_between(self):
        """From now on the daemon, another one, speaks to xenstored through it."""
        self.host.stop_daemon()
        proxy = Proxy(self.host.folder + '/proxy', self.host.store_path)
        self.addCleanup(proxy.cut)
        self.host.environment['XENSTORED_PATH'] = proxy.path
        self.host.start_daemon()
        self.client = self.host.client()
        return proxy

    def verdict(self, session, **params):
        return self.client.call('guard.verdict', session=session['session'], **params)

    def end(self, session, outcome='failed'):
        return self.client.call('guard.end', session=session['session'], outcome=outcome)

    def kill_in_storm(self, turn):
        """The daemon, at a moment drawn from `random`, which guards domain 1 then; returns the last target asked for."""
        storm = self.host.storm(1, [200000 + 4096 * i for i in range(40)], 0.01 + 0.01 * (turn % 3))
        client = self.host.client()
        client.send('guard.begin', domain=1, hold='detached', policy=dict(QUICK, quiet_ms=20, settle_ms=20))
        time.sleep(random.uniform(0, 0.15))  # the moment is what is tried
        self.host.kill_daemon()
        wanted = storm.stop()
        self.assertIsNone(storm.error)
        return wanted

    def assert_wanted(self, wanted, turn):
        """Domain 1 is as it was, but for the target."""
        self.assertEqual(self.host.journals(), [])
        self.assertEqual(self.host.snapshot(1), {'target': str(wanted), 'memory': 'n0,r1', 'max_pages': wanted // 4 + 256,
                                                 'nodes': {'target': 'n0,r1', 'static-max': 'n0,r1'}}, f'turn {turn}')

    def hold_with_a_wish(self):
        """A held guest "u" for which a toolstack wants another target meanwhile."""
        self.host.create(1, name='u')
        session = self.client.hold('u')
        self.client.call('events.subscribe')
        self.host.mem_set(1, 300000)
        self.client.event('target.deferred')
        return session

    def assert_held(self, domid, pin='0262144'):
        store = self.host.store
        self.assertEqual(store.perms(f'/local/domain/{domid}/memory'), 'n0')
        self.assertEqual(store.perms(f'/local/domain/{domid}/memory/target'), 'n0')
        self.assertEqual(self.host.target(domid), pin)
        self.assertEqual(self.host.machine.get(domid, 'max_pages'), self.host.tot_pages(domid))

    def assert_rpc_error(self, code, method, **params):
        with self.assertRaises(RpcError) as caught:
            self.client.call(method, **params)
        self.assertEqual(caught.exception.code, code)
        self.assertTrue(caught.exception.data['what'])
        return caught.exception.data


class Guard(GuardCase):
    def test_quiet_guest_is_held_and_restored_exactly(self):
        before = self.host.create(1)
        session = self.client.hold('guest1')
        self.assertEqual(session['state'], 'held')
        self.assert_held(1)
        self.assertEqual(self.host.journals(), ['1'])
        self.assertEqual(self.host.store.perms('/tool/p2mguard'), 'n0')
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')
        gone = self.end(session)
        self.assertEqual((gone['state'], gone['outcome'], gone['deferred_target_kib']), ('gone', 'failed', None))
        self.assertEqual(self.host.snapshot(1), before)
        self.assertEqual(self.host.journals(), [])
        self.assertEqual(self.host.tot_pages(1), 65536)

    def test_storm_moves_no_page_while_held_and_its_last_target_wins(self):
        self.host.create(1)
        storm = self.host.storm(1)
        session = self.client.hold(1, policy={'quiet_ms': 300, 'settle_ms': 500})
        held = self.host.tot_pages(1)
        client = self.host.client()
        client.call('events.subscribe')
        for _ in range(3):
            client.event('target.deferred')
            self.assertEqual(self.host.tot_pages(1), held)
        self.assertEqual(self.verdict(session)['reason'], 'unchanged')
        wanted = storm.stop()
        # Its last write may still be on its way to the daemon.
        wait_until(lambda: self.host.target(1).startswith('0'), what='the pin')
        gone = self.end(session)
        self.assertEqual(gone['changes'], 0)
        self.assertEqual(gone['wanted_target_kib'], wanted)
        after = self.host.snapshot(1)
        self.assertEqual((after['target'], after['max_pages']), (str(wanted), wanted // 4 + 256))
        self.assertEqual((after['memory'], after['nodes']['target']), ('n0,r1', 'n0,r1'))
        self.host.wait_rest(1, wanted)

    def test_wish_for_exactly_the_pinned_size_is_not_lost(self):
        self.host.create(1)
        session = self.client.hold(1)
        self.client.call('events.subscribe')
        self.host.mem_set(1, 300000)
        self.client.event('target.deferred', target_kib=300000)
        self.host.mem_set(1, 262144)
        self.client.event('target.deferred', target_kib=262144)
        self.assert_held(1)
        self.assertEqual(self.end(session)['deferred_target_kib'], 262144)
        self.assertEqual(self.host.target(1), '262144')

    def test_target_removed_and_made_anew_is_born_closed(self):
        self.host.create(1)
        session = self.client.hold(1)
        self.client.call('events.subscribe')
        self.host.store.remove('/local/domain/1/memory/target')
        self.host.store.write('/local/domain/1/memory/target', '200000')
        self.assertIn('EACCES', self.host.ask_guest('read 1 memory/target'))
        self.client.event('target.deferred', target_kib=200000)
        self.assert_held(1)
        self.end(session)
        self.assertEqual(self.host.snapshot(1)['nodes']['target'], 'n0,r1')
        self.host.wait_rest(1, 200000)

    def test_garbage_for_a_target_is_not_kept(self):
        before = self.host.create(1)
        session = self.client.hold(1)
        for garbage in ('', 'lots', '-5', '1' * 3000 if self.host else '', '12\n'):
            try:
                self.host.store.write('/local/domain/1/memory/target', garbage)
            except Exception as error:  # oxenstored takes no more than 2048 bytes
                self.assertIn('E2BIG', str(error))
            wait_until(lambda: self.host.target(1) == '0262144', what='the pin')
        self.end(session)
        self.assertEqual(self.host.snapshot(1), before)

    def test_opened_gate_is_a_retry_and_is_shut_again(self):
        self.host.create(1)
        session = self.client.hold(1)
        self.client.call('events.subscribe')
        self.host.store.set_perms('/local/domain/1/memory/target', 'n0,r1')
        self.client.event('gate.restored')
        self.assertEqual(self.verdict(session)['reason'], 'gate-opened')
        self.assertEqual(self.client.call('guard.retry', session=session['session'])['attempt'], 2)
        self.assert_held(1)
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')

    def test_verdict_rests_on_a_look_that_began_after_it_was_asked_for(self):
        """And not on one that somebody else has asked for before."""
        self.host.create(1)
        proxy = self.put_proxy_between()
        session, other = self.client.hold(1), self.host.client()
        asked = []
        def open_and_ask(path):  # the last thing that is read of a gate, which was found closed
            if not asked and path == '/local/domain/1/control/balloon-active':
                self.host.store.set_perms('/local/domain/1/memory/target', 'n0,r1')
                asked.append(other.send('guard.verdict', session=session['session']))
                other.call('daemon.info')  # which is answered after that was taken in
        proxy.before_read = open_and_ask
        # Its own look found the gate closed; the watch may have told of another one by then.
        self.assertIn(self.verdict(session)['reason'], ('unchanged', 'gate-opened'))
        verdict = other.reply(asked[0])
        self.assertEqual((verdict['verdict'], verdict['reason']), ('retry', 'gate-opened'))
        self.end(session)

    def test_moved_page_is_a_retry_then_abort_when_attempts_are_used_up(self):
        self.host.create(1)
        session = self.client.hold(1, policy={'attempts': 2})
        self.client.call('events.subscribe')
        self.host.machine.set(1, 'tot_pages', 65530)
        event = self.client.event('session.changed')
        self.assertEqual((event['before'], event['now']), ({'tot_kib': 262144}, {'tot_kib': 262120}))
        self.host.machine.set(1, 'tot_pages', 65536)  # back again does not make it undone
        verdict = self.verdict(session)
        self.assertEqual((verdict['verdict'], verdict['reason']), ('retry', 'tot-pages-changed'))
        self.client.call('guard.retry', session=session['session'])
        self.host.machine.set(1, 'tot_pages', 65530)
        verdict = self.verdict(session, phase='precopy')
        self.assertEqual((verdict['verdict'], verdict['reason']), ('abort', 'attempts-exhausted'))
        self.assert_rpc_error(-32008, 'guard.retry', session=session['session'])

    def test_generation_counts(self):
        self.host.create(1, generation=4)
        session = self.client.hold(1)
        self.assertEqual(session['baseline']['generation'], 4)
        self.host.layouts[1].set('p2m_generation', 6)
        self.assertEqual(self.verdict(session)['reason'], 'generation-changed')
        self.client.call('guard.retry', session=session['session'])
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')

    def test_no_hold_while_the_p2m_is_being_changed(self):
        self.host.create(1, generation=5)
        self.client.call('events.subscribe')
        number = self.client.send('guard.begin', domain=1, wait=True, policy=QUICK)
        self.client.event('session.quiet')
        with self.assertRaises(TimeoutError):
            self.client.event('session.held', timeout=0.6)
        self.host.layouts[1].set('p2m_generation', 6)
        self.assertEqual(self.client.reply(number)['baseline']['generation'], 6)

    def test_offset_is_learned_under_a_storm(self):
        self.host.create(1, offset_kib=64, flags=HVM)
        storm = self.host.storm(1)
        session = self.client.hold(1, policy={'quiet_ms': 300, 'settle_ms': 300})
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')
        self.assertIn(session['offset_kib'], (64, None))
        self.assertEqual(self.host.tot_pages(1) * 4 - int(self.host.target(1)), 64)
        storm.stop()
        self.end(session)

    def test_video_memory_is_learned_too(self):
        self.host.create(1, offset_kib=8256, flags=HVM)
        self.host.store.write('/local/domain/1/memory/videoram', '8192')
        self.host.store.write('/local/domain/1/memory/target', '250000')
        session = self.client.hold(1, policy={'settle_ms': 300})
        self.assertEqual(self.host.tot_pages(1) * 4 - session['pin_kib'], 8256)

    def test_stubborn_guest_cannot_be_held_and_gets_all_back(self):
        before = self.host.create(1, mode='stubborn')
        data = self.assert_rpc_error(-32005, 'guard.begin', domain=1, wait=True,
                                     policy=dict(QUICK, freeze_timeout_ms=1000))
        self.assertEqual((data['reason'], data['session']['state']), ('freeze-timeout', 'failed'))
        wait_until(lambda: not self.host.journals(), what='the journal gone')
        after = self.host.snapshot(1)
        self.assertEqual(after, before)

    def test_slow_guest_is_waited_for(self):
        self.host.create(1, mode='slow')
        self.host.mem_set(1, 300000)
        session = self.client.hold(1, policy={'quiet_ms': 300, 'settle_ms': 300})
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')
        size = self.host.tot_pages(1)
        time.sleep(0.3)  # nothing happens: there is no event for that
        self.assertEqual(self.host.tot_pages(1), size)
        self.end(session)
        self.host.wait_rest(1, 300000)

    def test_guest_that_waits_to_grow_is_quiet_while_held(self):
        self.host.create(1, options='retry_ms=300')
        self.host.store.write('/local/domain/1/memory/target', '300000')  # beyond max_pages: it tries again and again
        wait_until(lambda: self.host.machine.get(1, 'refused') > 0, what='a refusal')
        session = self.client.hold(1, policy={'quiet_ms': 100, 'settle_ms': 500})
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')
        self.end(session)
        self.assertEqual(self.host.target(1), '300000')

    def test_guest_without_a_balloon_driver_is_held(self):
        before = self.host.create(1, mode='deaf')
        session = self.client.hold(1)
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')
        self.end(session)
        self.assertEqual(self.host.snapshot(1), before)

    def test_driver_that_says_it_works_is_waited_for(self):
        self.host.create(1, mode='active')
        self.host.tell_guest('write 1 control/balloon-active 1')
        self.client.call('events.subscribe')
        number = self.client.send('guard.begin', domain=1, wait=True, policy=QUICK)
        self.client.event('session.quiet')
        with self.assertRaises(TimeoutError):
            self.client.event('session.held', timeout=0.6)
        self.host.tell_guest('write 1 control/balloon-active 0')
        self.assertEqual(self.client.reply(number)['state'], 'held')

    def test_gate_alone_is_quicker(self):
        before = self.host.create(1)
        session = self.client.hold(1, policy={'require': 'gate', 'quiet_ms': 5000, 'settle_ms': 5000})
        self.assertLess(session['held_after_ms'], 2000)
        self.assert_held(1)
        self.end(session)
        self.assertEqual(self.host.snapshot(1), before)

    def test_gate_alone_does_not_wait_for_a_guest_to_rest(self):
        self.host.create(1, mode='stubborn')
        session = self.client.hold(1, policy={'require': 'gate'})
        self.assertEqual(session['state'], 'held')
        wait_until(lambda: self.host.tot_pages(1) * 4 < session['baseline']['tot_kib'], what='a page less')
        self.assertEqual(self.verdict(session)['reason'], 'tot-pages-changed')
        self.assertEqual(self.client.call('guard.retry', session=session['session'])['attempt'], 2)

    def test_nodes_made_while_held_get_ordinary_permissions(self):
        self.host.create(1)
        self.host.store.write('/local/domain/1/memory/secret', 'x')
        self.host.store.set_perms('/local/domain/1/memory/secret', 'n0')
        session = self.client.hold(1)
        self.host.store.write('/local/domain/1/memory/uncooperative', '')
        self.assertEqual(self.host.store.perms('/local/domain/1/memory/uncooperative'), 'n0')
        self.end(session)
        nodes = self.host.snapshot(1)['nodes']
        self.assertEqual(nodes, {'target': 'n0,r1', 'static-max': 'n0,r1', 'secret': 'n0', 'uncooperative': 'n0,r1'})

    def test_unusual_permissions_come_back_exactly(self):
        self.host.create(1)
        self.host.store.set_perms('/local/domain/1/memory/target', 'n1,r0,b7')
        self.host.store.set_perms('/local/domain/1/memory', 'r0,w3,n1')
        before = self.host.snapshot(1)
        session = self.client.hold(1)
        self.assertIn('EACCES', self.host.ask_guest('read 1 memory/target'))
        self.end(session)
        self.assertEqual(self.host.snapshot(1), before)

    def test_cap_goes_back_and_the_toolstacks_max_pages_is_kept(self):
        self.host.create(1)
        session = self.client.hold(1)
        self.client.call('events.subscribe')
        self.host.machine.set(1, 'max_pages', 99999)
        self.client.event('cap.restored')
        self.assert_held(1)
        self.assertEqual(self.end(session)['max_kib'], 399996)
        self.assertEqual(self.host.machine.get(1, 'max_pages'), 99999)

    def test_young_guest_is_waited_for(self):
        self.host.create(2)
        self.client.hold(2)  # the daemon has looked at the domains there are
        self.host.create(1, mode='young')
        self.client.call('events.subscribe')
        number = self.client.send('guard.begin', domain=1, wait=True, policy=QUICK)
        with self.assertRaises(TimeoutError):
            self.client.event('session.gated', timeout=0.7, domid=1)
        self.host.tell_guest('wake 1')
        self.assertEqual(self.client.reply(number)['state'], 'held')

    def test_suspended_guest_is_told_of(self):
        self.host.create(1)
        session = self.client.hold(1)
        self.assertFalse(self.verdict(session)['suspended'])
        self.host.machine.set(1, 'flags', SHUTDOWN | SUSPENDED)
        self.assertTrue(self.verdict(session, phase='precopy')['suspended'])

    def test_suspended_guest_that_loses_pages_is_taken_apart_and_has_not_changed(self):
        self.host.create(1)
        session = self.client.hold(1)
        self.host.machine.set(1, 'flags', SHUTDOWN | SUSPENDED)
        self.assertTrue(self.verdict(session)['suspended'])
        self.host.machine.set(1, 'tot_pages', 1000)
        verdict = self.verdict(session)
        self.assertEqual((verdict['verdict'], verdict['now']['tot_kib']), ('proceed', 4000))
        self.host.machine.set(1, 'flags', 0)  # it runs again after all
        self.assertEqual(self.verdict(session)['reason'], 'tot-pages-changed')

    def test_guest_that_moved_before_it_was_suspended_has_changed(self):
        self.host.create(1)
        session = self.client.hold(1)
        self.host.machine.set(1, 'tot_pages', 65500)
        self.host.machine.set(1, 'flags', SHUTDOWN | SUSPENDED)
        self.assertEqual(self.verdict(session)['reason'], 'tot-pages-changed')

    def test_target_is_passed_on_to_the_new_domain_on_this_host(self):
        session = self.hold_with_a_wish()
        self.host.create(2, name='u--incoming', uuid=self.host.domains[1])
        wait_until(lambda: self.host.target(2) == '0262144', what='the mark')
        self.host.store.write('/local/domain/1/name', 'u--migratedaway')
        gone = self.client.event('session.gone')
        self.assertEqual((gone['outcome'], gone['applied_to']), ('completed', 2))
        self.assertEqual(self.host.snapshot(2)['target'], '300000')
        self.assertEqual(self.host.machine.get(2, 'max_pages'), 300000 // 4 + 256)
        self.assertEqual(self.end(session, 'completed')['applied_to'], 2)

    def test_target_written_to_a_domain_that_the_guest_has_left_is_passed_on(self):
        """By a toolstack that had looked up the name before the rename."""
        session = self.hold_with_a_wish()
        self.host.create(2, name='u--incoming', uuid=self.host.domains[1])
        self.host.store.write('/local/domain/1/name', 'u--migratedaway')
        self.host.mem_set(1, 310000)
        self.client.event('target.deferred', target_kib=310000)
        self.host.machine.set(1, 'tot_pages', 1000)  # being torn down, which counts for nothing
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')
        self.host.destroy(1)
        gone = self.client.event('session.gone')
        self.assertEqual((gone['reason'], gone['outcome'], gone['applied_to']), ('domain-renamed', 'completed', 2))
        self.assertEqual(self.host.target(2), '310000')
        record = self.end(session, 'completed')
        self.assertEqual((record['wanted_target_kib'], record['changes']), (310000, 0))

    def test_wish_of_the_new_domain_for_exactly_the_pinned_size_is_kept(self):
        session = self.hold_with_a_wish()
        self.host.create(2, name='u2', uuid=self.host.domains[1])
        wait_until(lambda: self.host.target(2) == '0262144', what='the mark')
        self.host.mem_set(2, 262144)
        self.assertIsNone(self.end(session, 'completed')['applied_to'])
        self.assertEqual(self.host.snapshot(2)['target'], '262144')
        self.assertEqual(self.host.machine.get(2, 'max_pages'), 262144 // 4 + 256)

    def test_new_domain_is_marked_once_there_is_a_wish_to_be_told_from_the_pin(self):
        """And not before: the guest stands still until its new domain runs."""
        for first, then, left in ((None, 262144, '262144'), (262144, None, '300000')):
            with self.subTest(first=first, then=then):
                self.host.create(1, name='u')
                session = self.client.hold('u')
                self.client.call('events.subscribe')
                self.host.create(2, name='u--incoming', uuid=self.host.domains[1])
                if first:
                    self.host.mem_set(2, first)  # before the other wish, which is the later one then
                self.host.mem_set(1, 300000)
                self.client.event('target.deferred', target_kib=300000)
                wait_until(lambda: self.host.target(2) == '0262144', what='the mark')
                if then:
                    self.host.mem_set(2, then)
                self.end(session, 'completed')
                self.assertEqual(self.host.target(2), left)
                self.host.destroy(2)
                self.host.destroy(1)

    def test_new_domain_is_not_marked_before_its_guest_can_run_when_nobody_has_asked_for_anything(self):
        self.host.create(1, name='u')
        session = self.client.hold('u')
        self.host.create(2, name='u--incoming', uuid=self.host.domains[1])
        wait_until(lambda: self.client.call('domain.show', domain=2)['target_steady_ms'] is not None,
                   what='the new domain seen')
        self.verdict(session)  # whatever was to be done before is done
        self.assertEqual(self.host.target(2), '262144')
        wait_until(lambda: self.host.target(2) == '0262144', what='the mark')
        self.end(session, 'failed')

    def test_mark_of_the_new_domain_is_taken_away_again(self):
        for outcome in ('completed', 'failed'):
            self.host.create(1, name='u')
            session = self.client.hold('u')
            before = self.host.create(2, name='u2', uuid=self.host.domains[1])
            wait_until(lambda: self.host.target(2) == '0262144', what='the mark')
            self.end(session, outcome)
            self.assertEqual(self.host.target(2), '262144')
            self.host.destroy(2)
            self.host.destroy(1)

    def recover_the_domain_that_has_left(self):
        self.host.destroy(1)
        self.host.start_daemon()
        wait_until(lambda: not self.host.journals(), what='the journal gone')

    def test_wish_is_passed_on_by_the_next_daemon(self):
        """The daemon is killed before the new domain appears, which therefore is not marked."""
        self.hold_with_a_wish()
        self.host.kill_daemon()
        self.host.create(2, name='u', uuid=self.host.domains[1])
        self.assertEqual(self.host.target(2), '262144')
        self.recover_the_domain_that_has_left()
        self.assertEqual(self.host.target(2), '300000')
        self.assertEqual(self.host.machine.get(2, 'max_pages'), 300000 // 4 + 256)

    def test_wish_is_passed_on_by_the_next_daemon_after_the_mark(self):
        for asked, left in ((None, '300000'), (262144, '262144'), (200000, '200000')):
            with self.subTest(asked=asked):
                self.hold_with_a_wish()
                self.host.create(2, name='u', uuid=self.host.domains[1])
                wait_until(lambda: self.host.target(2) == '0262144', what='the mark')
                self.host.kill_daemon()
                if asked:
                    self.host.mem_set(2, asked)
                self.recover_the_domain_that_has_left()
                self.assertEqual(self.host.target(2), left)
                self.assertEqual(self.host.machine.get(2, 'max_pages'), int(left) // 4 + 256)
                self.host.destroy(2)
                self.client = self.host.client()

    def restart_while_it_is_being_migrated(self):
        """The new domain has no target yet when the next daemon comes: libxl writes one when the memory has arrived."""
        self.hold_with_a_wish()
        self.host.create(2, name='u--incoming', uuid=self.host.domains[1], introduce=False)
        self.host.store.remove('/local/domain/2/memory/target')
        self.host.kill_daemon()
        self.host.start_daemon()
        wait_until(lambda: self.host.target(1) == '300000', what='the wish put back')
        self.assertEqual(self.host.machine.get(1, 'max_pages'), 300000 // 4 + 256)
        self.assertEqual(self.host.store.perms('/local/domain/1/memory/target'), 'n0,r1')

    def bring_up_the_new_domain(self):
        self.host.store.write('/local/domain/2/memory/target', '262144')
        self.host.store.set_perms('/local/domain/2/memory/target', 'n0,r2')
        self.host.introduce(2)

    def test_wish_is_passed_on_to_a_domain_that_is_still_being_built(self):
        """The migration goes on without its daemon, and the new domain has the pin's number from the configuration."""
        for asked in (None, 310000):
            with self.subTest(asked=asked):
                self.restart_while_it_is_being_migrated()
                if asked:
                    self.host.mem_set(1, asked)
                self.bring_up_the_new_domain()
                wanted = asked or 300000
                wait_until(lambda: self.host.target(2) == str(wanted), what='the wish passed on')
                self.assertEqual(self.host.machine.get(2, 'max_pages'), wanted // 4 + 256)
                wait_until(lambda: not self.host.journals(), what='the journal gone')
                self.assertEqual(self.host.target(1), str(wanted))
                self.host.destroy(1)
                self.host.destroy(2)
                self.client = self.host.client()

    def test_wish_is_passed_on_when_nobody_says_how_the_migration_ends(self):
        """Whoever had the guest held is gone, or the daemon is told to stop, and the migration goes on."""
        def client_goes():
            self.client.close()
            wait_until(lambda: self.host.target(1) == '300000', what='the wish put back')
            self.client = self.host.client()
        def daemon_stops():
            self.assertEqual(self.host.stop_daemon(), 0)
            self.assertEqual(self.host.target(1), '300000')
            self.host.start_daemon()
            self.client = self.host.client()
        for ends in (client_goes, daemon_stops):
            with self.subTest(ends=ends.__name__):
                self.hold_with_a_wish()
                self.host.create(2, name='u--incoming', uuid=self.host.domains[1], introduce=False)
                self.host.store.remove('/local/domain/2/memory/target')
                ends()
                self.assertEqual(self.host.machine.get(1, 'max_pages'), 300000 // 4 + 256)
                self.assertEqual(self.host.store.perms('/local/domain/1/memory/target'), 'n0,r1')
                wait_until(lambda: not self.client.call('guard.list')['sessions'], what='the session gone')
                self.bring_up_the_new_domain()
                wait_until(lambda: self.host.target(2) == '300000', what='the wish passed on')
                self.assertEqual(self.host.machine.get(2, 'max_pages'), 300000 // 4 + 256)
                wait_until(lambda: not self.host.journals(), what='the journal gone')
                self.host.destroy(1)
                self.host.destroy(2)

    def test_wish_that_comes_while_another_one_is_passed_on(self):
        """Asked of the domain that the guest is about to leave, which its toolstack still took for it."""
        proxy = self.put_proxy_between()
        session = self.hold_with_a_wish()
        self.host.create(2, name='u', uuid=self.host.domains[1])
        wait_until(lambda: self.host.target(2) == '0262144', what='the mark')
        def ask_again(path):
            if path == '/local/domain/2/memory/target':
                proxy.before_change = lambda path: None
                self.host.store.write('/local/domain/1/memory/target', '310000')
        proxy.before_change = ask_again
        self.end(session, 'completed')
        wait_until(lambda: self.host.target(2) == '310000', what='the later wish')
        wait_until(lambda: not self.host.journals(), what='the journal gone')
        self.assertEqual(self.host.machine.get(2, 'max_pages'), 310000 // 4 + 256)

    def test_wish_stays_where_the_migration_fails(self):
        self.restart_while_it_is_being_migrated()
        self.host.mem_set(1, 310000)
        self.host.destroy(2)
        wait_until(lambda: not self.host.journals(), what='the journal gone')
        self.assertEqual(self.host.target(1), '310000')
        self.assertEqual(self.host.machine.get(1, 'max_pages'), 310000 // 4 + 256)

    def test_wish_that_waits_for_a_new_domain_keeps_nobody_from_being_guarded(self):
        self.restart_while_it_is_being_migrated()
        wait_until(lambda: self.host.store.read_or_none('/tool/p2mguard/session/1/passing') is not None,
                   what='the wish kept')
        self.client = self.host.client()
        self.end(self.client.hold(1), 'failed')
        self.assertEqual((self.host.target(1), self.host.journals()), ('300000', []))

    def test_newer_target_of_the_new_domain_is_left_alone(self):
        session = self.hold_with_a_wish()
        self.host.create(2, name='u2', uuid=self.host.domains[1])
        self.host.mem_set(2, 200000)
        self.assertIsNone(self.end(session, 'completed')['applied_to'])
        self.assertEqual(self.host.snapshot(2)['target'], '200000')
        self.assertEqual(self.host.machine.get(2, 'max_pages'), 200000 // 4 + 256)

    def test_two_hundred_at_once(self):
        count = 200
        before = {domid: self.host.create(domid, options='rate=500') for domid in range(1, count + 1)}
        started = time.monotonic()
        numbers = [self.client.send('guard.begin', domain=domid, wait=True, policy=QUICK)
                   for domid in range(1, count + 1)]
        sessions = [self.client.reply(number) for number in numbers]
        held = time.monotonic() - started
        self.assertEqual({session['state'] for session in sessions}, {'held'})
        self.assertEqual(len(self.client.call('guard.list')['sessions']), count)
        lists, polled = self.host.machine.lists(), time.monotonic()
        for session in sessions:
            self.assertEqual(self.verdict(session)['verdict'], 'proceed')
        polls = (time.monotonic() - polled) / 0.05
        self.assertLessEqual(self.host.machine.lists() - lists, polls + 2)  # one call a poll, for all of them
        for domid in range(1, count + 1, 3):
            self.host.mem_set(domid, 200000 + domid)
            before[domid]['target'] = str(200000 + domid)
            before[domid]['max_pages'] = (200000 + domid) // 4 + 256
        # Whether the daemon has seen them yet or not, they must come through.
        started = time.monotonic()
        numbers = [self.client.send('guard.end', session=session['session'], outcome='failed') for session in sessions]
        for number in numbers:
            self.assertEqual(self.client.reply(number)['state'], 'gone')
        ended = time.monotonic() - started
        self.assertEqual({domid: self.host.snapshot(domid) for domid in before}, before)
        self.assertEqual(self.host.journals(), [])
        print(f'# {count} sessions: all held after {held:.2f} s, all restored after {ended:.2f} s', flush=True)


if __name__ == '__main__':
    unittest.main()
