# SPDX-License-Identifier: LGPL-2.1-or-later
"""The agent, as a guest of the real xenstored, with a folder of plain files for sysfs.

Environment, besides fixture.py's: P2MGUARD_AGENT is another build's agent, a static one for instance.
"""
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

from fixture import BUILD, Host, wait_until

AGENT = os.environ.get('P2MGUARD_AGENT', BUILD + '/p2mguard-agent')
if not os.path.exists(AGENT):
    raise unittest.SkipTest('this build has no agent')

AGENT_SYSFS = os.path.join(os.path.dirname(AGENT), 'agent-sysfs')
DOMID = 7
BALLOON = 'devices/system/xen_memory/xen_memory0'
HOTPLUG = 'devices/system/memory'


def agent_command():
    return [AGENT]


def is_sanitized():
    with open(AGENT, 'rb') as file:
        return b'__asan_init' in file.read()


def why_no_mounts():
    """None when a mount namespace of our own lets us mount; else the reason."""
    result = subprocess.run(['unshare', '-m', 'true'], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                            check=False)
    return result.stderr.strip() if result.returncode else None


# What the agent mounts is to be seen by nobody else here, and is not to outlive it.
NO_MOUNTS = why_no_mounts()
APART = [] if NO_MOUNTS else ['unshare', '-m']


class AgentHost(Host):
    """A store and a domain in it, no daemon, and no guest but the agent."""

    def _start_guests(self):
        with open(self.log_path, 'wb'):
            pass

    def start_daemon(self, wait=True):
        pass


class Balloon(threading.Thread):
    """Linux's balloon driver: current_kb goes where target_kb says."""

    def __init__(self, folder, step_kb=1024):
        super().__init__(daemon=True)
        self.folder, self.step_kb = folder, step_kb
        self.over = threading.Event()
        self.restless = False
        self.floor_kb = 0
        self.start()

    def number(self, name):
        with open(f'{self.folder}/{name}', encoding='ascii') as file:
            return int(file.readline() or 0)

    def run(self):
        step = 0
        while not self.over.wait(0.002):
            target, current = self.number('target_kb'), self.number('info/current_kb')
            if self.restless:
                step += 1
                target = 300000 + step % 50 * self.step_kb
            target = max(target, self.floor_kb)
            if target != current:
                move = min(self.step_kb, abs(target - current))
                replace(f'{self.folder}/info/current_kb', current + (move if target > current else -move))

    def stop(self):
        self.over.set()
        self.join()


def replace(path, value):
    """As sysfs does: no reader sees half a number."""
    with open(path + '.new', 'w', encoding='ascii') as file:
        file.write(f'{value}\n')
    os.rename(path + '.new', path)


