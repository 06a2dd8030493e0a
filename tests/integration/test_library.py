# SPDX-License-Identifier: LGPL-2.1-or-later
"""libp2mguard, as a program in C that calls it sees it, and the programs that show how it is used."""
import errno
import json
import os
import re
import signal
import socket
import subprocess
import threading
import unittest

from fixture import BUILD, wait_until
from test_guard import GuardCase

WAIT, DETACHED = 1, 2
PRECOPY, FINAL = 0, 1
PROCEED, RETRY, ABORT = 0, 1, 2
COMPLETED, FAILED, CANCELLED = 0, 1, 2
ENGINE_ABORTS, ENGINE_GOES_ON, ENGINE_STOPS = -1, 0, 1
QUICKLY = 'quiet_ms=50 settle_ms=100'


class Caller:
    """A program that has the library, told what to call."""

    def __init__(self, path):
        self.process = subprocess.Popen([BUILD + '/library-client', path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, bufsize=1)
        self.connected = self.answer()[0]

    def answer(self):
        status, _, rest = self.process.stdout.readline().rstrip('\n').partition(' ')
        return int(status), rest

    def call(self, *words):
        self.process.stdin.write(' '.join(str(word) for word in words) + '\n')
        return self.answer()

    def record(self, *words):
        status, rest = self.call(*words)
        if status < 0:
            raise AssertionError(f'{words}: {status} {rest}')
        return json.loads(rest) if rest else None

    def begin(self, domain, flags=WAIT, policy=QUICKLY):
        return self.record('begin', domain, flags, policy)

    def close(self):
        """The exit status, as it ends by itself."""
        self.process.stdin.close()
        status = self.process.wait(20)
        self.process.stdout.close()
        return status


class Library(GuardCase):
    def setUp(self):
        super().setUp()
        self.caller = self.new_caller()

    def new_caller(self, path=None):
        caller = Caller(path or self.host.control)
        def end():
            if not caller.process.stdin.closed:
                self.assertEqual(caller.close(), 0 if caller.connected == 0 else 1)
        self.addCleanup(end)
        return caller

    def test_a_whole_session(self):
        before = self.host.create(1, name='u')
        session = self.caller.begin('u')
        self.assertEqual((session['state'], session['hold'], session['policy']['settle_ms']), ('held', 'connection', 100))
        self.assert_held(1)
        name = session['session']
        for phase in (PRECOPY, FINAL):
            status, text = self.caller.call('verdict', name, phase)
            self.assertEqual((status, json.loads(text)['phase']), (PROCEED, ('precopy', 'final')[phase]))
        self.assertEqual(self.caller.call('member', 'now.tot_kib'), (1, '262144'))
        self.assertEqual(self.caller.call('member', 'now.gate'), (1, 'closed'))
        for absent in ('now.nothing', 'nothing.at.all', 'against', 'now', 'backoff_ms', 'x' * 100, '.', 'now.'):
            self.assertEqual(self.caller.call('member', absent)[0], 0, absent)
        self.assertEqual([entry['session'] for entry in self.caller.record('list')], [name])
        self.host.mem_set(1, 300000)
        wait_until(lambda: self.caller.record('show', name)['deferred_target_kib'] == 300000, what='the deferred target')
        gone = self.caller.record('end', name, FAILED)
        self.assertEqual((gone['state'], gone['outcome'], gone['deferred_target_kib']), ('gone', 'failed', 300000))
        self.host.wait_rest(1, 300000)
        self.assertEqual(self.host.snapshot(1)['nodes'], before['nodes'])
        self.assertEqual(self.caller.record('list'), [])
        self.assertEqual(self.caller.call('verdict', name, FINAL)[0], ABORT)

    def test_retry(self):
        self.host.create(1)
        name = self.caller.begin(1)['session']
        self.host.machine.set(1, 'tot_pages', 65530)
        self.assertEqual(self.caller.call('verdict', name, FINAL)[0], RETRY)
        self.assertEqual(self.caller.call('member', 'reason'), (1, 'tot-pages-changed'))
        self.assertEqual(self.caller.call('retry', name), (0, ''))
        self.assertEqual(self.caller.record('show', name)['attempt'], 2)
        self.assertEqual(self.caller.call('verdict', name, FINAL)[0], PROCEED)

    def test_hold_ends_with_the_connection_or_is_detached(self):
        before = {domid: self.host.create(domid) for domid in (1, 2)}
        self.caller.begin(1)
        self.caller.begin(2, WAIT | DETACHED)
        self.caller.process.kill()
        self.caller.process.wait()
        self.caller.process.stdin.close()
        self.caller.process.stdout.close()
        wait_until(lambda: self.host.journals() == ['2'], what='the first guest let go')
        self.assertEqual(self.host.snapshot(1), before[1])
        self.assert_held(2)

    def test_errors_are_the_daemons_and_said_in_words(self):
        self.host.create(1)
        name = self.caller.begin(1)['session']
        for words, status, text in ((('begin', 'nobody', WAIT), -32001, 'nobody'), (('begin', 1, WAIT), -32003, 'guard'),
                                    (('begin', 1, WAIT, 'settle_ms=no'), -32602, 'settle_ms'),
                                    (('begin', 1, WAIT, 'settle=1'), -32602, 'settle'),
                                    (('begin', 1, WAIT, 'settle_ms'), -errno.EINVAL, 'KEY=VALUE'),
                                    (('begin', 1, WAIT, '=1'), -errno.EINVAL, 'KEY=VALUE'),
                                    (('begin', 1, WAIT, 'k' * 64 + '=1'), -errno.EINVAL, 'KEY=VALUE'),
                                    (('verdict', '1-00000000', FINAL), -32002, 'it never was'),
                                    (('retry', '9-00000000'), -32002, 'it never was'),
                                    (('send', 'guard.list', '[1]'), -errno.EINVAL, 'no object'),
                                    (('send', 'guard.list', '{"a'), -errno.EINVAL, 'no JSON')):
            got, why = self.caller.call(*words)
            self.assertEqual(got, status, words)
            self.assertIn(text, why, words)
            self.assertFalse(why.endswith('.'), why)
        self.assertEqual(self.caller.call('verdict', name, FINAL)[0], PROCEED)  # and it goes on

    def test_guest_that_cannot_be_held(self):
        before = self.host.create(1, mode='stubborn')
        status, why = self.caller.call('begin', 1, WAIT, QUICKLY, 'freeze_timeout_ms=400')
        self.assertEqual(status, -32005, why)
        wait_until(lambda: not self.host.journals(), what='the guest let go')
        self.assertEqual(self.host.snapshot(1), before)

    def test_events(self):
        self.host.create(1)
        self.assertEqual(self.caller.call('event', 0), (0, ''))
        self.assertEqual(self.caller.call('subscribe', 0)[0], 0)
        self.caller.begin(1)
        kinds = []
        while not kinds or kinds[-1] != 'session.held':
            event = self.caller.record('event', 10000)
            kinds.append(event['type'])
        self.assertEqual(kinds[:2], ['session.begun', 'session.gated'])
        self.assertEqual(self.caller.call('event', 50), (0, ''))
        other = self.new_caller()
        self.assertEqual(other.call('subscribe', 1)[0], 0)  # those that are kept, from the first on
        self.assertEqual(other.record('event', 10000)['seq'], 1)

    def test_in_a_loop_of_the_callers_own(self):
        self.host.create(1)
        begun = self.caller.call('send', 'guard.begin', '{"domain":1,"wait":true,"policy":{"quiet_ms":50,"settle_ms":300}}')[0]
        listed = self.caller.call('send', 'guard.list')[0]
        self.assertGreater(listed, begun)
        self.assertIn('sessions', self.caller.record('wait', listed))  # it overtakes the other
        self.assertEqual(self.caller.call('reply', begun)[0], 0)
        self.assertEqual(self.caller.record('wait', begun)['state'], 'held')
        self.assertEqual(self.caller.call('reply', begun)[0], 0)  # an answer is given once
        # Only dispatch reads: what somebody polls for must not be taken away behind his back.
        listed = self.caller.call('send', 'guard.list')[0]
        self.client.call('guard.list')  # by its answer the other one is there as well, as good as always
        self.assertEqual([self.caller.call(*words)[0] for words in (('reply', listed), ('event', 0), ('reply', listed))], [0, 0, 0])
        self.assertIn('sessions', self.caller.record('wait', listed))
        failing = self.caller.call('send', 'guard.show', '{"session":"1-00000000"}')[0]
        self.assertEqual(self.caller.call('wait', failing)[0], -32002)
        self.assertEqual(self.caller.call('dispatch')[0], 0)

    def test_daemon_that_goes(self):
        self.host.create(1)
        name = self.caller.begin(1)['session']
        waiting = self.caller.call('send', 'guard.list')[0]
        self.host.kill_daemon()
        status = self.caller.call('wait', waiting)[0]
        self.assertIn(status, (1, -errno.EPIPE))
        for words in (('verdict', name, FINAL), ('list',), ('event', 1000), ('dispatch',), ('send', 'guard.list')):
            got, why = self.caller.call(*words)
            self.assertEqual(got, -errno.EPIPE, words)
            self.assertIn('closed', why)

    def test_no_daemon(self):
        self.assertEqual(self.new_caller(self.host.folder + '/nothing').connected, -errno.ENOENT)
        self.host.kill_daemon()
        self.assertEqual(self.new_caller().connected, -errno.ECONNREFUSED)

    # ---- in a migration engine ----

    def engine(self, name, iteration=0, dirty=-1, *own):
        """What the callback answers, the verdict, and its reason."""
        decision, rest = self.caller.call('precopy', name, iteration, dirty, *own)
        verdict, _, reason = rest.partition(' ')
        return (decision, int(verdict), reason)

    def test_engine_decides_as_it_would_over_a_quiet_guest(self):
        self.host.create(1)
        name = self.caller.begin(1)['session']
        unchanged = (PROCEED, 'unchanged')
        self.assertEqual(self.engine(name), (ENGINE_GOES_ON, *unchanged))
        self.assertEqual(self.engine(name, 4, 50), (ENGINE_GOES_ON, *unchanged))
        self.assertEqual(self.engine(name, 1, 49), (ENGINE_STOPS, *unchanged))
        self.assertEqual(self.engine(name, 5, 100000), (ENGINE_STOPS, *unchanged))
        self.assertEqual(self.engine(name, 9, 1, ENGINE_GOES_ON), (ENGINE_GOES_ON, *unchanged))
        self.assertEqual(self.engine(name, 0, -1, ENGINE_STOPS), (ENGINE_STOPS, *unchanged))
        self.assertEqual(self.engine(name, 0, -1, ENGINE_ABORTS)[0], ENGINE_ABORTS)

    def test_engine_is_stopped_when_the_guest_changes(self):
        self.host.create(1)
        name = self.caller.begin(1)['session']
        self.host.machine.set(1, 'tot_pages', 65530)
        for own in (ENGINE_STOPS, ENGINE_GOES_ON):
            self.assertEqual(self.engine(name, 1, 1000, own), (ENGINE_ABORTS, RETRY, 'tot-pages-changed'))

    def test_engine_looks_at_the_gate_before_it_stops_the_guest(self):
        self.host.create(1)
        name = self.caller.begin(1)['session']
        self.caller.call('subscribe', 0)
        self.host.daemon.send_signal(signal.SIGSTOP)
        self.host.store.set_perms('/local/domain/1/memory', 'n0,r1')
        self.host.store.set_perms('/local/domain/1/memory/target', 'n0,r1')
        answers = []
        asking = threading.Thread(target=lambda: answers.append(self.engine(name, 5, 0)))
        asking.start()
        self.host.daemon.send_signal(signal.SIGCONT)
        asking.join(20)
        self.assertEqual(answers, [(ENGINE_ABORTS, RETRY, 'gate-opened')])

    def test_engine_is_stopped_when_nobody_can_vouch_for_the_guest(self):
        self.host.create(1)
        name = self.caller.begin(1)['session']
        self.assertEqual(self.engine('1-00000000'), (ENGINE_ABORTS, -32002, 'error'))
        self.host.kill_daemon()
        self.assertEqual(self.engine(name), (ENGINE_ABORTS, -errno.EPIPE, 'error'))

    # ---- a peer that is not p2mguardd ----

    def impostor(self, *lines):
        """Answers each request with the next of these, and then goes."""
        path = self.host.folder + '/impostor'
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)
        def serve():
            peer = listener.accept()[0]
            for line in lines:
                if not peer.recv(65536):
                    break
                peer.sendall(line)
            peer.close()
            listener.close()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        self.addCleanup(thread.join, 10)
        return self.new_caller(path)

    def test_answers_that_make_no_sense(self):
        caller = self.impostor(b'{"id":1,"result":{"verdict":"perhaps"}}\n', b'{"id":2,"result":{}}\n', b'{"id":3,"result":7}\n',
                               b'{"id":4,"error":{}}\n', b'{"id":5,"error":7}\n', b'{"id":6,"error":{"code":17,"message":5}}\n',
                               b'{"id":7,"result":{"session":"' + b'x' * 64 + b'"}}\n', b'no JSON\n')
        for words in (('verdict', 's', FINAL), ('verdict', 's', FINAL), ('list',), ('show', 's'), ('show', 's'), ('show', 's'),
                      ('begin', 1, 0), ('list',)):
            status, why = caller.call(*words)
            self.assertEqual(status, -errno.EPROTO, words)
            self.assertTrue(why, words)

    # ---- the programs that show how it is used ----

    def test_example_of_a_toolstack(self):
        before = self.host.create(1, name='u')
        def guarded(domain, command):
            done = subprocess.run([BUILD + '/client/examples/guarded', domain, command, self.host.control], timeout=60,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
            return done.returncode, done.stdout.strip(), done.stderr.strip()
        self.assertEqual(guarded('u', 'true'), (0, 'proceed', ''))
        self.assertEqual(guarded('u', 'false'), (0, 'proceed', ''))
        status, out, err = guarded('nobody', 'true')
        self.assertEqual((status, out), (1, ''))
        self.assertIn('nobody', err)
        self.assertEqual(self.host.snapshot(1), before)

    def test_example_of_a_loop(self):
        self.host.create(1)
        follow = subprocess.Popen([BUILD + '/client/examples/follow', self.host.control], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True, bufsize=1)
        self.assertEqual(follow.stdout.readline(), '{"sessions":[]}\n')
        self.client.hold(1)
        self.assertEqual(json.loads(follow.stdout.readline())['type'], 'session.begun')
        follow.stdin.close()
        self.assertEqual(follow.wait(20), 0)
        follow.stdout.close()

    # ---- what it exports ----

    def test_symbols_are_those_of_the_header_and_have_a_version(self):
        library = os.path.realpath(BUILD + '/.libs/libp2mguard.so')
        if not os.path.exists(library):
            self.skipTest('this build makes no shared library')
        listed = subprocess.run(['nm', '-D', '--defined-only', library], stdout=subprocess.PIPE, text=True, check=True).stdout
        exported = {line.split()[2] for line in listed.splitlines() if line.split()[1] in 'TDBR'}
        here = os.path.dirname(os.path.abspath(__file__))
        with open(here + '/../../client/p2mguard.h', encoding='utf-8') as header:
            declared = set(re.findall(r'\b(p2mguard_\w+)\(', header.read()))
        self.assertEqual(exported, {name + '@@P2MGUARD_0.1' for name in declared})


if __name__ == '__main__':
    unittest.main()
