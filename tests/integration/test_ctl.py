# SPDX-License-Identifier: LGPL-2.1-or-later
"""p2mguardctl, against the daemon; the migrating command is a small script."""
import json
import os
import shlex
import signal
import subprocess
import time
import unittest

from fixture import BUILD, SHUTDOWN, SUSPENDED, wait_until
from test_guard import GuardCase

SETTLE = ('--policy', 'quiet_ms=50', '--policy', 'settle_ms=100')


def children_of(pid):
    with open(f'/proc/{pid}/task/{pid}/children', encoding='ascii') as file:
        return file.read().split()


class CtlCase(GuardCase):
    def start(self, *arguments):
        return subprocess.Popen([BUILD + '/p2mguardctl', '--socket', self.host.control, *arguments],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run_ctl(self, *arguments):
        process = self.start(*arguments)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def migrate(self, script, *options, attempts='3', domain='1'):
        status, out, err = self.run_ctl('--json', 'migrate', '--attempts', attempts, *SETTLE, *options, domain, '--',
                                        'sh', '-c', script)
        return status, json.loads(out.splitlines()[-1]) if out else None, err

    def mark(self, name):
        """A file that the scripts can make and look for, and its path."""
        return f'{self.host.folder}/{name}'


class Ctl(CtlCase):
    def test_reading_commands(self):
        self.host.create(1, name='web')
        session = self.client.hold(1)['session']
        for arguments, text in ((('list',), 'web'), (('show', 'web'), session), (('show', '1'), 'held'),
                                (('show', session), 'held'), (('info',), 'imitation'),
                                (('domains',), '256.0 MiB'), (('domain', 'web'), 'n0'),
                                (('verdict', 'web'), 'proceed: nothing changed')):
            status, out, err = self.run_ctl(*arguments)
            self.assertEqual((status, err), (0, ''), arguments)
            self.assertIn(text, out)
        for arguments in (('list',), ('show', 'web'), ('info',), ('domains',), ('domain', '1'), ('verdict', 'web')):
            for placed in (('--json', *arguments), (*arguments, '--json')):
                status, out, _ = self.run_ctl(*placed)
                self.assertEqual(status, 0)
                self.assertEqual(len(out.splitlines()), 1)
                json.loads(out)

    def test_usage_and_missing_daemon(self):
        for arguments in ((), ('lits',), ('show',), ('list', 'x'), ('migrate', '1'), ('migrate', '1', '--'),
                          ('migrate', '--attempts', 'many', '1', '--', 'true'), ('begin',), ('watch', '--from', 'x'),
                          ('migrate', '--policy', 'colour=red', '1', '--', 'true'), ('verdict',)):
            status, out, err = self.run_ctl(*arguments)
            self.assertEqual((status, out), (2, ''), arguments)
            self.assertTrue(err)
        self.host.stop_daemon()
        for arguments in (('list',), ('migrate', '1', '--', 'touch', self.mark('ran'))):
            status, _, err = self.run_ctl(*arguments)
            self.assertEqual(status, 3)
            self.assertIn('is p2mguardd running?', err)
        self.assertFalse(os.path.exists(self.mark('ran')))

    def test_begin_holds_as_long_as_it_runs(self):
        before = self.host.create(1)
        process = self.start('begin', *SETTLE, '1')
        session = process.stdout.readline().strip()
        self.assertEqual(self.client.call('guard.show', session=session)['state'], 'held')
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        self.assertEqual(process.returncode, 0)
        self.assertEqual(self.client.call('guard.show', session=session)['outcome'], 'cancelled')
        self.assertEqual(self.host.snapshot(1), before)

    def test_detached_session_by_hand(self):
        before = self.host.create(1)
        status, out, _ = self.run_ctl('begin', '--detached', *SETTLE, 'guest1')
        self.assertEqual(status, 0)
        self.host.machine.set(1, 'tot_pages', 65535)
        self.assertEqual(self.run_ctl('verdict', out.strip())[0], 6)
        self.host.machine.set(1, 'tot_pages', 65536)
        self.assertEqual(self.run_ctl('retry', 'guest1')[0], 0)
        self.assertEqual(self.run_ctl('verdict', 'guest1')[0], 0)
        self.assertEqual(self.run_ctl('end', 'guest1', 'failed')[0], 0)
        self.assertEqual(self.run_ctl('verdict', out.strip())[0], 4)
        self.assertEqual(self.host.snapshot(1), before)

    def test_watch(self):
        self.host.create(1)
        process = self.start('watch', '--json', '--from', '1')
        self.end(self.client.hold(1))
        kinds = []
        while 'session.gone' not in kinds:
            kinds.append(json.loads(process.stdout.readline())['type'])
        self.assertIn('session.held', kinds)
        self.host.stop_daemon()
        _, err = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 3)
        self.assertIn('closed the connection', err)

    def test_migrated(self):
        before = self.host.create(1)
        status, summary, err = self.migrate('echo copied; exit 0')
        self.assertEqual(status, 0, err)
        self.assertEqual((summary['outcome'], summary['changes'], summary['deferred_command']), ('migrated', 0, None))
        self.assertEqual([attempt['command_exit'] for attempt in summary['attempts']], [0])
        self.assertIn('copied', err)
        self.assertEqual(self.host.snapshot(1), before)

    def test_command_fails_for_reasons_of_its_own(self):
        before = self.host.create(1)
        status, summary, _ = self.migrate('exit 7')
        self.assertEqual((status, summary['outcome']), (1, 'command-failed'))
        self.assertEqual([(a['command_exit'], a['verdict']) for a in summary['attempts']], [(7, 'proceed')])
        self.assertEqual(self.host.snapshot(1), before)
        status, _, err = self.run_ctl('migrate', *SETTLE, '1', '--', '/no/such/command')
        self.assertEqual(status, 1)
        self.assertIn("'/no/such/command' failed: No such file", err)
        self.assertEqual(self.host.snapshot(1), before)

    def migrate_while(self, script, disturb, **options):
        """Runs a migration whose command makes the file "running"; then `disturb` is called."""
        process = self.start('--json', 'migrate', '--attempts', options.get('attempts', '3'), *SETTLE, '1', '--', 'sh',
                             '-c', f'echo $$ >>{self.mark("running")}; {script}')
        wait_until(lambda: os.path.exists(self.mark('running')), 40, 'the command running')
        disturb(process)
        out, err = process.communicate(timeout=60)
        return process.returncode, json.loads(out.splitlines()[-1]) if out else None, err

    def test_moved_page_stops_the_command_and_it_is_run_again(self):
        self.host.create(1)
        # The first run waits to be stopped; the second finds the file and succeeds.
        script = f'[ -e {self.mark("again")} ] && exit 0; touch {self.mark("again")}; exec sleep 60'
        def disturb(_):
            wait_until(lambda: os.path.exists(self.mark('again')), what='the first run')
            self.host.machine.set(1, 'tot_pages', 65500)
        status, summary, err = self.migrate_while(script, disturb)
        self.assertEqual(status, 0, err)
        self.assertEqual([(a['command_signal'], a['command_exit']) for a in summary['attempts']],
                         [(signal.SIGTERM, None), (None, 0)])
        self.assertEqual(summary['attempts'][0]['reason'], 'tot-pages-changed')

    def test_late_answer_about_the_first_attempt_does_not_stop_the_second(self):
        self.host.create(1)
        # The first run ends when it is let, with a question of p2mguardctl's unanswered; the second lasts for a while.
        script = f'''
            wait_for() {{ while [ ! -e "$1" ]; do sleep 0.02; done; }}
            if [ -e {self.mark("again")} ]; then touch {self.mark("second")}; wait_for {self.mark("go")}; exit 0; fi
            trap 'touch {self.mark("told")}; wait_for {self.mark("end")}; exit 1' TERM
            touch {self.mark("again")}
            wait_for {self.mark("never")}'''
        def touch(name):
            with open(self.mark(name), 'w', encoding='ascii'):
                pass
        def disturb(process):
            wait_until(lambda: os.path.exists(self.mark('again')), what='the first run')
            self.host.machine.set(1, 'tot_pages', 65500)
            wait_until(lambda: os.path.exists(self.mark('told')), what='the first run being told to stop')
            os.kill(self.host.daemon.pid, signal.SIGSTOP)
            time.sleep(0.5)  # it asks five times a second, which nothing tells of
            touch('end')
            wait_until(lambda: not children_of(process.pid), what='the first run being over')
            os.kill(self.host.daemon.pid, signal.SIGCONT)
            wait_until(lambda: os.path.exists(self.mark('second')), what='the second run')
            self.host.mem_set(1, 300000)  # an event, on which p2mguardctl looks at what has come
            wait_until(lambda: self.host.target(1).startswith('0'), what='the pin')
            touch('go')
        status, summary, err = self.migrate_while(script, disturb)
        self.assertEqual(status, 0, err)
        self.assertEqual([(a['command_signal'], a['command_exit']) for a in summary['attempts']], [(None, 1), (None, 0)])

    def test_abort_when_attempts_are_used_up(self):
        self.host.create(1)
        status, summary, _ = self.migrate_while(
            'exec sleep 60', lambda _: self.host.machine.set(1, 'tot_pages', 65500), attempts='1')
        self.assertEqual((status, summary['outcome']), (4, 'aborted'))
        self.assertEqual(summary['attempts'][0]['command_signal'], signal.SIGTERM)

    def test_suspended_guest_is_not_pulled_from_under_the_toolstack(self):
        self.host.create(1)
        def disturb(_):
            self.host.machine.set(1, 'tot_pages', 65500)
            self.host.machine.set(1, 'flags', SHUTDOWN | SUSPENDED)
            with open(self.mark('go'), 'w', encoding='ascii'):
                pass
        script = f'while [ ! -e {self.mark("go")} ]; do :; done; exec sleep 1'
        status, summary, _ = self.migrate_while(script, disturb)
        self.assertEqual((status, summary['attempts'][0]['command_signal']), (0, None))

    def test_guest_that_cannot_be_held(self):
        self.host.create(1, mode='stubborn')
        status, summary, err = self.migrate(f'touch {self.mark("ran")}', '--policy', 'freeze_timeout_ms=600')
        self.assertEqual((status, summary['outcome']), (5, 'not-held'), err)
        self.assertFalse(os.path.exists(self.mark('ran')))
        self.assertEqual(self.run_ctl('migrate', 'nobody', '--', 'true')[0], 1)

    def test_daemon_vanishes_while_the_command_runs(self):
        self.host.create(1)
        def disturb(_):
            self.host.kill_daemon()
            with open(self.mark('go'), 'w', encoding='ascii'):
                pass
        script = f'while [ ! -e {self.mark("go")} ]; do :; done; exit 0'
        status, summary, err = self.migrate_while(script, disturb)
        self.assertEqual(status, 0)
        self.assertTrue(summary['unguarded'])
        self.assertIn('without a guard', err)
        self.host.start_daemon()

    def test_told_to_stop(self):
        before = self.host.create(1)
        status, summary, _ = self.migrate_while('exec sleep 60', lambda process: process.terminate())
        self.assertEqual((status, summary['outcome']), (1, 'cancelled'))
        self.assertEqual(self.host.snapshot(1), before)

    def test_killed_with_the_guest_held(self):
        before = self.host.create(1)
        process = self.start('migrate', *SETTLE, '1', '--', 'sh', '-c',
                             f'echo $$ >{self.mark("pid")}; exec sleep 60')
        wait_until(lambda: os.path.exists(self.mark('pid')) and os.path.getsize(self.mark('pid')), 40, 'the command')
        process.kill()
        process.wait()
        wait_until(lambda: not self.host.journals(), what='the journal gone')
        self.assertEqual(self.host.snapshot(1), before)
        with open(self.mark('pid'), encoding='ascii') as file:
            os.kill(int(file.read()), signal.SIGKILL)  # the command lives on, and has our pipes
        process.communicate()

    def test_deferred_target_is_named_or_passed_on(self):
        self.host.create(1, name='u')
        def asked(_):
            self.host.mem_set(1, 300000)
            wait_until(lambda: self.host.target(1) == '0262144', what='the pin')
            with open(self.mark('go'), 'w', encoding='ascii'):
                pass
        script = f'while [ ! -e {self.mark("go")} ]; do :; done'
        status, summary, err = self.migrate_while(script, asked)
        self.assertEqual((status, summary['deferred_target_kib'], summary['deferred_applied']), (0, 300000, False))
        self.assertEqual(summary['deferred_command'], 'xl mem-set u 300000k')
        self.assertIn('xl mem-set u 300000k', err)
        os.unlink(self.mark('running'))
        os.unlink(self.mark('go'))

        def arrived(process):
            self.host.mem_set(1, 310000)
            wait_until(lambda: self.host.target(1).startswith('0'), what='the pin')
            pin = int(self.host.target(1))
            self.host.create(2, name='u--incoming', uuid=self.host.domains[1], target_kib=pin)
            wait_until(lambda: self.host.target(2).startswith('0'), what='the mark')
            asked_go = open(self.mark('go'), 'w', encoding='ascii')
            asked_go.close()
        self.host.wait_rest(1, 300000)
        status, summary, err = self.migrate_while(script, arrived)
        self.assertEqual((status, summary['deferred_applied']), (0, True), err)
        self.assertEqual(self.host.target(2), '310000')

    def test_deferred_target_of_a_guest_with_an_odd_name(self):
        self.host.create(1, name="it's $(touch ran)")
        def asked(_):
            self.host.mem_set(1, 300000)
            wait_until(lambda: self.host.target(1) == '0262144', what='the pin')
            with open(self.mark('go'), 'w', encoding='ascii'):
                pass
        status, summary, err = self.migrate_while(f'while [ ! -e {self.mark("go")} ]; do :; done', asked)
        self.assertEqual(status, 0, err)
        self.assertEqual(shlex.split(summary['deferred_command']), ['xl', 'mem-set', "it's $(touch ran)", '300000k'])

    def test_deferred_target_of_a_guest_that_was_saved_is_named(self):
        """"xl save" takes the domain away before it ends."""
        self.host.create(1, name='u')
        def saved(_):
            self.host.mem_set(1, 300000)
            wait_until(lambda: self.host.target(1) == '0262144', what='the pin')
            self.host.destroy(1)
            with open(self.mark('go'), 'w', encoding='ascii'):
                pass
        status, summary, err = self.migrate_while(f'while [ ! -e {self.mark("go")} ]; do :; done', saved)
        self.assertEqual((status, summary['deferred_target_kib'], summary['deferred_command']),
                         (0, 300000, 'xl mem-set u 300000k'), err)
        # None: it was gone before the first verdict was given; never that it is to be aborted.
        self.assertEqual([a['command_exit'] for a in summary['attempts']], [0])
        self.assertIn(summary['attempts'][0]['verdict'], ('proceed', None))


if __name__ == '__main__':
    unittest.main()
