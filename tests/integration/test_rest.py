# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest that has long been at rest at its target is held at once: its pin is what it sees anyway."""
import time
import unittest

from fixture import HVM, wait_until
from test_guard import GuardCase

# Whoever is shown a pin, or watched settle, with this is not held within a test.
UNHURRIED = {'quiet_ms': 60000, 'settle_ms': 60000, 'rest_ms': 500, 'freeze_timeout_ms': 120000}


class Rest(GuardCase):
    def setUp(self):
        super().setUp()
        self.client.call('events.subscribe')

    def wait_steady(self, least_ms=500):
        wait_until(lambda: self.client.call('domain.show', domain=1)['target_steady_ms'] >= least_ms,
                   what=f'{least_ms} ms without a change')

    def is_held_at_once(self, **policy):
        """For as long as any other guest would not be."""
        session = self.client.hold(1, wait=False, hold='detached', policy=dict(UNHURRIED, **policy))
        self.client.event('session.begun', session=session['session'])
        told = [self.client.event(kind) for kind in ('session.gated', 'session.pinned')]
        self.assertEqual([event['session'] for event in told], [session['session']] * 2)
        # Its gate is shut again over the pin, or stays open for a minute.
        perms = wait_until(lambda: self.host.target(1).startswith('0') and
                           self.host.store.perms('/local/domain/1/memory/target'), what='the pin')
        held = perms == 'n0'
        if held:
            self.client.event('session.held', session=session['session'])
        shown = self.client.call('guard.show', session=session['session'])
        self.assertEqual(shown['state'], 'held' if held else 'freezing')
        self.client.call('guard.end', session=session['session'], outcome='cancelled')
        self.client.event('session.gone', session=session['session'])
        return held

    def test_guest_at_rest_is_held_at_once_and_put_back_exactly(self):
        before = self.host.create(1)
        self.wait_steady(2000)
        start = time.monotonic()
        session = self.client.hold(1, policy=dict(UNHURRIED, rest_ms=2000, settle_ms=2000))
        self.assertLess(time.monotonic() - start, 30)
        self.assertEqual(session['state'], 'held')
        self.assert_held(1)
        self.assertEqual(self.verdict(session)['reason'], 'unchanged')
        self.host.mem_set(1, 200000)
        self.client.event('target.deferred', target_kib=200000)
        self.assertEqual(self.host.tot_pages(1), 65536)
        self.assertEqual(self.verdict(session)['reason'], 'unchanged')
        self.end(session)
        self.assertEqual(self.host.snapshot(1), {**before, 'target': '200000', 'max_pages': 50256})
        self.host.wait_rest(1, 200000)

    def test_time_at_rest_counts_as_settled_and_no_more_than_that(self):
        self.host.create(1)
        self.wait_steady()
        begun = time.monotonic()
        session = self.client.hold(1, policy=dict(UNHURRIED, settle_ms=4000))
        waited_ms = (time.monotonic() - begun) * 1000
        self.assertGreaterEqual(waited_ms + session['target_steady_ms'], 3900)
        self.assertLess(waited_ms, 30000)

    def test_target_has_to_have_been_the_same_for_long_enough(self):
        self.host.create(1)
        self.wait_steady()
        self.assertFalse(self.is_held_at_once(rest_ms=3600000))
        self.assertFalse(self.is_held_at_once(rest_ms=0))
        self.host.mem_set(1, 200000)
        self.host.wait_rest(1, 200000)
        self.wait_steady()
        self.assertTrue(self.is_held_at_once(settle_ms=20))

    def test_size_has_to_be_what_the_target_makes(self):
        self.host.create(1)
        self.wait_steady()
        self.host.machine.set(1, 'tot_pages', 65530)
        self.assertFalse(self.is_held_at_once(settle_ms=20))
        self.host.machine.set(1, 'tot_pages', 65536)
        self.assertTrue(self.is_held_at_once(settle_ms=20))

    def test_constant_between_size_and_target_is_known_or_small(self):
        self.host.create(1, flags=HVM, offset_kib=2000, videoram_kib=8192)
        self.wait_steady()
        self.assertFalse(self.is_held_at_once(settle_ms=20))
        session = self.client.hold(1)
        self.assertEqual(session['offset_kib'], 2000)
        self.end(session)
        self.host.wait_rest(1, 262144, 2000)
        self.wait_steady()
        self.assertTrue(self.is_held_at_once(settle_ms=20))
        self.host.destroy(1)
        self.host.create(1, flags=HVM, offset_kib=64, uuid='22222222-0000-4000-8000-000000000000')
        self.wait_steady()
        self.assertTrue(self.is_held_at_once(settle_ms=20))

    def test_video_memory_is_part_of_the_constant(self):
        before = self.host.create(1, flags=HVM, offset_kib=8256, videoram_kib=8192)
        self.wait_steady()
        self.assertTrue(self.is_held_at_once(settle_ms=20))
        self.assertEqual(self.host.snapshot(1), before)

    def test_video_memory_of_a_domain_that_was_seen_while_it_was_made(self):
        """The hypervisor knows it before its toolstack has written what it has of that."""
        uuid = '11111111-0000-4000-8000-000000000001'
        for field, value in (('uuid', uuid.encode()), ('flags', HVM), ('used', 1)):
            self.host.machine.set(1, field, value)
        self.host.create(2, guest=False)
        wait_until(lambda: self.client.call('domain.show', domain=2)['target_steady_ms'], what='a look at all domains')
        self.host.create(1, flags=HVM, offset_kib=8256, videoram_kib=8192, uuid=uuid)
        self.wait_steady()
        self.assertTrue(self.is_held_at_once(settle_ms=20))

    def test_target_that_is_written_while_the_gate_is_closed(self):
        """Between our look at the target and the pin: the guest may have had the new one, and is shown its pin."""
        before = self.host.create(1)
        proxy = self.put_proxy_between()
        self.client.call('events.subscribe')
        self.wait_steady()
        def write_once(path):
            if path == '/local/domain/1/memory/target':
                proxy.before_change = lambda path: None
                self.host.store.write(path, '250000')
        proxy.before_change = write_once
        session = self.client.hold(1, policy={'rest_ms': 500})
        self.assertEqual(self.client.event('session.gated')['target_kib'], 250000)
        self.client.event('session.quiet')
        self.assertEqual(session['target_kib'], 250000)
        self.end(session)
        self.assertEqual(self.host.snapshot(1), {**before, 'target': '250000'})
        self.host.wait_rest(1, 250000)

    def test_agent_that_is_required_is_asked_all_the_same(self):
        self.host.create(1)
        self.wait_steady()
        self.assert_rpc_error(-32005, 'guard.begin', domain=1, wait=True,
                              policy={'require': 'agent', 'rest_ms': 500, 'freeze_timeout_ms': 1000})


if __name__ == '__main__':
    unittest.main()
