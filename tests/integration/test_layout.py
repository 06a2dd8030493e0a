# SPDX-License-Identifier: LGPL-2.1-or-later
"""Changes of the guest's layout: the generation counter, the p2m's structure, physmaps, and guests that lie about them."""
import signal
import socket
import threading
import time
import unittest

from fixture import HVM, QUICK, Host, wait_until
from layout import LEAVES
from test_guard import GuardCase

FORMS = {'64-bit list': {'kind': 'list', 'width': 8}, '32-bit list': {'kind': 'list', 'width': 4},
         '64-bit tree': {'kind': 'tree', 'width': 8}, '32-bit tree': {'kind': 'tree', 'width': 4}}


class LayoutCase(GuardCase):
    def create(self, domid=1, generation=0, **layout):
        self.host.create(domid, generation=generation, layout=layout)
        return self.host.layouts[domid]

    def subscribe(self):
        self.client.call('events.subscribe')

    def assert_verdict(self, session, verdict, reason, **more):
        given = self.verdict(session, **more)
        self.assertEqual((given['verdict'], given['reason']), (verdict, reason), given)
        return given


class Structure(LayoutCase):
    def test_every_form_is_read_and_a_rearranged_one_is_a_retry(self):
        for domid, (name, form) in enumerate(FORMS.items(), 1):
            with self.subTest(name):
                p2m = self.create(domid, **form)
                session = self.client.hold(domid)
                before = self.assert_verdict(session, 'proceed', 'unchanged')
                self.assertEqual(before['now']['structure'], session['baseline']['structure'])
                # Read by another thread, in other steps, through other mappings.
                shown = self.client.call('domain.show', domain=domid)
                self.assertEqual(shown['p2m']['structure'], session['baseline']['structure'])
                p2m.swap_leaves(3, 5)  # the counter does not move
                after = self.assert_verdict(session, 'retry', 'structure-changed')
                self.assertNotEqual(after['now']['structure'], after['baseline']['structure'])
                self.assertEqual(after['baseline']['structure'], before['baseline']['structure'])
                self.assertEqual(after['against'], ['structure-changed'])
                again = self.client.call('guard.retry', session=session['session'])
                self.assertEqual((again['state'], again['attempt']), ('held', 2))
                self.assert_verdict(session, 'proceed', 'unchanged')

    def test_table_moved_elsewhere_is_a_retry(self):
        for domid, (name, form) in enumerate(FORMS.items(), 1):
            with self.subTest(name):
                p2m = self.create(domid, **form)
                session = self.client.hold(domid)
                p2m.move_table(0)
                self.assert_verdict(session, 'retry', 'structure-changed')

    def test_change_of_place_is_seen_without_a_verdict(self):
        for domid, (member, form) in enumerate((('max_pfn', '64-bit list'), ('p2m_cr3', '32-bit list'),
                                                ('frame_list_list', '64-bit tree'), ('p2m_vaddr', '64-bit list')), 1):
            with self.subTest(member):
                p2m = self.create(domid, **FORMS[form])
                session = self.client.hold(domid)
                self.subscribe()
                p2m.set(member, p2m.get(member) + 4096)
                event = self.client.event('session.changed', domid=domid)
                self.assertEqual(event['reason'], 'structure-changed')
                self.assertNotEqual(event['before']['p2m'], event['now']['p2m'])
                self.assert_verdict(session, 'retry', 'structure-changed')

    def test_tables_near_the_root_are_watched_between_verdicts(self):
        p2m = self.create(kind='tree')
        self.client.hold(1)
        self.subscribe()
        p2m.move_table(0)
        event = self.client.event('session.changed')
        self.assertEqual(event['reason'], 'structure-changed')
        self.assertNotEqual(event['before']['top'], event['now']['top'])

    def test_tables_near_the_root_of_each_size_are_watched(self):
        """Few entries are compared where they stand, many by another walk."""
        for domid, form in enumerate(({}, {'max_pfn': 24 << 18}, {'kind': 'tree'}, {'kind': 'tree', 'max_pfn': 6 << 18}), 1):
            with self.subTest(form):
                p2m = self.create(domid, **form)
                session = self.client.hold(domid)
                self.subscribe()
                p2m.move_table(p2m.leaves - 1, 2 if p2m.kind == 'list' else 1)
                event = self.client.event('session.changed', domid=domid)
                self.assertEqual(event['reason'], 'structure-changed')
                self.assertNotEqual(event['before']['top'], event['now']['top'])
                self.assert_verdict(session, 'retry', 'structure-changed')

    def test_mark_of_the_processor_is_no_change(self):
        """An entry that was used once differs, and leads to the same; what changes after it is seen all the same."""
        p2m = self.create()
        session = self.client.hold(1)
        self.subscribe()
        maps = self.host.machine.maps()
        p2m.put(p2m.root, p2m.index(4, 0), p2m.table(3, 0), flags=0x21)
        lists = self.host.machine.lists()
        wait_until(lambda: self.host.machine.lists() > lists + 3, 20, 'polls')
        self.assert_verdict(session, 'proceed', 'unchanged')
        self.assertEqual(self.host.machine.maps(), maps)
        p2m.move_table(0, 2)
        event = self.client.event('session.changed')
        self.assertEqual(event['reason'], 'structure-changed')

    def test_large_guest_is_surveyed_beside_the_loop(self):
        p2m = self.create(max_pfn=24 << 18)  # 24 GiB: more tables than stay mapped
        session = self.client.hold(1)
        shown = self.client.call('domain.show', domain=1)['p2m']
        self.assertEqual(shown['structure'], session['baseline']['structure'])
        self.assertEqual(shown['structure_pages'], p2m.leaves + 24 + 3)
        maps = self.host.machine.maps()
        self.assert_verdict(session, 'proceed', 'unchanged')
        self.assertGreater(self.host.machine.maps(), maps)
        maps = self.host.machine.maps()
        self.assertIsNone(self.assert_verdict(session, 'proceed', 'unchanged', phase='precopy')['now']['structure'])
        self.assertEqual(self.host.machine.maps(), maps)  # costs memory loads alone
        p2m.swap_leaves(p2m.leaves - 1, p2m.leaves - 2)
        self.assert_verdict(session, 'retry', 'structure-changed')

    def test_small_guest_is_read_from_pages_that_stay_mapped(self):
        self.create()
        session = self.client.hold(1)
        maps = self.host.machine.maps()
        for _ in range(100):
            self.assert_verdict(session, 'proceed', 'unchanged')
        self.assertEqual(self.host.machine.maps(), maps)

    def test_unset_p2m_cannot_be_held_but_gated(self):
        p2m = self.create(kind='tree')
        p2m.set('frame_list_list', 0)
        error = self.assert_rpc_error(-32005, 'guard.begin', domain=1, wait=True, policy=QUICK)
        self.assertEqual(error['reason'], 'structure-unreadable')
        session = self.client.hold(1, policy={'require': 'gate'})
        self.assertIsNone(session['baseline']['structure'])
        self.assert_verdict(session, 'retry', 'structure-unreadable')

    def test_impossible_p2ms_are_refused_by_name(self):
        for domid, (problem, member, value) in enumerate((
                ('max-pfn-too-large', 'max_pfn', 1 << 40), ('max-pfn-zero', 'max_pfn', 0),
                ('max-pfn-too-large', 'max_pfn', (1 << 64) - 1), ('root-impossible', 'p2m_cr3', 1 << 60),
                ('vaddr-five-levels', 'p2m_vaddr', 0xff00000000000000), ('vaddr-hypervisor', 'p2m_vaddr', 0xffff800000000000),
                ('vaddr-not-canonical', 'p2m_vaddr', 1 << 60), ('vaddr-unaligned', 'p2m_vaddr', 0xffffc90000000008),
                ('unmappable', 'p2m_cr3', 0xfffff << 12), ('not-present', 'p2m_vaddr', 0xffffc98000000000)), 1):
            with self.subTest(problem=problem, value=value):
                self.create(domid).set(member, value)
                shown = self.client.call('domain.show', domain=domid)['p2m']
                self.assertEqual(shown['problem']['problem'], problem)
                self.assertEqual((shown['structure'], shown['structure_pages']), (None, None))
                policy = dict(QUICK, freeze_timeout_ms=1000)
                error = self.assert_rpc_error(-32005, 'guard.begin', domain=domid, wait=True, policy=policy)
                passing = problem in ('unmappable', 'not-present')
                self.assertEqual(error['reason'], 'freeze-timeout' if passing else 'structure-unreadable')
                wait_until(lambda: self.host.snapshot(domid)['memory'] == f'n0,r{domid}', what='the thaw')

    def test_entry_that_is_missing_for_a_moment_is_waited_for(self):
        p2m = self.create()
        table, index = p2m.table(2, 0), p2m.index(2, 0)
        below = p2m.table(1, 0)
        p2m.put(table, index, below, flags=0)
        self.subscribe()
        number = self.client.send('guard.begin', domain=1, wait=True, policy=QUICK)
        self.client.event('session.quiet')
        with self.assertRaises(TimeoutError):
            self.client.event('session.held', timeout=0.5)
        p2m.put(table, index, below)
        session = self.client.reply(number)
        # At a verdict: gone, and back before the daemon has looked as often as it will.
        p2m.put(table, index, below, flags=0)
        timer = threading.Timer(0.05, p2m.put, (table, index, below))
        timer.start()
        self.assert_verdict(session, 'proceed', 'unchanged')
        timer.join()
        # Gone for good: not trusted, and not waited for without end.
        p2m.put(table, index, below, flags=0)
        started = time.monotonic()
        self.assert_verdict(session, 'retry', 'structure-unreadable')
        self.assertLess(time.monotonic() - started, 5)

    def test_large_page_is_refused(self):
        p2m = self.create()
        session = self.client.hold(1)
        p2m.put(p2m.table(2, 0), p2m.index(2, 0), p2m.table(1, 0), flags=0x81)
        self.assert_verdict(session, 'retry', 'structure-unreadable')
        self.assertEqual(self.client.call('domain.show', domain=1)['p2m']['problem']['problem'], 'superpage')

    def test_tables_in_a_circle_cost_little(self):
        """A root whose entries lead back to itself, for 64 TiB."""
        p2m = self.create()
        p2m.set('max_pfn', 1 << 34)
        for index in range(512):
            p2m.put(p2m.root, index, p2m.root)
        other = self.create(2)
        waiting = self.client.send('domain.show', domain=1)
        session = self.host.client().hold(2)
        self.assert_verdict(session, 'proceed', 'unchanged')
        shown = self.client.reply(waiting)['p2m']
        self.assertIsNone(shown['problem'])
        other.swap_leaves(0, 1)
        self.assert_verdict(session, 'retry', 'structure-changed')

    def test_curiosity_does_not_keep_a_verdict_waiting(self):
        """Many who want to see a p2m of 64 TiB, and one large guest whose migration waits."""
        circle = self.create(1)
        circle.set('max_pfn', 1 << 34)
        for index in range(512):
            circle.put(circle.root, index, circle.root)
        self.create(2, max_pfn=24 << 18)
        session = self.client.hold(2)
        curious = self.host.client()
        waiting = [curious.send('domain.show', domain=1) for _ in range(40)]
        curious.reply(waiting.pop(0))  # the surveyor has begun with them
        self.assert_verdict(session, 'proceed', 'unchanged')
        curious.buffer += curious.socket.recv(1 << 20, socket.MSG_DONTWAIT) if curious.readable() else b''
        self.assertLess(curious.buffer.count(b'\n'), len(waiting))
        for number in waiting:
            self.assertIsNone(curious.reply(number)['p2m']['problem'])

    def test_connection_lost_while_the_baseline_is_surveyed(self):
        """Nobody watches the gate of a guest that is held then: the time until it is watched again counts."""
        proxy = self.put_proxy_between()
        self.subscribe()
        circle = self.create()
        circle.set('max_pfn', 1 << 34)  # so large that the loss is told of before the survey has ended
        for index in range(512):
            circle.put(circle.root, index, circle.root)
        cut, other = [], self.host.client()
        def cut_after_the_last_look(path):
            if not cut and path == '/local/domain/1/control/balloon-active' and 'baseline in' in self.host.log_tail():
                other.send('domain.show', domain=1)  # which wakes the worker up when it has done with this
                other.call('daemon.info')
                self.host.daemon.send_signal(signal.SIGSTOP)
                cut.append(proxy.cut())
                time.sleep(0.6)  # twice a second it looks for the connection: as soon as it goes on
                self.host.daemon.send_signal(signal.SIGCONT)
        proxy.before_read = cut_after_the_last_look
        number = self.client.send('guard.begin', domain=1, wait=True, hold='detached', policy=QUICK)
        self.client.event('store.lost')
        session = self.client.reply(number)
        proxy.open()
        self.client.event('store.back')
        self.assert_verdict(session, 'retry', 'observation-gap')
        self.end(session)

    def test_domain_that_goes_while_it_is_surveyed(self):
        for domid in range(1, 9):
            self.create(domid, max_pfn=18 << 18)
            session = self.client.hold(domid)
            self.subscribe()
            number = self.client.send('guard.verdict', session=session['session'])
            self.host.destroy(domid)
            self.assertIn(self.client.reply(number)['verdict'], ('proceed', 'retry', 'abort'))
            self.client.event('session.gone', session=session['session'])
        self.assertEqual(self.host.journals(), [])

    def test_killed_while_it_surveys(self):
        before = {}
        for domid in (1, 2, 3):
            self.create(domid, max_pfn=18 << 18)
            before[domid] = self.host.snapshot(domid)
            session = self.client.hold(domid)
            self.client.send('guard.verdict', session=session['session'])
        self.host.kill_daemon()
        self.host.start_daemon()
        self.client = self.host.client()
        for domid in (1, 2, 3):
            wait_until(lambda: self.host.snapshot(domid) == before[domid], what='everything put back')
            self.assertEqual(self.client.hold(domid)['state'], 'held')

    def test_guest_that_rearranges_its_p2m_all_the_time_never_gets_away_with_it(self):
        p2m = self.create(kind='tree')
        session = self.client.hold(1)
        over = threading.Event()
        def rearrange():
            while not over.is_set():
                p2m.swap_leaves(10, 11)
                p2m.put_leaf(10, LEAVES + 10)
                p2m.put_leaf(11, LEAVES + 11)
        thread = threading.Thread(target=rearrange)
        thread.start()
        try:
            wait_until(lambda: self.verdict(session)['reason'] == 'structure-changed', what='a look at the wrong moment')
        finally:
            over.set()
            thread.join()
        for _ in range(20):  # as it was again, and still not forgiven
            self.assert_verdict(session, 'retry', 'structure-changed')

    def test_domain_show_tells_where_the_p2m_is(self):
        expected = {'64-bit list': (64, 'list', 4), '32-bit list': (32, 'list', 3), '64-bit tree': (64, 'tree', 2),
                    '32-bit tree': (32, 'tree', 2)}
        for domid, (name, form) in enumerate(FORMS.items(), 1):
            with self.subTest(name):
                p2m = self.create(domid, generation=6, **form)
                shown = self.client.call('domain.show', domain=domid)['p2m']
                self.assertEqual((shown['width_bits'], shown['kind'], shown['levels']), expected[name])
                self.assertEqual((shown['root_mfn'], shown['max_pfn']), (hex(p2m.root), 65536))
                self.assertIsNone(shown['problem'])
                tables = len(p2m.tables) + 1
                self.assertEqual(shown['structure_pages'], p2m.leaves + tables)
                if form['kind'] == 'list':
                    last = p2m.vaddr + p2m.leaves * 4096 - 1
                    self.assertEqual(shown['range'], {'first_vaddr': hex(p2m.vaddr), 'last_vaddr': hex(last)})
                    self.assertEqual(shown['generation'], 6)
                else:
                    self.assertEqual((shown['range'], shown['generation']), (None, None))

    def test_holes_of_a_tree_are_no_problem(self):
        p2m = self.create(kind='tree')
        p2m.raw(p2m.table(1, 0), 7, 0)
        p2m.raw(p2m.table(1, 0), 8, (1 << 64) - 1)
        session = self.client.hold(1)
        self.assert_verdict(session, 'proceed', 'unchanged')
        p2m.put_leaf(7, LEAVES + 7)
        self.assert_verdict(session, 'retry', 'structure-changed')