class Guest:
    def __init__(self, host, domid=DOMID, balloon=True, hotplug=True, hooks=True):
        self.host, self.domid = host, domid
        self.folder = tempfile.mkdtemp(prefix='p2mg-guest-')
        self.sysfs, self.run, self.hooks = self.folder + '/sys', self.folder + '/run', self.folder + '/freeze.d'
        self.socket, self.log_path = self.folder + '/xenbus', self.folder + '/agent.log'
        self.hooks_log = self.folder + '/hooks.log'
        self.proxy = self.agent = self.balloon = None
        os.makedirs(self.sysfs)
        os.makedirs(self.run)
        if balloon:
            os.makedirs(f'{self.sysfs}/{BALLOON}/info')
            self.put('target_kb', 262144)
            self.put('info/current_kb', 262144)
            self.balloon = Balloon(f'{self.sysfs}/{BALLOON}')
        if hotplug:
            os.makedirs(f'{self.sysfs}/{HOTPLUG}')
            replace(f'{self.sysfs}/{HOTPLUG}/auto_online_blocks', 'online')
        if hooks:
            os.makedirs(self.hooks)
        self.create(domid)

    # ---- xenstore, as dom0 sees it ----

    @property
    def home(self):
        return f'/local/domain/{self.domid}'

    def create(self, domid):
        self.domid = domid
        readable, own = f'n0,r{domid}', f'n{domid}'
        for path, value, perms in ((self.home, '', readable), (self.home + '/domid', str(domid), readable),
                                   (self.home + '/control', '', readable), (self.home + '/data', '', own)):
            self.host.store.write(path, value)
            self.host.store.set_perms(path, perms)
        for kind in ('ring', 'port'):
            if os.path.exists(f'{self.host.folder}/{kind}-{domid}'):
                os.unlink(f'{self.host.folder}/{kind}-{domid}')
        self.host.store.request('INTRODUCE', str(domid), '1', '9')
        self.proxy = subprocess.Popen([BUILD + '/guest-socket', str(domid), self.socket], env=self.host.environment,
                                      stdin=subprocess.DEVNULL)
        wait_until(lambda: os.path.exists(self.socket), 40, 'the guest\'s socket')

    def destroy(self):
        self.proxy.kill()
        self.proxy.wait()
        os.unlink(self.socket)
        self.host.store.request('RELEASE', str(self.domid))
        self.host.store.remove(self.home)

    def ask(self, text):
        self.host.store.write(self.home + '/control/p2mguard', text)

    def ask_nothing(self):
        self.host.store.remove(self.home + '/control/p2mguard')

    def answer(self):
        return self.host.store.read_or_none(self.home + '/data/p2mguard/state')

    def features(self):
        return self.host.store.read_or_none(self.home + '/data/p2mguard/features')

    def expect(self, text, timeout=40):
        try:
            wait_until(lambda: self.answer() == text, timeout, f'the answer "{text}"')
        except AssertionError as error:
            raise AssertionError(f'{error}; it is "{self.answer()}":\n{self.log()}') from None

    def freeze(self, seq=1, lease=60):
        self.ask(f'freeze {seq} {lease}')
        self.expect(f'frozen {seq}')

    # ---- sysfs ----

    def put(self, name, value):
        """In place, for the agent has it open, and in one go."""
        file = os.open(f'{self.sysfs}/{BALLOON}/{name}', os.O_WRONLY | os.O_CREAT, 0o644)
        os.pwrite(file, f'{value}\n'.encode(), 0)
        os.close(file)

    def get(self, name):
        with open(f'{self.sysfs}/{BALLOON}/{name}', encoding='ascii') as file:
            return int(file.readline() or 0)

    def online(self):
        with open(f'{self.sysfs}/{HOTPLUG}/auto_online_blocks', encoding='ascii') as file:
            return file.readline().strip()

    def is_restored(self, target=262144):
        return self.get('target_kb') == target and self.online() == 'online' and not self.journal()

    def expect_restored(self, timeout=40, target=262144):
        wait_until(lambda: self.is_restored(target), timeout,
                   f'all put back (target {self.get("target_kb")}, {self.online()}, journal {self.journal()})')

    def journal(self):
        return os.path.exists(self.run + '/undo')

    # ---- hooks ----

    def hook(self, name, body='', mode=0o755):
        path = f'{self.hooks}/{name}'
        with open(path, 'w', encoding='ascii') as file:
            file.write(f'#!/bin/sh\necho "{name} $1 $P2MGUARD_SEQ" >>{self.hooks_log}\n{body}\n')
        os.chmod(path, mode)

    def hooks_run(self):
        if not os.path.exists(self.hooks_log):
            return []
        with open(self.hooks_log, encoding='ascii') as file:
            return file.read().splitlines()

    # ---- the agent ----

    def options(self):
        return ['--xenstore', self.socket, '--sysfs', self.sysfs, '--run', self.run, '--hooks', self.hooks,
                '--hook-timeout', '2', '--settle-timeout', '1', '--log-level', 'debug']

    def start(self, *more, wait=True):
        with open(self.log_path, 'ab') as log:
            self.agent = subprocess.Popen(APART + agent_command() + self.options() + list(more),
                                          env=self.host.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if wait:
            wait_until(self.features, 40, 'the agent\'s features')

    def thaw_by_hand(self, prefix=APART):
        with open(self.log_path, 'ab') as log:
            return subprocess.run(list(prefix) + agent_command() + self.options() + ['--thaw'],
                                  env=self.host.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                  timeout=20, check=False).returncode

    def kill(self):
        self.agent.kill()
        self.agent.wait()

    def terminate(self, timeout=40):
        self.agent.terminate()
        return self.agent.wait(timeout)

    def log(self):
        if not os.path.exists(self.log_path):
            return ''
        with open(self.log_path, encoding='utf-8', errors='replace') as file:
            return file.read()

    def stop(self):
        if self.agent and self.agent.poll() is None:
            self.agent.terminate()
            try:
                self.agent.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        if self.balloon:
            self.balloon.stop()
        self.proxy.kill()
        self.proxy.wait()
        text = self.log()
        shutil.rmtree(self.folder, ignore_errors=True)
        for sign in ('AddressSanitizer', 'runtime error', 'LeakSanitizer'):
            if sign in text:
                raise AssertionError('the sanitizers found something:\n' + text[text.index(sign) - 200:][:4000])


class AgentTest(unittest.TestCase):
    OPTIONS = {}

    def setUp(self):
        self.host = AgentHost()
        self.addCleanup(self.host.stop)
        self.guest = Guest(self.host, **self.OPTIONS)
        self.addCleanup(self.guest.stop)

    def stall(self):
        os.kill(self.host.xenstored.pid, signal.SIGSTOP)

    def go_on(self):
        os.kill(self.host.xenstored.pid, signal.SIGCONT)


class TestFreeze(AgentTest):
    def setUp(self):
        super().setUp()
        self.guest.start()

    def test_features(self):
        words = self.guest.features().split(' ')
        self.assertEqual(words[0], 'protocol=1')
        self.assertTrue(words[1].startswith('version='))
        self.assertEqual(words[2:], ['balloon', 'hotplug', 'hooks'])
        self.assertTrue(self.host.store.perms(self.guest.home + '/data/p2mguard/features').startswith(f'n{DOMID}'))
        self.assertIsNone(self.guest.answer())

    def test_freeze_and_thaw(self):
        guest = self.guest
        guest.freeze()
        self.assertEqual(guest.online(), 'offline')
        self.assertTrue(guest.journal())
        guest.ask('thaw 1')
        guest.expect('thawed 1')
        guest.expect_restored()
        guest.ask('freeze 1 60')  # it has ended
        time.sleep(0.3)
        self.assertEqual(guest.answer(), 'thawed 1')
        self.assertEqual(guest.online(), 'online')
        guest.freeze(2)
        guest.ask_nothing()
        guest.expect('thawed 2')
        guest.expect_restored()

    def test_balloon_under_way_stops_where_it_is(self):
        guest = self.guest
        guest.balloon.step_kb = 64
        guest.put('target_kb', 524288)
        wait_until(lambda: guest.get('info/current_kb') > 270000, 40, 'ballooning')
        guest.freeze()
        size = guest.get('info/current_kb')
        self.assertEqual(guest.get('target_kb'), size)
        self.assertLess(size, 524288)
        time.sleep(0.3)
        self.assertEqual(guest.get('info/current_kb'), size)
        guest.balloon.step_kb = 4096
        guest.ask('thaw 1')
        guest.expect('thawed 1')
        guest.expect_restored(target=524288)
        wait_until(lambda: guest.get('info/current_kb') == 524288, 40, 'the rest of the way')

    def test_balloon_that_cannot_reach_its_target_is_frozen_where_it_is(self):
        guest = self.guest
        guest.balloon.floor_kb = 262144
        guest.put('target_kb', 131072)
        guest.freeze()
        self.assertEqual(guest.get('target_kb'), 262144)
        guest.ask_nothing()
        guest.expect('thawed 1')
        guest.expect_restored(target=131072)

    def test_lease_ends(self):
        self.guest.freeze(lease=1)
        start = time.monotonic()
        self.guest.expect('thawed 1')
        self.assertLess(time.monotonic() - start, 1.5)
        self.guest.expect_restored()
        self.assertIn('the lease has ended', self.guest.log())

    def test_lease_is_prolonged(self):
        self.guest.freeze(lease=1)
        for _ in range(6):
            time.sleep(0.5)
            self.assertEqual(self.guest.answer(), 'frozen 1')
            self.guest.ask('freeze 1 1')
        self.guest.expect('thawed 1', 2)

    def test_only_a_write_prolongs_the_lease(self):
        guest = self.guest
        guest.freeze(lease=2)
        end = time.monotonic() + 1.7
        number = 0
        while time.monotonic() < end:  # every one of these makes the agent look
            number += 1
            guest.put('target_kb', 300000 + number)
            time.sleep(0.2)
        guest.expect('thawed 1', 1.5)

    def test_new_seq_while_frozen(self):
        guest = self.guest
        guest.hook('10-one')
        guest.freeze(5, lease=1)
        guest.freeze(3, lease=60)
        time.sleep(1.3)
        self.assertEqual(guest.answer(), 'frozen 3')
        self.assertEqual(guest.hooks_run(), ['10-one freeze 5'])
        guest.ask_nothing()
        guest.expect('thawed 3')
        guest.expect_restored()
        self.assertEqual(guest.hooks_run(), ['10-one freeze 5', '10-one thaw 3'])

    def test_garbage_is_no_request(self):
        guest = self.guest
        for number, text in enumerate(('freeze', 'freeze x 60', 'freeze 0 60', 'freeze 1', 'thaw', ' ', '\n',
                                       'x' * 1500, 'freeze 77 0', 'freeze 77 99999', 'freeze 4294967296 5',
                                       'thaw 5 5', '%s%n'), 1):
            guest.freeze(number)
            guest.ask(text)
            guest.expect(f'thawed {number}')
        guest.expect_restored()

    def test_unreadable_request_thaws(self):
        self.guest.freeze()
        self.host.store.set_perms(self.guest.home + '/control/p2mguard', 'n0')
        self.guest.expect('thawed 1')

    def test_balloon_that_does_not_settle_is_refused(self):
        self.guest.balloon.restless = True
        self.guest.ask('freeze 1 60')
        wait_until(lambda: self.guest.answer() == 'busy 1', 1, 'busy')
        start = 'refused 1 balloon driver does not stand still at '
        wait_until(lambda: (self.guest.answer() or '').startswith(start), 40, 'refused')
        self.guest.expect_restored()
        self.guest.balloon.restless = False
        self.guest.freeze(2)

    def test_other_target_is_put_back_and_kept_as_wanted(self):
        guest = self.guest
        guest.freeze()
        guest.put('target_kb', 300000)
        guest.expect('busy 1', 1)
        wait_until(lambda: guest.get('target_kb') == guest.get('info/current_kb') != 300000, 40, 'the target put back')
        guest.expect('frozen 1')
        guest.ask('thaw 1')
        guest.expect('thawed 1')
        guest.expect_restored(target=300000)

    def test_target_that_changed_with_the_thaw_stays(self):
        guest = self.guest
        guest.freeze()
        self.stall()
        thaw = threading.Thread(target=guest.ask, args=('thaw 1',))
        thaw.start()
        guest.put('target_kb', 300000)  # asked for in vain until the thaw is read
        time.sleep(0.4)
        self.go_on()
        thaw.join()
        guest.expect('thawed 1')
        guest.expect_restored(target=300000)

    def test_target_that_comes_with_the_end_of_the_gate(self):
        """dom0 opens the gate before it says thaw: what the kernel reads then is put back first, and not forgotten."""
        guest = self.guest
        guest.freeze()
        for target in (300000, 310000):
            guest.put('target_kb', target)
            wait_until(lambda: guest.get('target_kb') != target, 40, 'the target put back')
        guest.ask('thaw 1')
        guest.expect('thawed 1')
        guest.expect_restored(target=310000)

    def test_other_request_than_ours_thaws(self):
        self.guest.freeze(4)
        self.guest.ask('thaw 9')
        self.guest.expect('thawed 4')

    def test_memory(self):
        guest = self.guest
        guest.freeze()
        guest.ask('thaw 1')
        guest.expect('thawed 1')
        time.sleep(0.2)
        with open(f'/proc/{guest.agent.pid}/status', encoding='ascii') as file:
            rss = int(next(line.split()[1] for line in file if line.startswith('VmRSS')))
        print(f'# VmRSS {rss} kB', flush=True)
        if is_sanitized():
            self.skipTest(f'the sanitizers take memory of their own ({rss} kB)')
        self.assertLess(rss, 2048)

    def test_second_instance(self):
        second = subprocess.run(agent_command() + self.guest.options(), env=self.host.environment,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=10, check=False)
        self.assertEqual(second.returncode, 1)
        self.assertIn('another p2mguard-agent runs already', second.stdout)

    def test_sigterm(self):
        guest = self.guest
        guest.hook('10-one')
        guest.freeze()
        self.assertEqual(guest.terminate(), 0)
        self.assertEqual(guest.answer(), 'thawed 1')
        self.assertIsNone(guest.features())
        self.assertTrue(guest.is_restored())
        self.assertEqual(guest.hooks_run(), ['10-one freeze 1', '10-one thaw 1'])

    def test_sighup_is_nothing(self):
        self.guest.freeze()
        self.guest.agent.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        self.assertEqual(self.guest.answer(), 'frozen 1')

    def test_sigterm_with_stalled_xenstored(self):
        self.guest.freeze()
        self.stall()
        start = time.monotonic()
        self.assertEqual(self.guest.terminate(8), 0)
        self.assertLess(time.monotonic() - start, 5.5)
        self.assertTrue(self.guest.is_restored())
        self.go_on()

    def test_lease_ends_with_stalled_xenstored(self):
        self.guest.freeze(lease=1)
        self.stall()
        self.guest.put('target_kb', 300000)  # it asks whether this was a resume, in vain
        wait_until(lambda: self.guest.online() == 'online' and not self.guest.journal(), 2.5, 'the local thaw')
        self.assertEqual(self.guest.get('target_kb'), 300000)
        self.go_on()
        self.guest.expect('thawed 1')

    def test_killed_and_started_again(self):
        guest = self.guest
        guest.hook('10-one')
        guest.freeze()
        guest.kill()
        self.assertEqual(guest.online(), 'offline')
        guest.start(wait=False)
        guest.expect('thawed 1')
        guest.expect_restored()
        self.assertEqual(guest.hooks_run(), ['10-one freeze 1', '10-one thaw 1'])
        guest.ask('freeze 1 60')
        time.sleep(0.3)
        self.assertEqual(guest.answer(), 'thawed 1')
        guest.freeze(2)

    def test_killed_at_any_moment(self):
        """Hooks, balloon and hotplug are back as they were, wherever in freezing or thawing it was."""
        guest = self.guest
        guest.hook('10-one')
        for seq in range(1, 21):
            guest.ask(f'freeze {seq} 60')
            if seq % 2:
                guest.expect(f'frozen {seq}')
                guest.ask(f'thaw {seq}')
            time.sleep(random.uniform(0, 0.12))
            guest.kill()
            self.assertEqual(guest.thaw_by_hand(), 0)
            self.assertTrue(guest.is_restored(),
                            f'round {seq}: {guest.get("target_kb")} {guest.online()}\n{guest.log()}')
            words = [line.split()[1] for line in guest.hooks_run() if line.endswith(f' {seq}')]
            self.assertIn(words, ([], ['freeze', 'thaw'], ['freeze', 'thaw', 'thaw'], ['thaw']))
            guest.start(wait=False)
            wait_until(lambda seq=seq: guest.answer() in (f'thawed {seq}', f'frozen {seq}'), 40, 'an answer')
            guest.ask('thaw 1000')
            guest.expect_restored()

    def test_killed_and_resumed_as_another_domain(self):
        guest = self.guest
        guest.balloon.step_kb = 64
        guest.put('target_kb', 524288)
        wait_until(lambda: guest.get('info/current_kb') > 270000, 40, 'ballooning')
        guest.freeze()
        size = guest.get('target_kb')
        guest.kill()
        guest.destroy()
        guest.create(9)
        guest.start(wait=False)
        guest.expect('thawed 1')
        guest.expect_restored(target=size)

    def test_storm_of_requests(self):
        guest = self.guest
        guest.hook('10-one')
        for _ in range(300):
            seq = random.randint(1, 9)
            guest.ask(random.choice((f'freeze {seq} 60', f'freeze {seq} 1', f'thaw {seq}', 'nonsense')))
            time.sleep(random.choice((0, 0, 0, 0.002, 0.02)))
        guest.ask('thaw 1')
        guest.expect_restored()
        guest.freeze(4242)
        guest.ask_nothing()
        guest.expect('thawed 4242')
        guest.expect_restored()
        # A thaw may end the hook before it has written down its freeze, but no freeze goes without a thaw.
        runs = ' '.join(line.split()[1] for line in guest.hooks_run())
        self.assertNotIn('freeze freeze', runs)
        self.assertTrue(runs.endswith('freeze thaw'), runs)

    def test_killed_with_stalled_xenstored(self):
        self.guest.freeze()
        self.guest.kill()
        self.stall()
        self.guest.start(wait=False)
        self.guest.expect_restored(3)
        self.go_on()
        self.guest.expect('thawed 1')

    def test_killed_and_thawed_by_hand(self):
        guest = self.guest
        guest.hook('10-one')
        guest.freeze()
        guest.kill()
        self.assertEqual(guest.thaw_by_hand(), 0)
        self.assertTrue(guest.is_restored())
        self.assertEqual(guest.answer(), 'thawed 1')
        self.assertEqual(guest.hooks_run(), ['10-one freeze 1', '10-one thaw 1'])
        self.assertEqual(guest.thaw_by_hand(), 0)
        guest.start()
        time.sleep(0.3)
        self.assertEqual(guest.answer(), 'thawed 1')

    def test_state_without_a_journal(self):
        """As after a reset of the guest: nothing is frozen, whatever the node says."""
        self.guest.terminate()
        self.host.store.write(self.guest.home + '/data/p2mguard/state', 'frozen 9')
        self.guest.ask('freeze 9 60')
        self.guest.start(wait=False)
        self.guest.expect('thawed 9')
        time.sleep(0.2)
        self.assertEqual(self.guest.online(), 'online')

    def test_journal_of_another_boot(self):
        self.guest.freeze()
        self.guest.kill()
        with open(self.guest.run + '/undo', encoding='ascii') as file:
            text = file.read()
        lines = ['boot 0' if line.startswith('boot ') else line for line in text.split('\n')]
        with open(self.guest.run + '/undo', 'w', encoding='ascii') as file:
            file.write('\n'.join(lines))
        self.assertEqual(self.guest.thaw_by_hand(), 0)
        self.assertFalse(self.guest.journal())
        self.assertEqual(self.guest.online(), 'offline')

    def test_journal_that_is_garbage(self):
        self.guest.kill()
        with open(self.guest.run + '/undo', 'wb') as file:
            file.write(b'\0\xff' * 100)
        self.host.store.write(self.guest.home + '/data/p2mguard/state', 'frozen 3')
        self.assertEqual(self.guest.thaw_by_hand(), 0)
        self.assertFalse(self.guest.journal())
        self.assertEqual(self.guest.answer(), 'thawed 3')

    def test_resumed_as_another_domain(self):
        """The tree is made anew, under another domid; nothing asks for a freeze there."""
        guest = self.guest
        guest.freeze()
        guest.destroy()
        guest.put('target_kb', 280000)  # the kernel reads its target anew
        guest.create(9)
        guest.expect('thawed 1')
        wait_until(guest.features, 40, 'features in the new tree')
        guest.expect_restored(target=280000)
        guest.freeze(2)

    def test_resumed_on_the_same_connection(self):
        """As on the device, which outlives the migration: the watches fire, and the domid is another one."""
        guest = self.guest
        guest.freeze()
        guest.ask_nothing()
        for node in ('features', 'state'):
            self.host.store.remove(f'{guest.home}/data/p2mguard/{node}')
        self.host.store.write(guest.home + '/domid', '19')
        guest.expect('thawed 1')
        wait_until(guest.features, 40, 'features in the new tree')

    def test_resumed_where_a_daemon_asks_at_once(self):
        guest = self.guest
        guest.freeze()
        guest.put('target_kb', 280000)
        self.host.store.write(guest.home + '/domid', '19')
        guest.ask('freeze 2 60')
        guest.expect('frozen 2')
        guest.ask('thaw 2')
        guest.expect('thawed 2')

    def test_removed_features_come_back(self):
        self.host.store.remove(self.guest.home + '/data/p2mguard')
        self.guest.ask('thaw 1')
        wait_until(self.guest.features, 40, 'features')

    def test_hook_order(self):
        guest = self.guest
        for name in ('20-two', '10-one', '30-three'):
            guest.hook(name)
        guest.freeze(8)
        guest.ask('thaw 8')
        guest.expect('thawed 8')
        self.assertEqual(guest.hooks_run(), [f'{name} freeze 8' for name in ('10-one', '20-two', '30-three')] +
                         [f'{name} thaw 8' for name in ('30-three', '20-two', '10-one')])

    def test_what_is_no_hook(self):
        guest = self.guest
        guest.hook('README')
        os.chmod(guest.hooks + '/README', 0o644)
        guest.hook('10-old.dpkg-old')
        guest.hook('20-open', mode=0o775)
        guest.hook('30-good')
        guest.freeze()
        self.assertEqual(guest.hooks_run(), ['30-good freeze 1'])
        self.assertIn('hook 20-open is ignored', guest.log())

    def test_hook_refuses(self):
        guest = self.guest
        guest.hook('10-one')
        guest.hook('50-database', 'test "$1" = thaw || exit 3')
        guest.hook('60-late')
        guest.ask('freeze 1 60')
        guest.expect('refused 1 hook 50-database: exit status 3')
        guest.expect_restored()
        self.assertEqual(guest.hooks_run(),
                         ['10-one freeze 1', '50-database freeze 1', '50-database thaw 1', '10-one thaw 1'])
        guest.ask('freeze 1 60')
        time.sleep(0.3)
        self.assertTrue(guest.answer().startswith('refused 1 '))

    def test_hook_is_killed_by_a_signal(self):
        self.guest.hook('10-one', 'test "$1" = thaw || kill -9 $$')
        self.guest.ask('freeze 1 60')
        self.guest.expect('refused 1 hook 10-one: killed by signal 9')

    def test_hook_that_is_no_program(self):
        with open(self.guest.hooks + '/10-one', 'wb') as file:
            file.write(b'\0\0\0')
        os.chmod(self.guest.hooks + '/10-one', 0o755)
        self.guest.ask('freeze 1 60')
        self.guest.expect('refused 1 hook 10-one: Exec format error')
        self.guest.expect_restored()

    def test_hanging_hook_is_refused(self):
        self.guest.hook('10-one', 'test "$1" = thaw || { trap "" TERM; while :; do sleep 1; done; }')
        self.guest.ask('freeze 1 60')
        self.guest.expect('refused 1 hook 10-one: no end within 2 s')
        self.guest.expect_restored()

    def test_thaw_while_a_hook_hangs(self):
        guest = self.guest
        guest.hook('10-one', 'test "$1" = thaw || sleep 30')
        guest.ask('freeze 1 60')
        guest.expect('busy 1')
        wait_until(guest.hooks_run, 40, 'the hook')
        start = time.monotonic()
        guest.ask('thaw 1')
        guest.expect('thawed 1')
        self.assertLess(time.monotonic() - start, 1.5)
        guest.expect_restored()
        self.assertEqual(guest.hooks_run(), ['10-one freeze 1', '10-one thaw 1'])

    def test_hanging_thaw_hook_does_not_keep_memory(self):
        guest = self.guest
        guest.hook('10-one', 'test "$1" = freeze || sleep 30')
        guest.freeze()
        guest.ask('thaw 1')
        wait_until(lambda: guest.online() == 'online' and guest.get('target_kb') == 262144, 1.2, 'memory free again')
        self.assertEqual(guest.answer(), 'busy 1')
        guest.expect('thawed 1')
        guest.expect_restored()

    def test_lease_ends_while_a_hook_runs(self):
        self.guest.hook('10-one', 'test "$1" = thaw || exec sleep 30')
        self.guest.ask('freeze 1 1')
        self.guest.expect('thawed 1')
        self.guest.expect_restored()

    def test_killed_while_a_hook_runs(self):
        guest = self.guest
        guest.hook('10-one', 'test "$1" = thaw || sleep 3')
        guest.ask('freeze 1 60')
        wait_until(guest.hooks_run, 40, 'the hook')
        guest.kill()
        guest.start(wait=False)
        guest.expect('thawed 1')
        self.assertEqual(guest.hooks_run(), ['10-one freeze 1', '10-one thaw 1'])


class TestBareGuest(AgentTest):
    OPTIONS = {'balloon': False, 'hotplug': False, 'hooks': False}

    def test_nothing_to_be_done(self):
        self.guest.start()
        self.assertEqual(self.guest.features().split(' ')[2:], [])
        self.guest.freeze()
        self.guest.ask_nothing()
        self.guest.expect('thawed 1')

    def test_data_that_is_not_writable(self):
        self.host.store.set_perms(self.guest.home + '/data', f'n0,r{DOMID}')
        self.guest.start(wait=False)
        wait_until(lambda: 'data' in self.guest.log(), 40, 'the complaint')
        self.guest.ask('freeze 1 60')
        time.sleep(0.3)
        self.assertEqual(self.guest.log().count('lets this guest not write data/p2mguard/features'), 1)
        self.assertEqual(self.guest.terminate(), 0)


class TestCommandLine(unittest.TestCase):
    def status(self, *options):
        return subprocess.run(agent_command() + list(options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              timeout=10, check=False).returncode

    def test_bad_options(self):
        for options in (['--nonsense'], ['extra'], ['--hook-timeout', '0'], ['--hook-timeout', '1x'],
                        ['--settle-timeout', ''], ['--log-level', 'loud']):
            self.assertEqual(self.status(*options), 2, options)

    def test_help_and_version(self):
        self.assertEqual(self.status('--help'), 0)
        self.assertEqual(self.status('--version'), 0)


class TestMounts(AgentTest):

    def setUp(self):
        if NO_MOUNTS:
            self.skipTest(NO_MOUNTS)
        super().setUp()
        self.guest.start()

    def write(self, path):
        """As somebody in the agent's mount namespace; what is said about it."""
        command = ['nsenter', f'--mount=/proc/{self.guest.agent.pid}/ns/mnt', 'sh', '-c', f'echo 5 >{path}']
        return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False).stderr

    def mounts(self):
        with open(f'/proc/{self.guest.agent.pid}/mountinfo', encoding='utf-8') as file:
            return [line for line in file if self.guest.folder in line]

    def test_others_cannot_write(self):
        guest = self.guest
        guest.freeze()
        self.assertEqual(len(self.mounts()), 2)
        for path in (f'{BALLOON}/target_kb', f'{HOTPLUG}/auto_online_blocks'):
            self.assertIn('Read-only file system', self.write(f'{guest.sysfs}/{path}'))
        guest.ask('thaw 1')
        guest.expect('thawed 1')
        self.assertEqual(self.mounts(), [])
        guest.expect_restored()

    def test_mounted_twice_and_killed(self):
        guest = self.guest
        guest.freeze()
        enter = ['nsenter', f'--mount=/proc/{guest.agent.pid}/ns/mnt']
        folder = f'{guest.sysfs}/{BALLOON}'
        subprocess.run(enter + ['mount', '--bind', folder, folder], check=True)
        keeper = subprocess.Popen(enter + ['sleep', '60'])
        self.addCleanup(keeper.wait)
        self.addCleanup(keeper.kill)
        space = os.readlink(f'/proc/{guest.agent.pid}/ns/mnt')
        wait_until(lambda: os.readlink(f'/proc/{keeper.pid}/ns/mnt') == space, 40, 'somebody else in the namespace')
        guest.kill()
        self.assertEqual(guest.thaw_by_hand(['nsenter', f'--mount=/proc/{keeper.pid}/ns/mnt']), 0)
        with open(f'/proc/{keeper.pid}/mountinfo', encoding='utf-8') as file:
            self.assertEqual([line for line in file if guest.folder in line], [])
        guest.expect_restored()


class Everybody:
    """The mount namespace that all but the agent are in: with agent-sysfs in it, which is started as by a socket unit."""

    def __init__(self, guest):
        self.guest, self.path = guest, guest.folder + '/sysfs.socket'
        self.keeper = subprocess.Popen(['unshare', '-m', 'sh', '-c', 'echo; exec sleep 1000'], stdout=subprocess.PIPE)
        self.keeper.stdout.readline()
        self.enter = ['nsenter', f'--mount=/proc/{self.keeper.pid}/ns/mnt']
        self.program, self.starts = None, 0
        self.may_start, self.over = True, threading.Event()
        self.sees_everybody = True
        self.listen()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def listen(self):
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listening.bind(self.path)
        self.listening.listen(16)

    def close(self):
        """As when the socket unit was stopped."""
        self.may_start = False
        self.kill()
        self.listening.close()
        os.unlink(self.path)

    def run(self):
        while not self.over.wait(0.002):
            if self.program and self.program.poll() is None or not self.may_start:
                continue
            if self.listening.fileno() >= 0 and select.select([self.listening], [], [], 0.05)[0] and self.may_start:
                self.begin()

    def begin(self):
        command = self.enter + ['sh', '-c', 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"', 'sh', AGENT_SYSFS, '--sysfs',
                                self.guest.sysfs, '--everybody', str(self.keeper.pid if self.sees_everybody else os.getpid())]
        number = self.listening.fileno()
        with open(self.guest.log_path, 'ab') as log:
            self.program = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(3,),
                                            preexec_fn=lambda: os.dup2(number, 3))
        self.starts += 1

    def kill(self):
        if self.program and self.program.poll() is None:
            self.program.kill()
            self.program.wait()

    def signal(self, number):
        """It may have answered before we know that it was started."""
        wait_until(lambda: self.program, 40, 'agent-sysfs').send_signal(number)

    def mounts(self, pid=None):
        with open(f'/proc/{pid or self.keeper.pid}/mountinfo', encoding='utf-8') as file:
            return [line for line in file if self.guest.folder in line]

    def write(self, path):
        """What is said about it."""
        return subprocess.run(self.enter + ['sh', '-c', f'echo 5 >{path}'], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, check=False).stderr

    def connect(self):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(5)
        connection.connect(self.path)
        return connection

    def stop(self):
        self.over.set()
        self.thread.join()
        self.kill()
        self.listening.close()
        self.keeper.kill()
        self.keeper.wait()
        self.keeper.stdout.close()


