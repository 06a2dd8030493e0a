# SPDX-License-Identifier: LGPL-2.1-or-later
"""The control socket as callers meet it."""
import json
import os
import signal
import unittest

from fixture import QUICK, RpcError, wait_until
from test_guard import GuardCase


class Socket(GuardCase):
    configuration = '[daemon]\nsocket_mode = 0666\n[policy]\nattempts = 7\n'

    def test_domain_by_domid_name_and_uuid(self):
        self.host.create(1, name='web')
        for domain in (1, '1', 'web', self.host.domains[1], self.host.domains[1].upper()):
            self.assertEqual(self.client.call('domain.show', domain=domain)['domid'], 1)
        record = self.client.call('domain.show', domain='web')
        self.assertEqual((record['tot_kib'], record['max_kib'], record['target_kib'], record['target_permissions']),
                         (262144, 263168, 262144, 'n0,r1'))
        data = self.assert_rpc_error(-32001, 'guard.begin', domain='webb')
        self.assertIn("'webb'", data['what'])

    def test_name_that_is_no_utf8_is_shown_as_such(self):
        self.host.create(1, name='caf\xe9')  # the fixture writes latin-1
        self.assertEqual([domain['name'] for domain in self.client.call('domain.list')['domains']], ['caf?'])
        session = self.client.hold('caf?')
        self.client.call('events.subscribe')
        self.host.store.write('/local/domain/1/name', 'caf\xe9')  # which is no other name
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')
        self.host.store.write('/local/domain/1/name', 'caf\xe9--migratedaway')
        self.assertEqual(self.client.event('session.gone')['outcome'], 'completed')

    def test_long_words_are_repeated_in_whole_characters(self):
        word = 'a' + '\u20ac' * 100
        self.assertEqual(self.assert_rpc_error(-32001, 'guard.begin', domain=word)['domain'], word)
        self.assertIn('\u20ac', self.assert_rpc_error(-32602, 'guard.begin', domain=1, policy={word: 1})['where'])

    def test_session_that_never_knew_a_target_wants_none(self):
        self.host.create(1)
        self.host.store.remove('/local/domain/1/memory/target')
        self.client.call('events.subscribe')
        data = self.assert_rpc_error(-32009, 'guard.begin', domain=1, wait=True)
        self.assertIsNone(data['session']['wanted_target_kib'])
        self.assertIsNone(self.client.event('session.gone')['wanted_target_kib'])

    def test_what_cannot_be_guarded(self):
        self.host.create(1)
        self.host.create(2)
        self.host.store.remove('/local/domain/2/memory/target')
        session = self.client.hold(1)
        self.assertEqual(self.assert_rpc_error(-32003, 'guard.begin', domain=1)['session'], session['session'])
        self.assertEqual(self.assert_rpc_error(-32009, 'guard.begin', domain=2, wait=True)['reason'], 'not-guardable')
        self.assert_rpc_error(-32002, 'guard.show', session='nobody')
        self.assert_rpc_error(-32007, 'guard.retry', session=self.end(session)['session'])

    def test_bad_parameters_are_named(self):
        self.host.create(1)
        for params, where in (({'domain': 1, 'policy': {'quiet_ms': 1}}, 'params.policy.quiet_ms'),
                              ({'domain': 1, 'policy': {'quite_ms': 100}}, 'params.policy.quite_ms'),
                              ({'domain': 1, 'policy': {'require': 'hope'}}, 'params.policy.require'),
                              ({'domain': 1, 'hold': 'for ever'}, 'params.hold'),
                              ({'domain': True}, 'params.domain'), ({'domain': ''}, 'params.domain'),
                              ({'domain': -1}, 'params.domain'), ({}, 'params.domain'),
                              ({'domain': 1, 'dry': True}, 'params.dry')):
            data = self.assert_rpc_error(-32602, 'guard.begin', **params)
            self.assertEqual(data['where'], where)
            self.assertTrue(data['expected'])
        self.assertEqual(self.client.call('guard.list')['sessions'], [])

    def test_configured_defaults_hold(self):
        self.host.create(1)
        self.assertEqual(self.client.hold(1)['policy']['attempts'], 7)

    def test_reload(self):
        self.client.call('events.subscribe')
        for text, attempts in (('[policy]\nattempts = 9\n', 9), ('[policy]\nattempts = none\n', 9)):
            with open(self.host.folder + '/p2mguard.conf', 'w', encoding='utf-8') as file:
                file.write(text)
            self.host.daemon.send_signal(signal.SIGHUP)
            if attempts == 9 and 'none' not in text:
                self.client.event('daemon.reloaded')
            else:
                wait_until(lambda: 'stays as it was' in self.host.log_tail(), what='the refusal in the log')
            self.assertEqual(self.client.call('daemon.info')['policy']['attempts'], attempts)
        self.assertIn(':2: attempts is', self.host.log_tail())

    @unittest.skipIf(os.geteuid() != 0, "becoming another user takes root")
    def test_readers_may_only_read(self):
        """As another user: the socket is open for all here, and the daemon decides by credentials."""
        self.host.create(1)
        os.chmod(self.host.folder, 0o755)
        session = self.client.hold(1, policy={'retry_grace_ms': 50})
        self.client.call('events.subscribe')
        self.host.machine.set(1, 'tot_pages', 65500)
        self.client.event('session.changed')
        def body(client):
            seen = [client.call('daemon.info')['may_change'], len(client.call('guard.list')['sessions']),
                    client.call('guard.verdict', session=session['session'], phase='precopy')['verdict']]
            for method, params in (('guard.begin', {'domain': 1}), ('guard.retry', {'session': 'x'}),
                                   ('guard.end', {'session': session['session'], 'outcome': 'failed'}),
                                   ('guard.verdict', {'session': session['session']})):
                try:
                    client.call(method, **params)
                    seen.append('allowed')
                except RpcError as error:
                    seen.append(error.code)
            return seen
        seen, _ = self.host.as_user(body)
        self.assertEqual(seen, [False, 1, 'retry', -32004, -32004, -32004, -32004])
        # What a reader was told binds nobody: no grace period has begun, and none can end.
        with self.assertRaises(TimeoutError):
            self.client.event('session.thawing', timeout=0.3)
        self.assertEqual(self.verdict(session)['verdict'], 'retry')
        self.assertEqual(self.client.event('session.thawing')['reason'], 'grace-expired')

    def test_events_are_replayed(self):
        self.host.create(1)
        session = self.client.hold(1)
        self.end(session)
        other = self.host.client()
        answer = other.call('events.subscribe', **{'from': 1})
        self.assertEqual(answer['oldest'], 1)
        kinds, seqs = [], []
        while not kinds or kinds[-1] != 'session.gone':
            if not other.events:
                other.take(10)
                continue
            event = other.events.pop(0)
            kinds.append(event['type'])
            seqs.append(event['seq'])
        self.assertEqual(seqs, list(range(1, len(seqs) + 1)))
        self.assertEqual(kinds, ['daemon.started', 'session.begun', 'session.gated', 'session.pinned', 'session.quiet',
                                 'session.held', 'session.thawing', 'session.gone'])

    def test_garbage_does_not_disturb_others(self):
        self.host.create(1)
        session = self.client.hold(1)
        for garbage in (b'\0\xff\n', b'{' * 5000 + b'\n', b'[]\n', b'{"jsonrpc":"2.0","id":{},"method":1}\n',
                        b'{"jsonrpc":"2.0","id":1,"method":"guard.end","params":{"session":9}}\n', b'half a line'):
            other = self.host.client()
            other.socket.sendall(garbage)
            if garbage.endswith(b'\n'):
                self.assertIn('error', json.dumps(other.line(10)))
            other.close()
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')

    def test_the_openrpc_document_is_what_the_daemon_does(self):
        document = self.client.call('rpc.discover')
        self.assertTrue(document['openrpc'].startswith('1.'))
        self.host.create(1)
        session = self.client.hold(1)
        arguments = {'session': session['session'], 'domain': 1, 'outcome': 'cancelled'}
        order = sorted(document['methods'], key=lambda method: method['name'] == 'guard.end')
        for method in order:
            params = {param['name']: arguments[param['name']] for param in method['params'] if param.get('required')}
            if method['name'] == 'guard.begin':
                self.assert_rpc_error(-32003, 'guard.begin', **params)
            else:
                self.client.call(method['name'], **params)
        self.assert_rpc_error(-32601, 'guard.nothing')
        with open(os.path.join(os.path.dirname(__file__), '../../protocol/openrpc.json'), encoding='utf-8') as file:
            self.assertEqual(json.load(file), document)

    def test_records_have_the_documented_members(self):
        schemas = self.client.call('rpc.discover')['components']['schemas']
        def members(name):
            schema = schemas[name]
            found = set(schema.get('properties', {}))
            for part in schema.get('allOf', []):
                found |= members(part['$ref'].split('/')[-1]) if '$ref' in part else set(part.get('properties', {}))
            return found
        self.host.create(1, generation=2)
        session = self.client.hold(1)
        verdict = self.verdict(session)
        for record, name in ((session, 'SessionRecord'), (session['baseline'], 'Figures'), (verdict, 'VerdictRecord'),
                             (verdict['now'], 'FiguresNow'), (self.client.call('domain.show', domain=1), 'DomainDetails'),
                             (self.client.call('domain.list')['domains'][0], 'DomainRecord'),
                             (self.client.call('daemon.info'), 'DaemonInfo'), (self.end(session), 'SessionRecord')):
            self.assertEqual(set(record), members(name), name)

    def test_verdict_without_a_session_of_ones_own(self):
        self.host.create(1)
        number = self.client.send('guard.begin', domain=1, policy=dict(QUICK, settle_ms=1000))
        session = self.client.reply(number)
        self.assertEqual(session['state'], 'freezing')
        verdict = self.host.client().call('guard.verdict', session=session['session'])
        self.assertEqual((verdict['verdict'], verdict['reason']), ('retry', 'not-held-yet'))


if __name__ == '__main__':
    unittest.main()