class Generation(LayoutCase):
    def test_changes_made_are_changes_seen(self):
        p2m = self.create(generation=10)
        session = self.client.hold(1)
        self.subscribe()
        for made in range(1, 101):
            p2m.update(lambda: None)
            if made % 10 == 0:
                wanted = 10 + 2 * made
                wait_until(lambda: self.client.event('session.changed')['now'] == {'generation': wanted}, what='event')
        self.assertEqual(self.client.call('guard.show', session=session['session'])['generation_changes'], 100)
        verdict = self.assert_verdict(session, 'retry', 'generation-changed')
        self.assertEqual((verdict['baseline']['generation'], verdict['now']['generation']), (10, 210))

    def test_event_has_before_and_after(self):
        p2m = self.create(generation=4)
        self.client.hold(1)
        self.subscribe()
        p2m.set('p2m_generation', 6)
        event = self.client.event('session.changed')
        self.assertEqual((event['reason'], event['before'], event['now']),
                         ('generation-changed', {'generation': 4}, {'generation': 6}))

    def test_update_under_way_is_a_retry_even_when_it_is_over_at_the_verdict(self):
        p2m = self.create(generation=4)
        session = self.client.hold(1)
        self.subscribe()
        p2m.set('p2m_generation', 5)
        self.client.event('session.changed')
        p2m.set('p2m_generation', 4)
        self.assert_verdict(session, 'retry', 'generation-changed')

    def test_counter_of_a_32_bit_guest_wraps(self):
        p2m = self.create(generation=0xfffffffe, width=4)
        session = self.client.hold(1)
        p2m.set('p2m_generation', 0)
        self.assert_verdict(session, 'retry', 'generation-changed')
        self.assertEqual(self.client.call('guard.show', session=session['session'])['generation_changes'], 1)

    def test_guest_that_counts_all_the_time_is_told_of_now_and_then(self):
        p2m = self.create()
        session = self.client.hold(1)
        self.subscribe()
        started = time.monotonic()
        while time.monotonic() - started < 1:
            p2m.update(lambda: None)
            time.sleep(0.002)
        final = p2m.get('p2m_generation')
        wait_until(lambda: self.client.event('session.changed')['now'] == {'generation': final}, what='the last one')
        told = [event for event in self.history() if event['type'] == 'session.changed']
        self.assertLess(len(told), 20)
        self.assertEqual(told[-1]['now'], {'generation': final})
        self.assert_verdict(session, 'retry', 'generation-changed')

    def history(self):
        client = self.host.client()
        last = client.call('events.subscribe', **{'from': 0})['next']
        while not client.events or client.events[-1]['seq'] < last - 1:
            client.take(10)
        return client.events

    def test_numbers_beyond_json_are_cut_and_still_compared(self):
        p2m = self.create(generation=(1 << 64) - 2)
        session = self.client.hold(1)
        self.assertEqual(session['baseline']['generation'], (1 << 63) - 1)
        p2m.set('p2m_generation', (1 << 64) - 4)
        self.assert_verdict(session, 'retry', 'generation-changed')