class Middle(threading.Thread):
    """Stands between agent and agent-sysfs, which it kills when a certain request was done and not yet answered."""

    def __init__(self, everybody):
        super().__init__(daemon=True)
        self.everybody, self.path = everybody, everybody.path + '.middle'
        self.fatal, self.seen = '', []
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listening.bind(self.path)
        self.listening.listen(16)
        self.start()

    def run(self):
        while True:
            try:
                agent, _ = self.listening.accept()
            except OSError:
                return
            with agent, self.everybody.connect() as other:
                self.serve(agent, other)

    def serve(self, agent, other):
        while True:
            request = agent.recv(64)
            if not request:
                return
            other.send(request)
            answer = other.recv(64)
            self.seen.append(request.decode())
            if self.fatal and request.decode().startswith(self.fatal):
                self.fatal = ''
                self.everybody.kill()
                return
            agent.send(answer)

    def stop(self):
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self.join(5)


class Apart(AgentTest):
    """The agent in a mount namespace of its own, where it changes nothing."""

    def setUp(self):
        if NO_MOUNTS:
            self.skipTest(NO_MOUNTS)
        super().setUp()
        self.everybody = Everybody(self.guest)
        self.addCleanup(self.everybody.stop)
        self.addCleanup(lambda: self.guest.agent and self.guest.agent.poll() is None and self.guest.kill())

    def start(self, path=None, wait=True):
        self.guest.start('--sysfs-socket', path or self.everybody.path, wait=wait)

    def thaw_by_hand(self):
        """As the unit's ExecStopPost: it asks nobody, and is where everybody is."""
        self.assertEqual(self.guest.thaw_by_hand(self.everybody.enter), 0, self.guest.log()[-3000:])

    def expect_free(self, target=262144):
        self.guest.expect_restored(target=target)
        self.assertEqual(self.everybody.mounts(), [])


