# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clients that nobody here wrote: two libraries for JSON-RPC, and one for xenstore."""
import json
import os
import subprocess
import unittest

from contract import CLIENTS, read_document, run_node
from fixture import BUILD, wait_until
from test_guard import GuardCase


class Callers:
    """What is expected of a caller with a library for JSON-RPC. Either library makes a connection for each call."""

    def setUp(self):
        super().setUp()
        self.caller = self.start()
        self.addCleanup(self.end_caller)

    def end_caller(self):
        self.caller.stdin.close()
        status = self.caller.wait(20)
        self.caller.stdout.close()
        self.assertEqual(status, 0)

    def answer(self, *words):
        self.caller.stdin.write(' '.join(str(word) for word in words) + '\n')
        return json.loads(self.caller.stdout.readline())

    def result(self, *words):
        answer = self.answer(*words)
        self.assertIn('result', answer, words)
        return answer['result']

    def error(self, *words):
        answer = self.answer(*words)
        self.assertIn('error', answer, words)
        return answer['error']

    def test_a_whole_session(self):
        before = self.host.create(1, name='web')
        session = self.result('begin', 'web')
        self.assertEqual((session['state'], session['hold'], session['policy']['quiet_ms']), ('held', 'detached', 50))
        self.assert_held(1)
        name = session['session']
        verdict = self.result('verdict', name)
        self.assertEqual((verdict['verdict'], verdict['phase']), ('proceed', 'final'))
        self.host.machine.set(1, 'tot_pages', 65530)
        self.assertEqual(self.result('verdict', name)['reason'], 'tot-pages-changed')
        self.host.machine.set(1, 'tot_pages', 65536)
        gone = self.result('end', name)
        self.assertEqual((gone['state'], gone['outcome']), ('gone', 'completed'))
        self.assertEqual(self.host.snapshot(1), before)

    def test_errors_arrive_as_the_librarys_own(self):
        self.host.create(1, name='web')
        name = self.result('begin', 'web')['session']
        for words, code, member, value in ((('begin', 'web'), -32003, 'session', name),
                                           (('begin', 'nobody'), -32001, 'domain', 'nobody'),
                                           (('show', '1-00000000'), -32002, 'session', '1-00000000'),
                                           (('verdict', '1-00000000'), -32002, 'session', '1-00000000')):
            error = self.error(*words)
            self.assertEqual((error['code'], error['data'][member]), (code, value), words)
            self.assertTrue(error['message'])
            self.assertTrue(error['data']['what'])
        self.assertEqual(self.result('show', name)['state'], 'held')

    def test_calls_without_parameters(self):
        self.assertEqual(self.result('info')['store'], 'connected')
        self.assertEqual(self.result('list'), {'sessions': []})

    def test_answers_that_come_in_many_pieces(self):
        self.assertEqual(self.result('discover'), read_document())
        for domid in range(1, 61):
            self.host.create(domid)
            self.client.call('guard.begin', domain=domid, hold='detached', policy={'quiet_ms': 60000})
        listed = self.result('list')['sessions']
        self.assertEqual([session['domid'] for session in listed], list(range(1, 61)))

    def test_batch(self):
        self.host.create(1)
        name = self.result('begin', 1)['session']
        shown, listed, code = self.result('batch', name)
        self.assertEqual(shown['session'], name)
        self.assertEqual([session['session'] for session in listed['sessions']], [name])
        self.assertEqual(code, -32002)

    def test_a_hold_for_the_connection_ends_with_the_call(self):
        """As CONTROL.md says of these clients."""
        before = self.host.create(1)
        name = self.result('begin-connection', 1)['session']
        wait_until(lambda: self.result('show', name)['state'] == 'gone', what='the guest let go')
        self.assertEqual(self.result('show', name)['reason'], 'client-gone')
        self.assertEqual(self.host.snapshot(1), before)


class Jayson(Callers, GuardCase):
    def start(self):
        return run_node('jayson-client.js', self.host.control)


class JsonRpcCpp(Callers, GuardCase):
    """libjson-rpc-cpp, with a stub that it has made of the OpenRPC document."""

    def start(self):
        program = BUILD + '/jsonrpccpp-client'
        if not os.path.exists(program):
            self.skipTest('built without libjson-rpc-cpp, which configure did not find')
        return subprocess.Popen([program, self.host.control], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                bufsize=1)


class StoreOnly(GuardCase):
    """A toolstack that knows xenstore and nothing of p2mguard, through python3-pyxs."""

    def setUp(self):
        if subprocess.run(['/usr/bin/python3', '-c', 'import pyxs'], stderr=subprocess.DEVNULL, check=False).returncode:
            self.skipTest('/usr/bin/python3 has no pyxs (Debian: python3-pyxs)')
        super().setUp()
        self.toolstack = subprocess.Popen(['/usr/bin/python3', CLIENTS + '/pyxs-toolstack.py', self.host.store_path],
                                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.addCleanup(self.end_toolstack)
        self.assertEqual(self.toolstack.stdout.readline(), 'ok\n')

    def end_toolstack(self):
        self.toolstack.stdin.close()
        status = self.toolstack.wait(20)
        self.toolstack.stdout.close()
        self.assertEqual(status, 0)

    def do(self, *words):
        """One order to the toolstack, in the words of pyxs-toolstack.py; what it answers."""
        self.toolstack.stdin.write(' '.join(str(word) for word in words) + '\n')
        word, _, rest = self.toolstack.stdout.readline().rstrip('\n').partition(' ')
        if word != 'ok':
            raise AssertionError(f'{words}: {word} {rest}')
        return rest

    def mem_set(self, domid, kib):
        """What "xl mem-set" does; max_pages is set by a hypercall, and not by this toolstack."""
        self.host.machine.set(domid, 'max_pages', self.host.machine.pages(kib + 1024))
        self.do('mem-set', domid, kib)

    def test_target_written_while_held_is_deferred_and_comes_back(self):
        self.host.create(1)
        session = self.client.hold(1)
        self.client.call('events.subscribe')
        path = '/local/domain/1/memory/target'
        self.assertEqual(self.do('read', path), '0262144')
        for kib in (300000, 280000):
            self.mem_set(1, kib)
            self.client.event('target.deferred', target_kib=kib)
            self.do('wait', path, '0262144')
            self.assert_held(1)
        self.assertEqual(self.verdict(session)['verdict'], 'proceed')
        self.assertEqual(self.end(session)['wanted_target_kib'], 280000)
        self.assertEqual(self.do('read', path), '280000')
        self.assertEqual(self.host.machine.get(1, 'max_pages'), 280000 // 4 + 256)
        self.host.wait_rest(1, 280000)

    def test_storm_while_held_loses_no_transaction(self):
        self.host.create(1)
        session = self.client.hold(1)
        for turn in range(100):
            self.mem_set(1, 200000 + 4 * turn)
        self.do('wait', '/local/domain/1/memory/target', '0262144')
        self.assertEqual(self.host.tot_pages(1), 65536)
        self.assertEqual(self.end(session)['wanted_target_kib'], 200396)
        self.assertEqual(self.do('read', '/local/domain/1/memory/target'), '200396')
        self.host.wait_rest(1, 200396)


if __name__ == '__main__':
    unittest.main()