class Physmap(LayoutCase):
    def test_every_sign_of_a_changed_physmap_is_a_retry(self):
        for domid, (member, before, now, figure) in enumerate((
                ('max_gfn', 65552, 65553, 'highest_kib'), ('shared_pages', 0, 1, 'shared_kib'),
                ('paged_pages', 3, 2, 'paged_kib')), 1):
            with self.subTest(member):
                self.host.create(domid, flags=HVM, offset_kib=64)
                self.host.machine.set(domid, member, before)
                session = self.client.hold(domid)
                verdict = self.assert_verdict(session, 'proceed', 'unchanged')
                self.assertEqual(verdict['now']['physmap'], verdict['baseline']['physmap'])
                self.assertIsNone(verdict['now']['generation'])
                self.host.machine.set(domid, member, now)
                verdict = self.assert_verdict(session, 'retry', 'physmap-changed')
                self.assertEqual(verdict['now']['physmap'][figure] - verdict['baseline']['physmap'][figure], 4 * (now - before))
                self.client.call('guard.retry', session=session['session'])
                self.assert_verdict(session, 'proceed', 'unchanged')

    def test_pages_shared_or_paged_are_told_of_at_once(self):
        self.host.create(1, flags=HVM)
        self.client.hold(1)
        self.subscribe()
        self.host.machine.set(1, 'shared_pages', 5)
        event = self.client.event('session.changed')
        self.assertEqual((event['reason'], event['now']['physmap']['shared_kib']), ('physmap-changed', 20))

    def test_populating_on_demand_is_shown_and_no_change(self):
        """The migration engine does it, by reading."""
        self.host.create(1, flags=HVM)
        self.host.machine.set(1, 'pod_entries', 512)
        session = self.client.hold(1)
        self.host.machine.set(1, 'pod_entries', 500)
        verdict = self.assert_verdict(session, 'proceed', 'unchanged')
        self.assertEqual((verdict['baseline']['physmap']['on_demand_kib'], verdict['now']['physmap']['on_demand_kib']),
                         (2048, 2000))

    def test_there_is_no_p2m_to_show(self):
        self.host.create(1, flags=HVM)
        self.assertIsNone(self.client.call('domain.show', domain=1)['p2m'])