class TestAsking(Apart):
    def setUp(self):
        super().setUp()
        self.start()

    def test_everybody_sees_it(self):
        guest = self.guest
        for seq in (1, 2):
            guest.freeze(seq)
            self.assertEqual(len(self.everybody.mounts()), 2)
            self.assertEqual(self.everybody.mounts(guest.agent.pid), [])
            for path in (f'{BALLOON}/target_kb', f'{HOTPLUG}/auto_online_blocks'):
                self.assertIn('Read-only file system', self.everybody.write(f'{guest.sysfs}/{path}'))
            guest.ask(f'thaw {seq}')
            guest.expect(f'thawed {seq}')
            self.expect_free()
        self.assertEqual(self.everybody.starts, 1)
        self.assertNotIn('the agent has gone', guest.log())

    def test_other_target_is_put_back(self):
        guest = self.guest
        guest.freeze()
        guest.put('target_kb', 300000)  # from where it is not covered
        guest.expect('busy 1', 1)
        guest.expect('frozen 1')
        self.assertEqual(guest.get('target_kb'), guest.get('info/current_kb'))
        guest.ask('thaw 1')
        guest.expect('thawed 1')
        self.expect_free(300000)

    def test_killed_while_frozen(self):
        self.guest.freeze()
        self.everybody.kill()
        time.sleep(0.3)
        self.assertEqual(len(self.everybody.mounts()), 2)
        self.assertEqual(self.guest.answer(), 'frozen 1')
        self.guest.ask('thaw 1')
        self.guest.expect('thawed 1')
        self.expect_free()
        self.assertEqual(self.everybody.starts, 2)

    def test_killed_and_then_a_target_is_to_be_put_back(self):
        """The next one is kept out by the cover like everybody else: that ends the freeze."""
        self.guest.freeze()
        self.everybody.kill()
        self.guest.put('target_kb', 300000)
        self.guest.expect('refused 1 the balloon driver cannot be held: Read-only file system')
        self.expect_free(300000)

    def test_nobody_listens(self):
        guest = self.guest
        self.everybody.close()
        for seq in (1, 2):
            guest.ask(f'freeze {seq} 60')
            guest.expect(f'refused {seq} the balloon driver cannot be held: agent-sysfs does not answer')
            self.assertEqual(self.everybody.mounts(guest.agent.pid), [])
            self.expect_free()
        self.everybody.listen()
        self.everybody.may_start = True
        guest.freeze(3)
        self.assertEqual(len(self.everybody.mounts()), 2)
        guest.ask_nothing()
        guest.expect('thawed 3')
        self.expect_free()

    def test_nobody_answers(self):
        self.everybody.may_start = False
        self.guest.ask('freeze 1 60')
        self.guest.expect('refused 1 the balloon driver cannot be held: agent-sysfs does not answer', 5)
        self.expect_free()
        self.everybody.may_start = True  # and finds a connection that was given up
        self.guest.freeze(2)
        self.guest.ask_nothing()
        self.guest.expect('thawed 2')
        self.expect_free()

    def test_whose_mounts_nobody_sees(self):
        self.everybody.sees_everybody = False
        self.guest.ask('freeze 1 60')
        self.guest.expect('refused 1 the balloon driver cannot be held: agent-sysfs does not answer')
        self.assertIn('agent-sysfs must not have a mount namespace of its own', self.guest.log())
        self.expect_free()

    def test_nobody_is_left_to_thaw(self):
        """The agent ends then, whoever is to be told: what comes after it does the rest."""
        guest = self.guest
        guest.hook('10-one')
        guest.freeze(lease=1)
        self.everybody.close()
        self.assertEqual(guest.agent.wait(8), 1)
        self.assertTrue(guest.journal())
        self.assertEqual(len(self.everybody.mounts()), 2)
        self.thaw_by_hand()
        self.expect_free()
        self.assertEqual(guest.answer(), 'thawed 1')
        self.assertEqual(guest.hooks_run(), ['10-one freeze 1', '10-one thaw 1'])

    def test_stopped_while_frozen_and_awake_again_late(self):
        guest = self.guest
        guest.freeze()
        self.everybody.signal(signal.SIGSTOP)
        guest.ask('thaw 1')
        self.assertEqual(guest.agent.wait(8), 1)
        self.thaw_by_hand()
        self.expect_free()
        self.everybody.signal(signal.SIGCONT)
        with self.everybody.connect() as connection:  # whose turn comes when all that was left has been looked at
            connection.send(b'ready')
            self.assertEqual(connection.recv(64), b'done')
        self.expect_free()

    def test_agent_is_killed(self):
        """The covers go at once; the rest waits for --thaw, or for the next agent."""
        self.guest.freeze()
        self.guest.kill()
        wait_until(lambda: not self.everybody.mounts(), 40, 'the covers gone')
        self.assertTrue(self.guest.journal())
        self.start(wait=False)
        self.guest.expect('thawed 1')
        self.expect_free()

    def test_both_are_killed(self):
        for again in (False, True):
            self.guest.freeze(1 + again)
            self.guest.kill() if again else self.everybody.kill()
            self.everybody.kill() if again else self.guest.kill()
            self.thaw_by_hand()
            self.expect_free()
            self.start()

    def test_killed_at_any_moment(self):
        guest = self.guest
        guest.hook('10-one')
        for seq in range(1, 13):
            guest.ask(f'freeze {seq} 60')
            if seq % 3 == 0:
                wait_until(lambda seq=seq: guest.answer() not in (f'thawed {seq - 1}', f'busy {seq}', None), 40, 'an answer')
                guest.ask(f'thaw {seq}')
            time.sleep(random.uniform(0, 0.1))
            self.everybody.kill()
            if seq % 2:
                time.sleep(random.uniform(0, 0.02))
                guest.kill()
                self.thaw_by_hand()
                self.assertTrue(guest.is_restored(), f'round {seq}: {guest.get("target_kb")} {guest.online()}\n{guest.log()}')
                wait_until(lambda: not self.everybody.mounts(), 40, f'no covers after round {seq}\n{guest.log()}')
                self.start(wait=False)
            guest.ask(f'thaw {seq}')
            wait_until(lambda seq=seq: (guest.answer() or '').split(' ')[:2] in ([word, str(seq)] for word in (
                'thawed', 'refused')) or seq % 2 == 0 and guest.answer() == f'thawed {seq - 1}', 8, f'an answer in round {seq}')
            self.expect_free()


