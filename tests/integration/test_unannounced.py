# SPDX-License-Identifier: LGPL-2.1-or-later
"""Migrations that nobody announced: helpers of toolstacks that know nothing of p2mguard, seen and judged.

Processes are the whole machine's: each run of these tests has domids of its own, so that the daemons of others that run
at the same time look for these helpers' domains in vain.
"""
import os
import shutil
import signal
import subprocess
import time
import unittest

from fixture import BUILD, HVM, KIND, PATIENCE, SHUTDOWN, SUSPENDED, wait_until
from layout import LEAVES
from test_guard import GuardCase

BASE = (1000 if KIND == 'c' else 2500) + os.getpid() % 90 * 16
PID_FILE = '/proc/sys/kernel/ns_last_pid'


def libxl(domid, live=1, stream=0):
    return ['--save-domain', '8', '-1', str(domid), str(live), '12', str(stream)]


def xenopsd(domid, mode='hvm_save', live='true'):
    return ['-controloutfd', '9', '-controlinfd', '10', '-fd', '11', '-mode', mode, '-domid', str(domid), '-live', live]


class UnannouncedCase(GuardCase):
    mechanism = 'poll'
    more = PATIENCE

    def setUp(self):
        self.configuration = f'[daemon]\nwatch_helpers = {self.mechanism}\n{self.more}'
        self.helpers = []
        super().setUp()
        self.addCleanup(self.stop_helpers)
        if self.mechanism == 'exec':
            try:
                wait_until(lambda: self.client.call('daemon.info')['watch_helpers'] == 'exec', 2, 'the connector')
            except AssertionError:
                self.skipTest('the kernel does not tell of programs that are started here')
            wait_until(self.has_read_table, what='the look for those that were started before')
        self.subscribe()

    def has_read_table(self):
        """Since the kernel tells of others; who is started while it is read may be found there first."""
        return 'the process table has been read' in self.host.log_tail(1000).partition('the kernel tells')[2]

    def subscribe(self):
        self.client.call('events.subscribe')

    def stop_helpers(self):
        for helper in self.helpers:
            helper.kill()
            helper.wait()

    def program(self, name):
        path = f'{self.host.folder}/{name}'
        if not os.path.exists(path):
            shutil.copy(BUILD + '/imitated-helper', path)
        return path

    def save(self, domid, name='libxl-save-helper', arguments=None, **options):
        """A helper that saves this domain, until it is told to end."""
        arguments = libxl(domid) if arguments is None else arguments
        process = subprocess.Popen([self.program(name), *arguments], stdin=subprocess.DEVNULL, **options)
        self.helpers.append(process)
        return process

    def end_helper(self, process, how=signal.SIGTERM):
        process.send_signal(how)
        process.wait()

    def seen(self, domid, process):
        event = self.client.event('migration.seen', timeout=40, domid=domid)
        self.assertEqual(event['pid'], process.pid)
        return event

    def start(self, domid, **options):
        """A migration that has been seen."""
        process = self.save(domid, **options)
        self.seen(domid, process)
        return process

    def ended(self, domid, **expected):
        event = self.client.event('migration.ended', domid=domid)
        for key, value in expected.items():
            self.assertEqual(event[key], value, event)
        self.assertEqual(event['exit'], 'unknown')
        return event

    def migrations(self):
        return self.client.call('migration.list')['migrations']

    def assert_only(self, domid):
        self.assertEqual([migration['domid'] for migration in self.migrations()], [domid])