class Attempts(LayoutCase):
    def test_each_attempt_leaves_the_guest_alone_for_longer(self):
        p2m = self.create()
        session = self.client.hold(1, policy={'attempts': 4, 'retry_backoff_ms': 150})
        took = []
        for backoff_ms in (150, 300, 600):
            p2m.update(lambda: None)
            self.assertEqual(self.assert_verdict(session, 'retry', 'generation-changed')['backoff_ms'], backoff_ms)
            started = time.monotonic()
            self.client.call('guard.retry', session=session['session'])
            took.append(time.monotonic() - started)
            self.assertGreater(took[-1], backoff_ms / 1000)
        p2m.update(lambda: None)
        verdict = self.assert_verdict(session, 'abort', 'attempts-exhausted')
        self.assertEqual((verdict['against'], verdict['backoff_ms']), (['generation-changed'], None))

    def test_gate_is_kept_while_the_guest_is_left_alone(self):
        p2m = self.create()
        session = self.client.hold(1, policy={'retry_backoff_ms': 600})
        p2m.update(lambda: None)
        self.subscribe()
        number = self.client.send('guard.retry', session=session['session'])
        self.client.event('session.retry')
        self.assertEqual(self.client.call('guard.show', session=session['session'])['phase'], 'backoff')
        self.host.mem_set(1, 300000)
        self.client.event('target.deferred', target_kib=300000)
        self.assertIn('EACCES', self.host.ask_guest('read 1 memory/target'))
        self.client.reply(number)
        self.assert_held(1)

    def test_stop_while_the_guest_is_left_alone(self):
        p2m = self.create()
        session = self.client.hold(1, policy={'retry_backoff_ms': 20000})
        p2m.update(lambda: None)
        other = self.host.client()
        other.call('events.subscribe')
        self.client.send('guard.retry', session=session['session'])
        other.event('session.retry')
        self.assertEqual(self.end(session)['state'], 'gone')
        self.assertEqual(self.host.snapshot(1)['memory'], 'n0,r1')