class TestLostAnswers(Apart):
    """agent-sysfs is killed when it has done what was asked, and before it has said so."""

    def test_each_request(self):
        middle = Middle(self.everybody)
        self.addCleanup(middle.stop)
        self.start(middle.path)
        guest, told = self.guest, {}
        guest.balloon.floor_kb = 262144
        guest.put('target_kb', 131072)  # out of reach, so that there is something to be put back
        for seq, fatal in enumerate(('ready', 'cover balloon', 'target 262144', 'online offline', 'cover hotplug',
                                     'uncover hotplug', 'online online', 'uncover balloon', 'target 131072'), 1):
            middle.fatal = fatal
            guest.ask(f'freeze {seq} 60')
            over = [f'{word} {seq}' for word in ('frozen', 'refused')]
            wait_until(lambda over=over: ' '.join((guest.answer() or '').split(' ')[:2]) in over, 40, 'an answer')
            told[fatal] = guest.answer()
            guest.ask(f'thaw {seq}')
            if told[fatal].startswith('frozen'):
                guest.expect(f'thawed {seq}')
            self.expect_free(131072)
            self.assertEqual(middle.fatal, '', f'{fatal} was never asked: {middle.seen}')
        print('# killed between the change and the answer: ' +
              '; '.join(f'{fatal}: {text.split()[0]}' for fatal, text in told.items()), flush=True)


