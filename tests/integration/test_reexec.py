# SPDX-License-Identifier: LGPL-2.1-or-later
"""The daemon executes its program anew, as after an upgrade, with all that it holds."""
import json
import os
import shutil
import signal
import subprocess
import threading
import time

from fixture import BUILD, PATIENT, QUICK, RpcError, Store, StoreError, wait_until
from test_guard import GuardCase

FOLDER = '/tool/p2mguard/migrate'


class Sampler(threading.Thread):
    """Looks at a held domain all the time: what the guest may read, and how far it may grow."""

    def __init__(self, host, domid, max_pages):
        super().__init__(daemon=True)
        self.host, self.domid, self.max_pages = host, domid, max_pages
        self.looks, self.bad, self.over = 0, [], threading.Event()
        self.start()

    def run(self):
        store = Store(self.host.store_path)
        path = f'/local/domain/{self.domid}/memory'
        while not self.over.is_set():
            found = (store.perms(path), store.perms(path + '/target'), self.host.machine.get(self.domid, 'max_pages'))
            self.looks += 1
            if found != ('n0', 'n0', self.max_pages):
                self.bad.append(found)
        store.close()

    def stop(self):
        self.over.set()
        self.join()
        return self.bad


class Reexec(GuardCase):
    configuration = PATIENT + '[domain u]\nattempts = 7\n'

    def setUp(self):
        super().setUp()
        self.client.call('events.subscribe')
        self.program = self.host.folder + '/p2mguardd'

    def own_program(self):
        """One that the test may replace."""
        self.client.close()
        self.host.stop_daemon()
        shutil.copy(f'{BUILD}/{self.host.program}', self.program)
        self.host.program = os.path.relpath(self.program, BUILD)
        self.host.start_daemon()
        self.client = self.host.client()
        self.client.call('events.subscribe')

    def replace_program(self, content):
        if os.path.exists(self.program):
            os.unlink(self.program)  # as packages are unpacked: the file that runs stays what it is
        if content is None:
            return
        with open(self.program, 'wb') as file:
            file.write(content)
        os.chmod(self.program, 0o755)

    def reexec(self, client=None):
        client = client or self.client
        client.call('daemon.reexec')
        return client.event('daemon.reexecuted')

    def judge(self, session):
        verdict = self.verdict(session)
        return verdict['verdict'], verdict['reason']

    def held_again(self, session):
        def held():
            return self.client.call('guard.show', session=session['session'])['state'] == 'held'
        wait_until(held, 40, 'the guest held')

    def test_held_guest_stays_held(self):
        before = self.host.create(1, name='u')
        session = self.client.hold('u')
        self.host.mem_set(1, 300000)
        self.client.event('target.deferred')
        pid = self.host.daemon.pid
        sampler = Sampler(self.host, 1, 65536)
        event = self.reexec()
        self.assertEqual((event['sessions'], event['connections']), (1, 1))
        self.held_again(session)
        self.assertEqual((sampler.stop(), self.host.daemon.poll()), ([], None))
        self.assertGreater(sampler.looks, 5)
        self.assertEqual(self.client.call('daemon.info')['pid'], pid)
        after = self.client.call('guard.show', session=session['session'])
        for key in ('name', 'domid', 'uuid', 'hold', 'owner', 'policy', 'policy_section', 'attempt', 'pin_kib'):
            self.assertEqual(after[key], session[key], key)
        self.assertEqual((after['hold'], after['wanted_target_kib']), ('connection', 300000))
        # A migration that began before was not seen for a moment; the next attempt is whole.
        for _ in range(2):
            self.assertEqual(self.judge(session), ('retry', 'observation-gap'))
        self.client.call('guard.retry', session=session['session'])
        self.assertEqual(self.judge(session), ('proceed', 'unchanged'))
        self.end(session)
        self.assertEqual(self.host.snapshot(1), {**before, 'target': '300000', 'max_pages': 300000 // 4 + 256})
        self.assertEqual(self.host.journals(), [])

    def test_numbers_of_events_go_on(self):
        self.host.create(1)
        self.client.hold(1, hold='detached')
        seen = [event['seq'] for event in self.client.events]
        self.client.call('daemon.reexec')
        while not any(event['type'] == 'daemon.reexecuted' for event in self.client.events):
            self.client.take(30)
        numbers = [event['seq'] for event in self.client.events]
        self.assertEqual(numbers, list(range(seen[0], seen[0] + len(numbers))))
        other = self.host.client()
        other.call('events.subscribe', **{'from': 1})  # what the earlier program has told is not kept
        lost = other.event('events.lost')
        self.assertEqual(lost['from'], 1)

    def test_connections_and_what_they_hold(self):
        """Those that wait for something end with the program, and what was theirs is put back."""
        befores = {domid: self.host.create(domid) for domid in (1, 2, 3)}
        clients = [self.host.client() for _ in range(20)]
        held = clients[0].hold(1)
        detached = clients[1].hold(2, hold='detached')
        clients[2].hold(3)
        clients[3].socket.sendall(b'{"jsonrpc":"2.0","id":77,"method":"dae')  # the rest of the line comes later
        wait_until(lambda: self.client.call('daemon.info')['connections'] == 21, what='all connections')
        event = self.reexec()
        self.assertEqual((event['sessions'], event['connections']), (3, 21))
        clients[3].socket.sendall(b'mon.info"}\n')
        self.assertEqual(clients[3].line(20)['id'], 77)
        for client in clients:
            client.call('guard.list')
        clients[2].close()
        wait_until(lambda: len(self.host.journals()) == 2, 40, 'the guest let go')
        self.assertEqual(self.host.snapshot(3), befores[3])
        for client, session in ((clients[0], held), (self.client, detached)):
            wait_until(lambda: self.client.call('guard.show', session=session['session'])['state'] == 'held', 40, 'held')
            client.call('guard.end', session=session['session'], outcome='failed')
        for domid, before in befores.items():
            self.assertEqual(self.host.snapshot(domid), before)

    def test_again_and_again_under_a_storm(self):
        before = self.host.create(1)
        session = self.client.hold(1, hold='detached')
        storm = self.host.storm(1, [200000 + 4096 * i for i in range(40)], 0.005)
        for _ in range(5):
            self.reexec()
            self.held_again(session)
        wanted = storm.stop()
        self.assertIsNone(storm.error)
        self.end(session)
        after = self.host.snapshot(1)
        self.assertEqual(after['target'], str(wanted))
        self.assertEqual((after['memory'], after['nodes']), (before['memory'], before['nodes']))

    def test_many(self):
        befores = {domid: self.host.create(domid, mode='deaf') for domid in range(1, 31)}
        sessions = [self.client.hold(domid, hold='detached') for domid in befores]
        self.assertEqual(self.reexec()['sessions'], len(sessions))
        for session in sessions:
            self.held_again(session)
        for session in sessions:
            self.end(session)
        self.assertEqual({domid: self.host.snapshot(domid) for domid in befores}, befores)

    def test_domain_that_goes_meanwhile(self):
        """Its journal is what an earlier daemon has left."""
        self.own_program()
        self.host.create(1)
        self.client.hold(1, hold='detached')
        script = f'#!/bin/sh\nwhile [ ! -e {self.host.folder}/go ]; do :; done\nexec {BUILD}/p2mguardd-imitated "$@"\n'
        self.replace_program(script.encode())
        self.client.call('daemon.reexec')
        wait_until(lambda: self.cmdline().startswith('/bin/sh'), 40, 'the new program')
        self.host.destroy(1)
        with open(self.host.folder + '/go', 'w', encoding='ascii'):
            pass
        self.assertEqual(self.client.event('daemon.reexecuted')['sessions'], 0)
        wait_until(lambda: not self.host.journals(), 40, 'no journal')

    def cmdline(self):
        with open(f'/proc/{self.host.daemon.pid}/cmdline', encoding='utf-8') as file:
            return file.read()

    def test_deadline_and_grace_go_on(self):
        before = self.host.create(1)
        session = self.client.hold(1, hold='detached', policy={'max_hold_ms': 4000})
        begun = time.monotonic()
        self.reexec()
        event = self.client.event('session.gone', session=session['session'])
        self.assertEqual(event['reason'], 'deadline')
        self.assertLess(time.monotonic() - begun, 10)
        session = self.client.hold(1, hold='detached', policy={'retry_grace_ms': 3000})
        self.host.machine.set(1, 'tot_pages', 65530)
        self.assertEqual(self.judge(session)[0], 'retry')
        self.reexec()
        self.assertEqual(self.client.event('session.gone', session=session['session'])['reason'], 'grace-expired')
        self.assertEqual(self.host.snapshot(1), before)

    def test_caller_in_xenstore(self):
        before = self.host.create(1)
        store, node = self.host.store, FOLDER + '/1'
        store.write(node, 'begin quiet_ms=50 settle_ms=100')
        wait_until(lambda: self.said(node) == 'held', 40, 'held')
        self.reexec()
        store.write(node, 'verdict')
        wait_until(lambda: self.said(node) == 'retry observation-gap', 40, 'the verdict')
        store.write(node, 'retry')
        wait_until(lambda: self.said(node) == 'held', 40, 'held again')
        store.write(node, 'verdict')
        wait_until(lambda: self.said(node) == 'proceed unchanged', 40, 'the verdict')
        store.write(node, 'end failed')
        wait_until(lambda: not self.host.journals(), 40, 'the guest let go')
        self.assertEqual(self.host.snapshot(1), before)

    def said(self, node):
        try:
            return self.host.store.read(node + '/verdict')
        except StoreError:
            return None

    def test_program_that_cannot_be_executed(self):
        self.own_program()
        before = self.host.create(1)
        session = self.client.hold(1)
        for content in (None, b'no program'):
            self.replace_program(content)
            self.client.call('daemon.reexec')
            self.client.event('daemon.reexec_failed')
            self.assertEqual(self.judge(session), ('proceed', 'unchanged'))
        self.end(session)
        self.assertEqual(self.host.snapshot(1), before)

    def test_program_that_dies_at_once(self):
        """As a daemon that dies: what it held is put back by whoever comes next."""
        self.own_program()
        before = self.host.create(1)
        self.client.hold(1)
        with open('/bin/false', 'rb') as file:
            self.replace_program(file.read())
        self.client.call('daemon.reexec')
        self.assertNotEqual(self.host.daemon.wait(20), 0)
        self.assertEqual(self.host.store.perms('/local/domain/1/memory'), 'n0')
        self.replace_program(None)
        self.host.program = type(self.host).program
        self.host.start_daemon()
        self.assertEqual(self.host.snapshot(1), before)

    def test_signal(self):
        """It waits for as long as it takes."""
        self.host.create(1, mode='stubborn')
        self.client.send('guard.begin', domain=1, hold='detached', wait=False, policy=dict(QUICK, freeze_timeout_ms=1500))
        self.client.event('session.begun')
        self.host.daemon.send_signal(signal.SIGUSR1)
        self.host.daemon.send_signal(signal.SIGUSR1)
        self.assertEqual(self.client.event('daemon.reexecuted')['sessions'], 0)

    def test_configuration_that_is_not_right(self):
        self.host.create(1)
        session = self.client.hold(1)
        with open(self.host.folder + '/p2mguard.conf', 'a', encoding='ascii') as file:
            file.write('[daemon]\nnonsense = 1\n')
        self.client.call('daemon.reexec')
        self.client.event('daemon.reexec_failed')
        self.assertEqual(self.judge(session), ('proceed', 'unchanged'))

    def test_guest_that_is_being_frozen_is_waited_for(self):
        self.host.create(1, mode='deaf')
        self.client.send('guard.begin', domain=1, hold='detached', wait=False, policy=dict(QUICK, settle_ms=1500))
        self.client.event('session.begun')
        self.assertEqual(self.reexec()['sessions'], 1)

    def test_state_that_is_none(self):
        """Whoever can set the environment of a daemon is root; it is no reason to do without a guard."""
        before = self.host.create(1)
        self.client.hold(1, hold='detached')
        self.host.kill_daemon()
        self.host.environment['P2MGUARD_STATE_FD'] = '99'
        self.host.start_daemon()
        self.assertEqual((self.host.snapshot(1), self.host.journals()), (before, []))

    def test_only_those_who_may_change(self):
        with self.assertRaises(RpcError) as caught:
            self.client.call('daemon.reexec', now=True)
        self.assertEqual(caught.exception.code, -32602)

    def test_p2mguardctl(self):
        self.host.create(1)
        self.client.hold(1)
        command = [BUILD + '/p2mguardctl', '--socket', self.host.control, 'reexec']
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ''))
        self.assertIn('goes on, with 1 sessions', done.stdout)
        done = subprocess.run(command + ['--json'], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(json.loads(done.stdout)['sessions'], 1)