class Granularity(unittest.TestCase):
    """Arm's hypervisors and guests may have pages of 16 or 64 KiB: what is said is in KiB all the same."""

    def test_sizes_are_kib_whatever_a_page_is(self):
        for page_kib in (16, 64):
            with self.subTest(page_kib=page_kib):
                host = Host(page_kib=page_kib)
                try:
                    self.hold_one(host, page_kib)
                finally:
                    self.assertEqual(host.stop(), 0)

    def hold_one(self, host, page_kib):
        before = host.create(1, flags=HVM, offset_kib=64)
        client = host.client()
        client.call('events.subscribe')
        shown = client.call('domain.show', domain=1)
        self.assertEqual((shown['page_kib'], shown['guest_page_kib']), (page_kib, page_kib))
        self.assertEqual((shown['tot_kib'], shown['max_kib']), (262208, 262208 + 1024))
        session = client.hold(1)
        self.assertEqual((session['tot_kib'], session['cap_kib']), (262208, 262208))
        self.assertEqual(host.machine.get(1, 'max_pages'), 262208 // page_kib)
        host.mem_set(1, 307200)
        client.event('target.deferred', target_kib=307200)
        self.assertEqual(host.tot_pages(1), 262208 // page_kib)
        self.assertEqual(client.call('guard.verdict', session=session['session'])['verdict'], 'proceed')
        host.machine.set(1, 'tot_pages', host.tot_pages(1) - 1)
        event = client.event('session.changed')
        self.assertEqual(event['now'], {'tot_kib': 262208 - page_kib})
        host.machine.set(1, 'tot_pages', host.tot_pages(1) + 1)
        client.call('guard.end', session=session['session'], outcome='failed')
        self.assertEqual(host.machine.get(1, 'max_pages'), (307200 + 1024) // page_kib)
        host.wait_rest(1, 307200, 64)
        self.assertEqual(host.snapshot(1)['nodes'], before['nodes'])


if __name__ == '__main__':
    unittest.main()