class TestAgentSysfs(Apart):
    """Whoever connects."""

    def ask(self, connection, *texts):
        answers = []
        for text in texts:
            connection.send(text.encode())
            answers.append(connection.recv(64).decode())
        return answers

    def test_requests(self):
        guest = self.guest
        with self.everybody.connect() as one:
            self.assertEqual(self.ask(one, 'ready', 'cover balloon', 'target 270000', 'uncover balloon', 'uncover balloon',
                                      'online offline'), ['done'] * 6)
            self.assertEqual((guest.get('target_kb'), guest.online()), (270000, 'offline'))
            self.assertEqual(self.ask(one, 'cover hotplug', 'online online'), ['done', 'failed 30'])
            self.assertEqual(len(self.everybody.mounts()), 1)
        wait_until(lambda: not self.everybody.mounts(), 40, 'the cover gone')

    def test_no_requests(self):
        for text in (b'cover', b'cover /etc', b'cover balloon ', b'mount balloon', b'target -1', b'ready\n', b'\0',
                     b'x' * 100000, b'ready\0', b'online ../x'):
            with self.everybody.connect() as one:
                self.assertEqual(self.ask(one, 'cover hotplug'), ['done'])
                one.send(text)
                self.assertEqual(one.recv(64), b'failed 22')
                self.assertEqual(one.recv(64), b'', 'the connection is closed')
                self.assertEqual(self.everybody.mounts(), [])
        with self.everybody.connect() as one:
            self.assertEqual(self.ask(one, 'ready'), ['done'])
            one.send(b'')  # as good as closing it
            self.assertEqual(one.recv(64), b'')
        self.assertEqual(self.everybody.starts, 1)
        self.assertEqual(self.guest.get('target_kb'), 262144)

    def test_two_at_once(self):
        with self.everybody.connect() as one, self.everybody.connect() as other:
            self.assertEqual(self.ask(one, 'cover balloon'), ['done'])
            self.assertEqual(self.ask(other, 'ready', 'cover balloon', 'target 5', 'cover hotplug'),
                             ['done', 'failed 16', 'failed 16', 'done'])
            self.assertEqual(self.ask(one, 'online offline', 'target 262100'), ['failed 16', 'done'])
            one.close()
            wait_until(lambda: len(self.everybody.mounts()) == 1, 40, 'one cover gone')
            self.assertEqual(self.ask(other, 'cover balloon'), ['done'])
            with self.everybody.connect() as third:  # letting go is everybody's right
                self.assertEqual(self.ask(third, 'uncover balloon', 'uncover hotplug', 'target 262144'), ['done'] * 3)
            self.assertEqual(self.everybody.mounts(), [])
        self.assertEqual(self.everybody.starts, 1)

    def test_more_than_there_is_room_for(self):
        connections = [self.everybody.connect() for _ in range(4)]
        for one in connections:
            self.assertEqual(self.ask(one, 'ready'), ['done'])
        with self.everybody.connect() as late:
            late.send(b'ready')
            self.assertEqual(select.select([late], [], [], 0.2)[0], [])
            connections[0].close()
            self.assertEqual(late.recv(64), b'done')
        for one in connections:
            one.close()

    def test_unknown_user(self):
        if os.geteuid() != 0:
            self.skipTest('there is only one user here')
        for path in (self.everybody.path, self.guest.folder):
            os.chmod(path, 0o777)
        script = ('import os, socket, sys\nos.setgroups([])\nos.setgid(0)\nos.setuid(65534)\n'
                  's = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\ns.connect(sys.argv[1])\n'
                  'try:\n s.send(b"cover balloon")\n print(s.recv(64))\nexcept OSError as error:\n print(error.strerror)\n')
        told = subprocess.run(['python3', '-c', script, self.everybody.path], stdout=subprocess.PIPE, text=True, timeout=20,
                              check=True).stdout.strip()
        self.assertIn(told, ("b''", 'Broken pipe', 'Connection reset by peer'))
        wait_until(lambda: 'of user 65534 has connected, and is refused' in self.guest.log(), 40, 'a line in the log')
        self.assertEqual(self.everybody.mounts(), [])

    def test_who_has_given_up_is_not_served(self):
        with self.everybody.connect() as one:
            self.assertEqual(self.ask(one, 'ready'), ['done'])
            self.everybody.signal(signal.SIGSTOP)
            one.send(b'target 5')
        with self.everybody.connect() as other:
            other.send(b'cover balloon')
        self.everybody.signal(signal.SIGCONT)
        with self.everybody.connect() as one:
            self.assertEqual(self.ask(one, 'ready'), ['done'])
        self.assertEqual((self.guest.get('target_kb'), self.everybody.mounts()), (262144, []))

    def test_without_a_socket(self):
        for environment in ({}, {'LISTEN_PID': '1', 'LISTEN_FDS': '1'}):
            done = subprocess.run([AGENT_SYSFS], env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                  timeout=10, check=False)
            self.assertEqual(done.returncode, 2)


if __name__ == '__main__':
    unittest.main()
