# SPDX-License-Identifier: LGPL-2.1-or-later
"""Configuration: files and drop-ins, where values come from, reading them again, and policies for single guests."""
import json
import os
import signal
import subprocess
import unittest

from fixture import BUILD, Host, RpcError, wait_until
from test_guard import GuardCase

UUID = '00000002-0000-4000-8000-000000000002'  # of domain 2, as the fixture makes it


class ConfigCase(GuardCase):
    configuration = '[daemon]\nmax_gap_ms = 10000\n[policy]\nattempts = 4\n'

    def setUp(self):
        super().setUp()
        self.main = self.host.folder + '/p2mguard.conf'
        self.folder = self.main + '.d'
        os.mkdir(self.folder)

    def put(self, name, text):
        """A drop-in; its path."""
        path = f'{self.folder}/{name}'
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text)
        return path

    def restart(self):
        self.host.stop_daemon()
        self.host.start_daemon()
        self.client = self.host.client()

    def reload(self):
        return self.client.call('daemon.reload')['changes']

    def refused(self):
        """What is wrong with the configuration, as the daemon says it."""
        with self.assertRaises(RpcError) as caught:
            self.reload()
        self.assertEqual(caught.exception.code, -32010)
        return caught.exception.data

    def key(self, section, name):
        [found] = [key for key in self.client.call('daemon.config')['keys']
                   if (key['section'], key['key']) == (section, name)]
        return found

    def assert_key(self, section, name, value, file=None, line=None):
        key = self.key(section, name)
        self.assertEqual((key['value'], key['file'], key['line']), (value, file, line))
        self.assertEqual(key['origin'], 'file' if file else 'default')

    def run_ctl(self, *arguments, program=BUILD + '/p2mguardd'):
        ended = subprocess.run([BUILD + '/p2mguardctl', '--socket', self.host.control, *arguments],
                               env=dict(os.environ, P2MGUARD_DAEMON=program),
                               stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
        return ended.returncode, ended.stdout, ended.stderr


class Config(ConfigCase):
    def test_drop_ins_and_where_values_come_from(self):
        first = self.put('10-first.conf', '[policy]\nattempts = 5\nquiet_ms = 60\n')
        last = self.put('90-last.conf', '# the last word\n[policy]\nattempts = 6\n')
        self.put('95-other.txt', 'of somebody else\n')
        self.restart()
        self.assertEqual(self.client.call('daemon.config')['files'], [self.main, first, last])
        self.assert_key('policy', 'attempts', 6, last, 3)
        self.assert_key('policy', 'quiet_ms', 60, first, 3)
        self.assert_key('daemon', 'max_gap_ms', 10000, self.main, 2)
        self.assert_key('policy', 'settle_ms', 500)
        self.assert_key('policy', 'require', 'settled')
        self.assert_key('daemon', 'socket_group', None)
        self.assertEqual(self.key('daemon', 'log_level')['origin'], 'command-line')
        self.assertEqual(self.key('daemon', 'socket')['value'], self.host.control)
        self.assertEqual(self.client.call('daemon.info')['policy']['attempts'], 6)

    def test_start_with_a_mistake(self):
        self.host.stop_daemon()
        path = self.put('50-bad.conf', '[policy]\n\nattemps = 5\n')
        self.host.start_daemon(wait=False)
        self.assertEqual(self.host.daemon.wait(20), 2)
        self.assertIn(f"{path}:3: unknown key 'attemps' in [policy]", self.host.log_tail())
        os.unlink(path)
        self.host.start_daemon()
        self.client = self.host.client()
        self.assert_key('policy', 'attempts', 4, self.main, 4)

    def test_reload_while_a_guest_is_held(self):
        self.host.create(1)
        self.host.create(2)
        before = self.client.hold(1, hold='detached')
        self.assertEqual((before['policy']['attempts'], before['policy_section']), (4, None))
        path = self.put('50-new.conf', '[daemon]\npoll_interval_ms = 20\n[policy]\nattempts = 9\n'
                                       '[domain guest1]\nrequire = gate\n')
        self.client.call('events.subscribe')
        self.assertEqual(self.reload(), [
            {'section': 'daemon', 'key': 'poll_interval_ms', 'before': 50, 'now': 20, 'restart': False},
            {'section': 'policy', 'key': 'attempts', 'before': 4, 'now': 9, 'restart': False},
            {'section': 'domain guest1', 'key': 'require', 'before': None, 'now': 'gate', 'restart': False}])
        self.client.event('daemon.reloaded')
        self.assert_key('policy', 'attempts', 9, path, 4)
        self.assertEqual(self.client.call('daemon.info')['poll_interval_ms'], 20)
        after = self.client.call('guard.show', session=before['session'])
        self.assertEqual((after['state'], after['policy'], after['policy_section']), ('held', before['policy'], None))
        self.assertEqual(self.verdict(before)['verdict'], 'proceed')
        self.assertEqual(self.client.hold(2)['policy']['attempts'], 9)
        self.end(before)
        anew = self.client.hold(1)
        self.assertEqual((anew['policy']['require'], anew['policy_section']), ('gate', 'domain guest1'))
        os.unlink(path)
        self.assertEqual(self.reload()[-1], {'section': 'domain guest1', 'key': 'require', 'before': 'gate',
                                             'now': None, 'restart': False})
        self.assertEqual(self.reload(), [])

    def test_reload_with_a_mistake_changes_nothing(self):
        self.host.create(1)
        session = self.client.hold(1)
        before = self.client.call('daemon.config')
        self.put('10-good.conf', '[policy]\nattempts = 9\n')
        path = self.put('50-bad.conf', '[policy]\nquiet_ms = 100\nquiet_ms = 200\n')
        for text, line, what in ((None, 3, 'quiet_ms is given twice in [policy], first in line 2'),
                                 ('[polcy]\n', 1, "unknown section '[polcy]'"),
                                 ('[domain x]\nguard = 1\n', 2, 'expected yes or no'),
                                 ('\n[policy\n', 2, 'expected [section]')):
            if text:
                self.put('50-bad.conf', text)
            data = self.refused()
            self.assertEqual((data['file'], data['line']), (path, line))
            self.assertIn(what, data['what'])
            self.assertIn(f'{path}:{line}: ', self.host.log_tail())
        os.unlink(path)
        os.mkdir(path)
        self.assertEqual(self.refused(), {'file': path, 'line': None, 'what': path + ': is no regular file'})
        self.assertEqual(self.client.call('daemon.config'), before)
        self.assertEqual(self.client.call('guard.show', session=session['session'])['state'], 'held')
        os.rmdir(path)
        self.host.daemon.send_signal(signal.SIGHUP)
        wait_until(lambda: self.key('policy', 'attempts')['value'] == 9, what='SIGHUP does the same')

    def test_keys_that_take_a_restart(self):
        self.assertEqual(self.reload(), [])
        path = self.put('50.conf', '[daemon]\nmax_connections = 99\nsocket_mode = 0600\nxenstore_callers = no\n')
        changes = self.reload()
        self.assertEqual({(change['key'], change['now'], change['restart']) for change in changes},
                         {('max_connections', 99, True), ('socket_mode', '0600', True),
                          ('xenstore_callers', 'no', True)})
        key = self.key('daemon', 'max_connections')
        self.assertEqual((key['value'], key['origin'], key['restart']), (1024, 'default', True))
        self.assertEqual(key['pending'], {'value': 99, 'origin': 'file', 'file': path, 'line': 2})
        self.assertEqual(self.reload(), changes)  # as long as it is to come
        self.host.create(1)
        self.host.store.write('/tool/p2mguard/migrate/1', 'begin')
        wait_until(lambda: self.client.call('guard.list')['sessions'], what='xenstore is served still')
        self.restart()
        key = self.key('daemon', 'max_connections')
        self.assertEqual((key['value'], key['origin'], key['pending']), (99, 'file', None))
        self.assertEqual(os.stat(self.host.control).st_mode & 0o777, 0o600)

    @unittest.skipIf(os.geteuid() != 0, 'becoming another user takes root')
    def test_readers_may_look_and_not_reload(self):
        self.put('50.conf', '[daemon]\nsocket_mode = 0666\n')
        self.restart()
        os.chmod(self.host.folder, 0o755)
        self.host.create(1)
        def body(client):
            keys = [len(client.call('daemon.config')['keys']), len(client.call('domain.policy', domain=1)['keys'])]
            try:
                return keys, client.call('daemon.reload')
            except RpcError as error:
                return keys, error.code
        (keys, code), child = self.host.as_user(body)
        self.assertEqual(code, -32004)
        self.assertGreater(keys[0], keys[1])
        self.assertRegex(self.host.log_tail(), rf'daemon\.reload refused to pid {child}, ')
        self.reload()
        self.assertRegex(self.host.log_tail(), r'daemon\.reload granted to pid \d+, ')


class Guests(ConfigCase):
    configuration = f'''[policy]
attempts = 4
quiet_ms = 50
[domain web*]
attempts = 5
settle_ms = 70
[domain *-db]
attempts = 6
[domain {UUID.upper()}]
attempts = 7
'''

    def policy(self, domain):
        answer = self.client.call('domain.policy', domain=domain)
        return answer['policy_section'], {key['key']: (key['value'], key['section'], key['line'])
                                          for key in answer['keys']}

    def test_each_guest_gets_its_own(self):
        for domid, name, section, attempts in ((1, 'web', 'domain web*', 5), (2, 'web-x', 'domain ' + UUID, 7),
                                               (3, 'web-db', 'domain *-db', 6), (4, 'mail', None, 4)):
            self.host.create(domid, name=name)
            session = self.client.hold(domid, policy={'max_hold_ms': 50000})
            self.assertEqual((session['policy_section'], session['policy']['attempts']), (section, attempts))
            self.assertEqual(session['policy']['max_hold_ms'], 50000)
            self.assertEqual(self.policy(name)[0], section)
        section, policy = self.policy(2)
        self.assertEqual(policy['attempts'], (7, 'domain ' + UUID, 10))
        self.assertEqual(policy['settle_ms'], (70, 'domain web*', 6))
        self.assertEqual(policy['quiet_ms'], (50, 'policy', 3))
        self.assertEqual(policy['rest_ms'], (2000, 'policy', None))
        self.assertEqual(policy['guard'], ('yes', 'policy', None))

    def test_the_callers_word_goes_before(self):
        self.host.create(2, name='web')
        policy = self.client.hold(2, policy={'attempts': 8})['policy']
        self.assertEqual((policy['attempts'], policy['settle_ms']), (8, 100))

    def test_callers_in_xenstore(self):
        self.host.create(2, name='web')
        self.host.create(3, name='a-db')
        self.host.store.write('/tool/p2mguard/migrate/2', 'begin settle_ms=90')
        self.host.store.write('/tool/p2mguard/migrate/3', 'begin')
        sessions = wait_until(lambda: len(found := self.client.call('guard.list')['sessions']) == 2 and found,
                              what='both sessions')
        policies = {session['domid']: session['policy'] for session in sessions}
        self.assertEqual({domid: (policy['attempts'], policy['settle_ms'], policy['quiet_ms'])
                          for domid, policy in policies.items()}, {2: (7, 90, 50), 3: (6, 500, 50)})

    def test_guests_that_are_not_to_be_guarded(self):
        before = self.host.create(1, name='web')
        self.host.create(2)
        held = self.client.hold(1, hold='detached')
        self.put('50.conf', '[domain web]\nguard = no\n')
        self.reload()
        self.assertEqual(self.client.call('guard.show', session=held['session'])['state'], 'held')
        self.end(held)
        self.assertEqual(self.host.snapshot(1), before)
        data = self.assert_rpc_error(-32009, 'guard.begin', domain='web', wait=True)
        self.assertEqual(data['reason'], 'not-guardable')
        self.assertIn('guard = no', data['what'])
        self.host.store.write('/tool/p2mguard/migrate/1', 'begin')
        answer = wait_until(lambda: self.host.store.read_or_none('/tool/p2mguard/migrate/1/verdict'), what='an answer')
        self.assertRegex(answer, '^error the configuration has guard = no for domain 1; expected ')
        self.assertEqual(self.host.snapshot(1), before)
        self.client.hold(2)
        self.put('60.conf', '[policy]\nguard = no\n[domain guest2]\nguard = yes\n')
        self.reload()
        self.end(self.client.call('guard.list')['sessions'][0])
        self.client.hold(2)
        self.host.create(3)
        self.assert_rpc_error(-32009, 'guard.begin', domain=3)

    def test_a_new_name_counts_from_the_next_session_on(self):
        self.host.create(1, name='web')
        session = self.client.hold(1)
        self.host.store.write('/local/domain/1/name', 'my-db')
        self.assertEqual(self.policy(1)[0], 'domain *-db')
        self.assertEqual(self.client.call('guard.show', session=session['session'])['policy']['attempts'], 5)


class Ctl(ConfigCase):
    def test_config(self):
        path = self.put('50.conf', '[daemon]\nmax_connections = 99\n[domain web*]\nattempts = 9\n')
        self.reload()
        self.host.create(1, name='web')
        status, out, err = self.run_ctl('config')
        self.assertEqual((status, err), (0, ''))
        self.assertRegex(out, rf'(?m)^  attempts +4 +{self.main}:4$')
        self.assertRegex(out, r'(?m)^  quiet_ms +300 +default$')
        self.assertRegex(out, r'(?m)^  log_level +debug +command line$')
        self.assertRegex(out, rf'(?m)^  max_connections +1024 +default\n    after a restart +99 +{path}:2$')
        self.assertRegex(out, rf'(?m)^\[domain web\*\]\n  attempts +9 +{path}:4$')
        status, out, _ = self.run_ctl('config', '--changed')
        self.assertEqual([line.split()[0] for line in out.splitlines() if line.startswith('  ')],
                         ['socket', 'log_level', 'max_gap_ms', 'max_connections', 'after', 'attempts', 'attempts'])
        status, out, _ = self.run_ctl('config', '--changed', '--domain', 'web')
        self.assertEqual(out.splitlines()[1:], [f'  attempts                9        [domain web*] {path}:4'])
        status, out, _ = self.run_ctl('config', '--domain', 'web')
        self.assertRegex(out, r'(?m)^  require +settled +default$')
        for arguments in ((), ('--domain', '1')):
            status, out, _ = self.run_ctl('config', *arguments, '--json')
            self.assertEqual((status, len(out.splitlines())), (0, 1))
            self.assertTrue(json.loads(out)['keys'])
        self.assertEqual(self.run_ctl('config', '--domain', 'nobody')[0], 1)

    def test_reload(self):
        path = self.put('50.conf', '[daemon]\nmax_connections = 99\n[policy]\nattempts = 9\n')
        status, out, err = self.run_ctl('config', 'reload')
        self.assertEqual((status, out, err), (0, '[daemon] max_connections: 99, was 1024; takes a restart\n'
                                                 '[policy] attempts: 9, was 4\n', ''))
        os.unlink(path)
        self.assertEqual(json.loads(self.run_ctl('config', 'reload', '--json')[1])['changes'][0]['key'], 'attempts')
        self.assertEqual(self.run_ctl('config', 'reload')[1], 'nothing has changed\n')
        self.put('50.conf', '[policy]\nattempts = many\n')
        status, out, err = self.run_ctl('config', 'reload')
        self.assertEqual((status, out), (1, ''))
        self.assertIn(f"{path}:2: attempts is 'many', expected a number from 1 to 100", err)

    def test_check_takes_no_daemon(self):
        self.host.stop_daemon()
        good, bad = self.put('10.conf', '[policy]\nattempts = 9\n'), self.put('20.conf', '[policy]\nattempts = 0\n')
        self.assertEqual(self.run_ctl('config', 'check', good), (0, good + ': good\n', ''))
        status, out, err = self.run_ctl('config', 'check', good, bad)
        self.assertEqual((status, out), (1, ''))
        self.assertEqual(err, f"{bad}:2: attempts is '0', expected a number from 1 to 100\n")
        status, out, _ = self.run_ctl('--json', 'config', 'check', good, bad)
        self.assertEqual((status, json.loads(out)), (1, {'good': False, 'files': [], 'problem': {
            'file': bad, 'line': 2, 'what': f"{bad}:2: attempts is '0', expected a number from 1 to 100"}}))
        self.assertEqual(json.loads(self.run_ctl('config', 'check', '--json', good)[1])['files'], [good])
        self.assertEqual(self.run_ctl('config', 'check', '/nonexistent'),
                         (1, '', '/nonexistent: No such file or directory\n'))
        status, _, err = self.run_ctl('config', 'check', good, program='/nonexistent')
        self.assertEqual(status, 1)
        self.assertIn('/nonexistent cannot be run: No such file', err)
        self.assertEqual(self.run_ctl('config')[0], 3)

    def test_daemon_checks_as_it_would_start(self):
        self.put('20.conf', '[policy]\nattempts = 0\n')
        ended = subprocess.run([BUILD + '/p2mguardd', '--check-config', '--config', self.main], capture_output=True,
                               stdin=subprocess.DEVNULL, text=True, timeout=60, check=False)
        self.assertEqual((ended.returncode, ended.stdout), (1, ''))
        self.assertIn('20.conf:2: attempts is', ended.stderr)

    def test_usage(self):
        for arguments in (('nonsense',), ('reload', 'x'), ('--changed', 'check'), ('--domain',), ('--bogus',)):
            status, out, err = self.run_ctl('config', *arguments)
            self.assertEqual((status, out), (2, ''), arguments)
            self.assertTrue(err)


class Thaw(unittest.TestCase):
    def test_a_configuration_that_is_not_right_keeps_nobody_frozen(self):
        host = Host()
        self.addCleanup(host.stop)
        before = host.create(1)
        host.client().hold(1, hold='detached')
        host.kill_daemon()
        path = host.folder + '/p2mguard.conf'
        with open(path, 'a', encoding='utf-8') as file:
            file.write('mistake\n')
        ended = subprocess.run([BUILD + '/thaw-imitated', '--socket', host.control, '--config', path, '--all'],
                               env=host.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                               timeout=60, check=False)
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertIn(f'{path}:3: expected', ended.stderr)
        self.assertEqual(host.snapshot(1), before)


if __name__ == '__main__':
    unittest.main()
