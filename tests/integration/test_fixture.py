# SPDX-License-Identifier: LGPL-2.1-or-later
"""The imitation is believed only as far as these go: guests balloon, and the gate and the cap work on them by hand.

And so is the runner: what has failed is not ok, and only what failed while the machine stood still is run once more.
"""
import os
import subprocess
import sys
import tempfile
import textwrap
import unittest

from fixture import Host, wait_until

HERE = os.path.dirname(os.path.abspath(__file__))


class Fixture(unittest.TestCase):
    def setUp(self):
        self.host = Host()
        self.addCleanup(self.host.stop)

    def test_guest_follows_its_target(self):
        self.host.create(1, offset_kib=64)
        for kib in (200000, 300000, 262144):
            self.host.mem_set(1, kib)
            self.host.wait_rest(1, kib, 64)

    def test_growth_is_refused_beyond_max_pages_and_tried_again(self):
        self.host.create(1, options='retry_ms=20')
        self.host.store.write('/local/domain/1/memory/target', '300000')
        wait_until(lambda: self.host.machine.get(1, 'refused') >= 3, what='refusals')
        self.assertEqual(self.host.tot_pages(1), 65536 + 256)
        self.host.machine.set(1, 'max_pages', 80000)
        self.host.wait_rest(1, 300000)

    def test_closed_gate_hides_new_targets_without_an_event(self):
        self.host.create(1)
        for node in ('memory', 'memory/target'):
            self.host.store.set_perms(f'/local/domain/1/{node}', 'n0')
        self.host.ask_guest('read 1 memory/target')  # closing it makes an event, which comes before this answer
        before = self.host.tell_guest('status 1')
        self.host.store.write('/local/domain/1/memory/target', '200000')
        self.assertIn('error EACCES', self.host.ask_guest('read 1 memory/target'))
        self.assertEqual(self.host.tell_guest('status 1').split()[3], before.split()[3])
        self.assertEqual(self.host.tot_pages(1), 65536)
        self.host.store.set_perms('/local/domain/1/memory', 'n0,r1')
        self.host.store.set_perms('/local/domain/1/memory/target', 'n0,r1')
        self.host.wait_rest(1, 200000)

    def test_guest_is_stopped_with_events_unread(self):
        for _ in range(100):
            self.host.create(1)
            for kib in range(262144, 262174):
                self.host.store.write('/local/domain/1/memory/target', str(kib))
            self.host.destroy(1)


class Runner(unittest.TestCase):
    """With a module of its own, whose machine stands still when it stops what looks for that."""
    MODULE = """
        import os, signal, time, unittest
        def stand_still():
            with open(f'/proc/self/task/{os.getpid()}/children', encoding='ascii') as file:
                watcher = int(file.read().split()[0])
            os.kill(watcher, signal.SIGSTOP)
            time.sleep(0.4)
            os.kill(watcher, signal.SIGCONT)
        class Made(unittest.TestCase):
            trials = 0
            def setUp(self):
                Made.trials += 1
            def test_it(self):
                # the body
    """

    def run_test(self, body):
        with tempfile.TemporaryDirectory() as folder:
            with open(folder + '/made.py', 'w', encoding='ascii') as file:
                file.write(textwrap.dedent(self.MODULE).replace('# the body', body))
            done = subprocess.run([sys.executable, HERE + '/run', 'made'], env=dict(os.environ, PYTHONPATH=folder),
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout.count('# once more: '), \
            [line for line in done.stdout.splitlines() if line.startswith(('ok', 'not ok'))]

    def test_what_fails_has_failed(self):
        self.assertEqual(self.run_test('self.fail("always")'), (1, 0, ['not ok 1 - Made.test_it']))

    def test_what_fails_once_has_failed(self):
        self.assertEqual(self.run_test('self.assertGreater(self.trials, 1)'), (1, 0, ['not ok 1 - Made.test_it']))

    def test_what_fails_while_the_machine_stands_still_is_run_once_more(self):
        self.assertEqual(self.run_test('self.trials > 1 or stand_still() or self.fail()'),
                         (0, 1, ['ok 1 - Made.test_it']))

    def test_what_fails_always_has_failed_although_the_machine_stands_still(self):
        self.assertEqual(self.run_test('stand_still(); self.fail()'), (1, 2, ['not ok 1 - Made.test_it']))


if __name__ == '__main__':
    unittest.main()