class Polled(UnannouncedCase):
    def test_quiet_guest_would_have_been_let_proceed_and_is_not_touched(self):
        before = self.host.create(BASE, name='web')
        started = time.monotonic()
        process = self.save(BASE)
        seen = self.seen(BASE, process)
        self.assertLess(time.monotonic() - started, 2)
        self.assertEqual((seen['name'], seen['uuid'], seen['mechanism'], seen['program']),
                         ('web', self.host.domains[BASE], self.mechanism, 'libxl-save-helper'))
        self.assertEqual((seen['baseline']['tot_kib'], seen['baseline']['target_kib']), (262144, 262144))
        self.assertFalse(seen['baseline_late'])
        self.assertLess(seen['baseline_after_ms'], 2000)
        self.assertEqual(self.host.snapshot(BASE), before)
        self.assertEqual((self.host.journals(), self.client.call('guard.list')['sessions']), ([], []))
        [record] = self.migrations()
        self.assertEqual((record['state'], record['verdict'], record['outcome']), ('watched', 'proceed', None))
        self.end_helper(process)
        event = self.ended(BASE, verdict='proceed', reason='unchanged', outcome='stayed', against=[], changes=0,
                           target_changes=0, generation_changes=0, pid=process.pid)
        self.assertGreater(event['duration_ms'], 0)
        self.assertIsNone(event['session'])
        listed = self.client.call('migration.list')
        self.assertEqual(listed['migrations'], [])
        self.assertEqual([(record['domid'], record['state'], record['outcome']) for record in listed['ended']],
                         [(BASE, 'ended', 'stayed')])
        self.assertEqual(self.host.snapshot(BASE), before)

    def test_size_that_moved_is_a_retry(self):
        self.host.create(BASE)
        process = self.start(BASE)
        self.host.machine.set(BASE, 'tot_pages', 65000)
        event = self.client.event('migration.changed', domid=BASE)
        self.assertEqual((event['what'], event['reason'], event['before'], event['now']),
                         ('tot_kib', 'tot-pages-changed', {'tot_kib': 262144}, {'tot_kib': 260000}))
        self.host.machine.set(BASE, 'tot_pages', 65536)  # as before, and still not forgiven
        self.client.event('migration.changed', domid=BASE, now={'tot_kib': 262144})
        self.end_helper(process)
        event = self.ended(BASE, verdict='retry', reason='tot-pages-changed', against=['tot-pages-changed'])
        self.assertGreaterEqual(event['changes'], 1)

    def test_guest_that_balloons_under_way(self):
        self.host.create(BASE)
        process = self.start(BASE)
        self.host.mem_set(BASE, 200000)
        self.client.event('migration.changed', domid=BASE, what='tot_kib')
        self.end_helper(process)
        self.ended(BASE, verdict='retry', reason='tot-pages-changed', against=['tot-pages-changed', 'target-changed'],
                   target_changes=1)

    def test_target_that_moved_is_a_retry_though_the_guest_is_deaf(self):
        self.host.create(BASE, mode='deaf')
        process = self.start(BASE)
        for kib in (300000, 200000):
            self.host.store.write(f'/local/domain/{BASE}/memory/target', str(kib))
            event = self.client.event('migration.changed', domid=BASE)
            self.assertEqual((event['what'], event['reason'], event['now']),
                             ('target_kib', 'target-changed', {'target_kib': kib}))
        self.host.store.write(f'/local/domain/{BASE}/memory/target', '200000')  # nothing new
        self.end_helper(process)
        self.ended(BASE, verdict='retry', reason='target-changed', against=['target-changed'], target_changes=2)

    def test_last_target_before_the_end_is_not_missed(self):
        self.host.create(BASE, mode='deaf')
        process = self.start(BASE)
        self.host.store.write(f'/local/domain/{BASE}/memory/target', '300000')
        self.end_helper(process)
        self.ended(BASE, verdict='retry', reason='target-changed', target_changes=1)

    def test_guest_above_its_target_at_the_start_is_a_retry(self):
        self.host.create(BASE, mode='deaf')
        self.host.machine.set(BASE, 'tot_pages', 65536 + 257)  # one page more than the receiver allows
        self.host.create(BASE + 1, mode='deaf')
        self.host.machine.set(BASE + 1, 'tot_pages', 65536 + 256)
        for domid, verdict, reason in ((BASE, 'retry', 'above-target'), (BASE + 1, 'proceed', 'unchanged')):
            process = self.start(domid)
            self.end_helper(process)
            self.ended(domid, verdict=verdict, reason=reason)

    def test_generation_that_moved_is_a_retry(self):
        self.host.create(BASE, generation=4)
        process = self.start(BASE)
        self.host.layouts[BASE].update(lambda: None)
        event = self.client.event('migration.changed', domid=BASE, what='generation')
        self.assertEqual(event['before'], {'generation': 4})
        self.end_helper(process)
        event = self.ended(BASE, verdict='retry', reason='generation-changed', generation_changes=1)

    def test_structure_that_moved_is_a_retry_in_large_guests_too(self):
        for domid, layout in ((BASE, {}), (BASE + 1, {'max_pfn': 24 << 18}), (BASE + 2, {'kind': 'tree'})):
            with self.subTest(layout):
                self.host.create(domid, generation=0, layout=layout)
                process = self.start(domid)
                [record] = self.migrations()
                self.assertRegex(record['baseline']['structure'], '^[0-9a-f]{16}$')
                self.host.layouts[domid].swap_leaves(3, 5)  # no counter moves
                self.end_helper(process)
                self.ended(domid, verdict='retry', reason='structure-changed')

    def test_hardware_assisted_guest(self):
        """Its video memory is no reason to think that it is above its target; its physmap is compared."""
        self.host.create(BASE, flags=HVM, offset_kib=16448, mode='deaf')
        self.host.store.write(f'/local/domain/{BASE}/memory/videoram', '16384')
        process = self.start(BASE)
        self.end_helper(process)
        self.ended(BASE, verdict='proceed', reason='unchanged')
        process = self.start(BASE)
        self.host.machine.set(BASE, 'max_gfn', self.host.machine.get(BASE, 'max_gfn') + 8)
        self.end_helper(process)
        self.ended(BASE, verdict='retry', reason='physmap-changed', against=['physmap-changed'])

    def test_large_guest_that_keeps_still(self):
        self.host.create(BASE, generation=0, layout={'max_pfn': 24 << 18})
        process = self.start(BASE)
        self.end_helper(process)
        self.ended(BASE, verdict='proceed', reason='unchanged')

    def test_p2m_that_cannot_be_read_is_a_retry(self):
        self.host.create(BASE, generation=0)
        p2m = self.host.layouts[BASE]
        p2m.put(p2m.table(2, 0), p2m.index(2, 0), p2m.table(1, 0), flags=0)
        process = self.start(BASE)
        self.assertIsNone(self.migrations()[0]['baseline']['structure'])
        p2m.put_leaf(1, LEAVES + 1)
        self.end_helper(process)
        self.ended(BASE, verdict='retry', reason='structure-unreadable')

    def test_changes_are_told_no_more_often_than_every_100_ms_and_the_last_one_always(self):
        self.host.create(BASE)
        process = self.start(BASE)
        began = time.monotonic()
        for pages in range(65000, 65200):
            self.host.machine.set(BASE, 'tot_pages', pages)
            time.sleep(0.005)  # a guest that never rests
        last = {'tot_kib': 4 * 65199}
        count, event = 1, self.client.event('migration.changed')
        while event['now'] != last:
            count, event = count + 1, self.client.event('migration.changed')
        self.assertLessEqual(count, (time.monotonic() - began) / 0.1 + 2)
        self.end_helper(process)

    def test_saves_of_another_kind_are_not_observed(self):
        others = [libxl(BASE, live=0), libxl(BASE, live=2), libxl(BASE, stream=1), libxl(BASE, stream=2),
                  ['--restore-domain', '8', '-1', str(BASE), '1', '0', '2', '0', '12', '0'], [], ['--save-domain'],
                  libxl('0'), libxl('-1'), libxl(BASE + (1 << 16)), libxl(str(BASE) + '\n'), libxl(''),
                  [*libxl(BASE), '0'], ['x' * 5000, *libxl(BASE)]]
        self.host.create(BASE)
        self.host.create(BASE + 1)
        for arguments in others:
            self.save(BASE, arguments=arguments)
        for arguments in (xenopsd(BASE, mode='hvm_restore'), xenopsd(BASE, live='false'), xenopsd(BASE, mode='listen')):
            self.save(BASE, name='xenguest', arguments=arguments)
            self.save(BASE, name='emu-manager', arguments=arguments)
        self.save(BASE, name='save-helper')
        self.save(BASE + 2)  # no such domain
        self.start(BASE + 1)
        self.assert_only(BASE + 1)

    def test_programs_of_xenopsd_are_known(self):
        for domid, name, mode in ((BASE, 'emu-manager', 'hvm_save'), (BASE + 1, 'xenguest', 'save')):
            self.host.create(domid)
            process = self.save(domid, name=name, arguments=xenopsd(domid, mode=mode))
            self.assertEqual(self.seen(domid, process)['program'], name)
            self.end_helper(process)
            self.ended(domid, verdict='proceed')

    def test_processes_of_others_are_not_believed(self):
        self.host.create(BASE)
        self.host.create(BASE + 1)
        os.chmod(self.host.folder, 0o755)
        self.program('libxl-save-helper')
        self.save(BASE, user=65534, group=65534, extra_groups=[])
        self.start(BASE + 1)
        self.assert_only(BASE + 1)

    def test_domain_under_guard_is_not_observed(self):
        self.host.create(BASE)
        self.host.create(BASE + 1)
        session = self.client.hold(BASE)
        announced = self.save(BASE)
        self.start(BASE + 1)
        self.assert_only(BASE + 1)
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')
        self.end_helper(announced)
        self.end(session)
        self.assert_only(BASE + 1)

    def test_session_that_begins_later_takes_over(self):
        self.host.create(BASE)
        process = self.start(BASE)
        session = self.client.hold(BASE)
        self.assertEqual(session['state'], 'held')
        self.ended(BASE, verdict=None, reason='under-guard', outcome='unknown', session=session['session'])
        self.assertEqual(self.migrations(), [])
        self.host.mem_set(BASE, 300000)
        self.client.event('target.deferred')  # the watches are the session's own
        self.end_helper(process)
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')
        self.end(session)
        self.host.wait_rest(BASE, 300000)

    def test_domain_that_goes_while_it_is_saved(self):
        self.host.create(BASE, generation=0)
        process = self.start(BASE)
        self.host.destroy(BASE)
        self.ended(BASE, verdict='abort', reason='domain-gone', outcome='lost')
        self.assertEqual(self.migrations(), [])
        self.end_helper(process)
        self.assertEqual(self.host.store.list('/local/domain').count(str(BASE)), 0)

    def suspend_and_end(self, domid, process):
        self.host.machine.set(domid, 'flags', SHUTDOWN | SUSPENDED)
        wait_until(lambda: self.migrations()[0]['suspended'], what='the suspended guest')
        self.end_helper(process)
        wait_until(lambda: self.migrations()[0]['state'] == 'ended', what='the verdict')

    def test_domain_that_is_renamed_has_left(self):
        self.host.create(BASE, name='web')
        self.suspend_and_end(BASE, self.start(BASE))
        self.host.store.write(f'/local/domain/{BASE}/name', 'web--migratedaway')
        self.ended(BASE, verdict='proceed', outcome='completed')

    def test_suspended_domain_that_is_destroyed_has_left(self):
        self.host.create(BASE)
        process = self.start(BASE)
        self.suspend_and_end(BASE, process)
        self.host.machine.set(BASE, 'tot_pages', 1000)  # taken apart, which is no change of the guest's
        self.host.destroy(BASE)
        self.ended(BASE, verdict='proceed', outcome='completed', changes=0)

    def test_suspended_domain_that_is_resumed_has_stayed(self):
        self.host.create(BASE)
        self.suspend_and_end(BASE, self.start(BASE))
        self.host.machine.set(BASE, 'flags', 0)
        self.ended(BASE, verdict='proceed', outcome='stayed')

    def test_helper_that_is_killed(self):
        self.host.create(BASE)
        process = self.start(BASE)
        self.end_helper(process, signal.SIGKILL)
        self.ended(BASE, verdict='proceed', outcome='stayed')

    def test_another_attempt_is_another_observation(self):
        self.host.create(BASE)
        for _ in range(3):
            process = self.start(BASE)
            self.end_helper(process)
            self.ended(BASE, pid=process.pid, verdict='proceed')

    def test_second_helper_of_a_domain_waits_for_the_first_to_end(self):
        self.host.create(BASE)
        first = self.start(BASE)
        second = self.save(BASE)
        self.end_helper(first)
        self.ended(BASE, pid=first.pid)
        self.seen(BASE, second)
        self.end_helper(second)
        self.ended(BASE, pid=second.pid)

    def test_number_of_a_process_that_is_used_again(self):
        """The second one has the first one's pid, and ends later."""
        self.host.create(BASE)
        self.host.create(BASE + 1)
        first = self.start(BASE)
        self.end_helper(first)
        second = None
        for _ in range(50):
            try:
                with open(PID_FILE, 'w', encoding='ascii') as file:
                    file.write(str(first.pid - 1))
            except OSError as error:
                self.skipTest(f'{PID_FILE} cannot be written: {error}')
            second = self.save(BASE + 1)
            if second.pid == first.pid:
                break
            self.end_helper(second, signal.SIGKILL)
        if second.pid != first.pid:
            self.skipTest('somebody else takes all numbers of processes first')
        self.ended(BASE, verdict='proceed', outcome='stayed')
        event = self.client.event('migration.seen', timeout=2, domid=BASE + 1, pid=second.pid)
        self.assertEqual(event['domid'], BASE + 1)
        self.end_helper(second)
        self.ended(BASE + 1, pid=second.pid, verdict='proceed')

    def test_two_at_once_are_judged_each_by_itself(self):
        self.host.create(BASE, generation=0)
        self.host.create(BASE + 1)
        one, other = self.start(BASE), self.start(BASE + 1)
        self.assertEqual([migration['domid'] for migration in self.migrations()], [BASE, BASE + 1])
        self.host.layouts[BASE].update(lambda: None)
        self.client.event('migration.changed', domid=BASE)
        self.end_helper(other)
        self.ended(BASE + 1, verdict='proceed')
        self.assert_only(BASE)
        self.end_helper(one)
        self.ended(BASE, verdict='retry', reason='generation-changed')

    def test_stopped_xenstored_keeps_nobody_from_being_judged(self):
        self.host.create(BASE)
        process = self.start(BASE)
        self.host.xenstored.send_signal(signal.SIGSTOP)
        try:
            self.end_helper(process)
            self.ended(BASE, verdict='retry', reason='store-unreachable')
        finally:
            self.host.xenstored.send_signal(signal.SIGCONT)
        second = self.start(BASE)
        self.end_helper(second)
        self.ended(BASE, verdict='proceed')

    def test_xenstored_that_is_stopped_at_the_start(self):
        self.host.create(BASE)
        self.host.xenstored.send_signal(signal.SIGSTOP)
        try:
            process = self.save(BASE)
            seen = self.client.event('migration.seen', timeout=4)
            self.assertEqual((seen['name'], seen['baseline']['tot_kib'], seen['baseline']['target_kib']), ('', 262144, 0))
        finally:
            self.host.xenstored.send_signal(signal.SIGCONT)
        wait_until(lambda: self.migrations()[0]['target_kib'] == 262144, what='the target')
        self.assertEqual(self.migrations()[0]['name'], f'guest{BASE}')
        self.end_helper(process)
        self.ended(BASE, verdict='retry', reason='observation-gap', target_changes=0)

    def test_p2mguardctl_shows_them(self):
        self.host.create(BASE, name='web')
        process = self.start(BASE)
        self.end_helper(process)
        self.ended(BASE)
        def run(*arguments):
            return subprocess.run([BUILD + '/p2mguardctl', '--socket', self.host.control, *arguments], check=True,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=30).stdout
        self.assertRegex(run('migrations'), rf'{BASE} +web +{process.pid} ended .* stayed +proceed +unchanged')
        self.assertIn('"ended":[{', run('migrations', '--json'))
        watch = subprocess.Popen([BUILD + '/p2mguardctl', '--socket', self.host.control, 'watch', '--from', '0'],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        try:
            line = next(line for line in watch.stdout if 'migration.ended' in line)
            self.assertIn('verdict=proceed', line)
        finally:
            watch.kill()
            watch.wait()
            watch.stdout.close()

    def test_records_have_the_documented_members(self):
        document = self.client.call('rpc.discover')
        schema = document['components']['schemas']['MigrationRecord']
        members = {event['type']: set(event['members']) for event in document['x-events']}
        self.host.create(BASE)
        process = self.save(BASE)
        envelope = {'seq', 'time_ms', 'type'}
        self.assertEqual(set(self.seen(BASE, process)) - envelope, members['migration.seen'])
        self.assertEqual(set(self.migrations()[0]), set(schema['properties']))
        self.host.machine.set(BASE, 'tot_pages', 65000)
        self.assertEqual(set(self.client.event('migration.changed')) - envelope, members['migration.changed'])
        self.end_helper(process)
        self.assertEqual(set(self.ended(BASE)) - envelope, members['migration.ended'])
        self.assertEqual(set(self.client.call('migration.list')['ended'][0]), set(schema['properties']))


class Told(Polled):
    """The same by the kernel's process connector."""
    mechanism = 'exec'

    def test_helper_is_seen_at_once(self):
        self.host.create(BASE)
        for _ in range(5):
            process = self.save(BASE)
            seen = self.seen(BASE, process)
            self.assertLess(seen['baseline_after_ms'], 500)
            self.end_helper(process)
            self.ended(BASE)


    def test_starts_that_nobody_had_time_for_are_made_up_for(self):
        """While the daemon stands still, more programs are started than the kernel keeps for it."""
        self.host.create(BASE)
        self.host.daemon.send_signal(signal.SIGSTOP)
        try:
            subprocess.run(['sh', '-c', 'i=0; while [ $i -lt 6000 ]; do /bin/true; i=$((i + 1)); done'], check=True,
                           stdin=subprocess.DEVNULL)
            process = self.save(BASE)
        finally:
            self.host.daemon.send_signal(signal.SIGCONT)
        self.assertEqual(self.seen(BASE, process)['mechanism'], 'poll')


class Restarted(UnannouncedCase):
    mechanism = 'auto'
    more = 'max_gap_ms = 500\n'

    def test_daemon_that_comes_late_says_so(self):
        self.host.create(BASE)
        process = self.start(BASE)
        started = time.monotonic()
        self.host.kill_daemon()
        wait_until(lambda: time.monotonic() - started > 1.7, what='the baseline to be late')
        self.host.start_daemon()
        self.client = self.host.client()
        self.client.call('events.subscribe', **{'from': 0})
        seen = self.seen(BASE, process)
        self.assertTrue(seen['baseline_late'])
        self.assertGreater(seen['baseline_after_ms'], 1500)
        self.end_helper(process)
        self.ended(BASE, verdict='retry', reason='observation-gap')

    def test_helper_that_is_older_than_a_reload(self):
        self.host.create(BASE)
        self.host.create(BASE + 1)
        first = self.start(BASE)
        self.reload('no')
        self.save(BASE + 1)
        self.assertEqual(self.client.call('daemon.info')['watch_helpers'], 'no')
        self.end_helper(first)  # what was known is followed to its end
        self.ended(BASE, verdict='proceed')
        self.assertEqual(self.migrations(), [])
        self.reload('poll')
        self.client.event('migration.seen', timeout=2, domid=BASE + 1, mechanism='poll')

    def reload(self, watch):
        with open(self.host.folder + '/p2mguard.conf', 'w', encoding='utf-8') as file:
            file.write(f'[daemon]\nwatch_helpers = {watch}\nmax_gap_ms = 500\n')
        self.host.daemon.send_signal(signal.SIGHUP)
        self.client.event('daemon.reloaded')

    def test_daemon_without_the_hosts_network_reads_the_process_table(self):
        """As under the unit that is installed."""
        if subprocess.run(['unshare', '--net', 'true'], check=False, stderr=subprocess.DEVNULL).returncode:
            self.skipTest('no network namespace can be made here')
        self.host.stop_daemon()
        with open(self.host.log_path, 'ab') as log:
            self.host.daemon = subprocess.Popen(
                ['unshare', '--net', BUILD + '/p2mguardd-imitated', '--socket', self.host.control, '--log-level', 'debug',
                 '--config', self.host.folder + '/p2mguard.conf'],
                env=self.host.environment, stdin=subprocess.DEVNULL, stderr=log)
        wait_until(self.host._daemon_answers, 40, 'the daemon')
        self.client = self.host.client()
        self.subscribe()
        self.host.create(BASE)
        process = self.save(BASE)
        self.assertEqual(self.seen(BASE, process)['mechanism'], 'poll')
        self.assertEqual(self.client.call('daemon.info')['watch_helpers'], 'poll')
        self.assertIn('the kernel does not tell of programs that are started', self.host.log_tail())
        self.end_helper(process)
        self.ended(BASE, verdict='proceed')

    def test_value_that_is_none_is_refused(self):
        with open(self.host.folder + '/p2mguard.conf', 'w', encoding='utf-8') as file:
            file.write('[daemon]\nwatch_helpers = sometimes\n')
        self.host.daemon.send_signal(signal.SIGHUP)
        wait_until(lambda: "watch_helpers is 'sometimes', expected auto, exec, poll or no" in self.host.log_tail(),
                   what='the complaint')


class SwitchedOff(UnannouncedCase):
    mechanism = 'no'

    def test_nothing_is_looked_for(self):
        self.host.create(BASE)
        self.assertEqual(self.client.call('daemon.info')['watch_helpers'], 'no')
        self.save(BASE)
        with self.assertRaises(TimeoutError):
            self.client.event('migration.seen', timeout=2.5)
        self.assertEqual(self.migrations(), [])


class Bounded(UnannouncedCase):
    mechanism = 'auto'
    more = 'max_sessions = 4\n' + PATIENCE

    def test_a_thousand_helpers_at_once_harm_nobody(self):
        for domid in range(BASE, BASE + 8):
            self.host.create(domid)
        session = self.client.hold(BASE)
        path = self.program('libxl-save-helper')
        for number in range(1000):
            self.helpers.append(subprocess.Popen([path, *libxl(BASE + number % 16)], stdin=subprocess.DEVNULL))
            if number % 100 == 0:
                asked = time.monotonic()
                self.assertEqual(self.verdict(session)['verdict'], 'proceed')
                self.assertLess(time.monotonic() - asked, 1)
                self.assertLessEqual(self.client.call('daemon.info')['migrations'], 4)
        for _ in range(3):
            self.client.event('migration.seen')
        asked = time.monotonic()
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')
        self.assertLess(time.monotonic() - asked, 1)
        self.assertLessEqual(len(self.migrations()), 4)
        descriptors = len(os.listdir(f'/proc/{self.host.daemon.pid}/fd'))
        self.assertLess(descriptors, 100)
        for helper in self.helpers:
            helper.kill()
        for helper in self.helpers:
            helper.wait()
        wait_until(lambda: not self.migrations(), what='the end of all')
        self.end(session)


if __name__ == '__main__':
    unittest.main()
