# SPDX-License-Identifier: LGPL-2.1-or-later
"""The save-helper wrapper between a libxl and a helper that do as the tests say, and the real daemon."""
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import threading
import unittest

from fixture import BUILD, PATIENT, SHUTDOWN, SUSPENDED, wait_until
from test_guard import GuardCase

HERE = os.path.dirname(os.path.abspath(__file__))
REAL = HERE + '/../imitation/scripted-helper.py'
LOG, PROGRESS, SUSPEND, COMPLETE = 1, 2, 3, 10
LIVE = 1
# So that sessions which the wrapper begins settle quickly.
CONFIGURATION = PATIENT + '[policy]\nquiet_ms = 50\nsettle_ms = 100\nretry_backoff_ms = 50\nretry_grace_ms = 4000\n'


class Libxl(threading.Thread):
    """What libxl does with a helper's messages: takes them, suspends the guest when told to, and replies."""

    def __init__(self, case, script, domid=1, flags=LIVE, stream_type=0, mode='--save-domain', replies=True, direct=False,
                 parent=(), **environment):
        super().__init__(daemon=True)
        self.case, self.domid, self.replies = case, domid, replies
        self.script = f'{case.host.folder}/script-{random.getrandbits(32):x}'
        with open(self.script, 'w', encoding='ascii') as file:
            file.write('\n'.join(script) + '\n')
        receiver, stream = os.pipe()
        self.receiver = receiver
        environment = dict({'P2MGUARD_REAL_SAVE_HELPER': REAL, 'P2MGUARD_SOCKET': case.host.control,
                            'P2MGUARD_STEADY_MS': '0'}, **environment)
        environment = dict(os.environ, SCRIPT=self.script, **environment)
        self.arguments = [mode, str(stream), '-1', str(domid), str(flags), str(1 << SUSPEND), str(stream_type)]
        program = [*parent, REAL if direct else BUILD + '/save-helper']
        self.process = subprocess.Popen(program + self.arguments, env=environment,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(stream,), bufsize=0)
        os.close(stream)
        self.bytes = b''
        self.messages = []
        case.addCleanup(self.clean_up)
        self.start()

    def run(self):
        buffer = b''
        while True:
            try:
                data = os.read(self.process.stdout.fileno(), 65536)
            except (OSError, ValueError):
                return
            if not data:
                return
            self.bytes += data
            buffer += data
            while len(buffer) >= 2 and len(buffer) >= 2 + struct.unpack_from('=H', buffer)[0]:
                length = 2 + struct.unpack_from('=H', buffer)[0]
                self.take(buffer[2:length])
                buffer = buffer[length:]

    def take(self, message):
        number = struct.unpack_from('=H', message)[0] if len(message) >= 2 else -1
        self.messages.append((number, message[2:]))
        if number == SUSPEND:
            self.case.host.machine.set(self.domid, 'flags', SHUTDOWN | SUSPENDED)
        if self.replies and number in (SUSPEND, COMPLETE):
            self.reply(1 if number == SUSPEND else 0)

    def reply(self, value):
        os.write(self.process.stdin.fileno(), struct.pack('=i', value))

    def wait(self, timeout=40):
        status = self.process.wait(timeout)
        self.join(5)
        return status

    def vanish(self):
        """As when libxl's process is killed."""
        self.replies = False
        self.process.stdin.close()
        os.close(self.process.stdout.fileno())

    def logs(self):
        """What libxl's log gets from us, and from the helper."""
        texts = []
        for number, body in list(self.messages):
            if number == LOG:
                length = struct.unpack_from('=I', body, 8)[0]
                texts.append((body[12:11 + length].decode(), body[16 + length:-1].decode()))
        return texts

    def said(self):
        return ' / '.join(text for context, text in self.logs() if context == 'p2mguard')

    def numbers(self):
        return [number for number, _ in self.messages if number != LOG]

    def retval(self):
        return struct.unpack_from('=i', self.messages[-1][1])[0]

    def did(self):
        if not os.path.exists(self.script + '.did'):
            return []
        with open(self.script + '.did', encoding='ascii') as file:
            return file.read().splitlines()

    def helper_pid(self):
        return int(wait_until(self.did, 40, 'the helper')[0].split(' ')[1])

    def clean_up(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.receiver)


def runs(pid):
    try:
        with open(f'/proc/{pid}/stat', encoding='ascii') as file:
            return file.read().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


class SaveHelper(GuardCase):
    configuration = CONFIGURATION

    def mark(self, name):
        return f'{self.host.folder}/{name}'

    def sessions(self):
        return self.client.call('guard.list')['sessions']

    def only_session(self):
        sessions = self.sessions()
        self.assertEqual(len(sessions), 1, sessions)
        return sessions[0]

    def touch(self, name):
        with open(self.mark(name), 'w', encoding='ascii'):
            pass

    def wait_for(self, name):
        wait_until(lambda: os.path.exists(self.mark(name)), 40, name)

    def wait_restored(self, before, timeout=40):
        wait_until(lambda: not self.host.journals(), timeout, 'the guest let go')
        self.assertEqual(self.host.snapshot(1), before)

    def resume(self):
        """What libxl does with a source whose migration has failed."""
        self.host.machine.set(1, 'flags', 0)

    # ---- as it should be ----

    def test_quiet_guest_is_saved(self):
        self.host.create(1)
        self.client.call('events.subscribe')
        libxl = Libxl(self, ['log starting', 'progress frames', 'suspend', 'progress last', 'complete 0'])
        self.assertEqual(libxl.wait(), 0, libxl.said())
        self.assertEqual(libxl.numbers(), [PROGRESS, SUSPEND, PROGRESS, COMPLETE])
        self.assertEqual((libxl.retval(), libxl.said()), (0, ''))
        self.assertEqual(libxl.did()[1:], ['suspend: 1', 'complete 0: 0'])
        self.assertEqual(libxl.did()[0].split(' ')[2:], libxl.arguments)
        self.assertEqual(self.client.event('session.verdict')['verdict'], 'proceed')
        session = self.only_session()
        self.assertEqual((session['state'], session['hold'], session['owner']['caller']), ('held', 'suspended', 'save-helper'))
        self.host.destroy(1)
        self.assertEqual(self.client.event('session.gone')['reason'], 'domain-gone')
        self.assertEqual(self.host.journals(), [])

    def test_guest_that_is_resumed_is_thawed(self):
        before = self.host.create(1)
        self.client.call('events.subscribe')
        libxl = Libxl(self, ['suspend', 'complete 0'])
        self.assertEqual(libxl.wait(), 0, libxl.said())
        self.assert_held(1)
        self.resume()
        gone = self.client.event('session.gone')
        self.assertEqual((gone['reason'], gone['outcome']), ('guest-resumed', 'failed'))
        self.wait_restored(before, 2)

    def test_guest_that_has_been_resumed_already_is_thawed(self):
        before = self.host.create(1)
        libxl = Libxl(self, ['suspend', f'touch {self.mark("there")}', f'await {self.mark("go")}', 'complete 0'])
        self.wait_for('there')
        self.resume()
        self.touch('go')
        self.assertEqual(libxl.wait(), 0, libxl.said())
        self.wait_restored(before, 2)

    def test_messages_are_passed_on_byte_for_byte(self):
        self.host.create(1)
        dice = random.Random(4)
        script = []
        for _ in range(300):
            script.append(dice.choice(['log some text', 'progress sending', f'unknown {dice.randrange(11, 65536)}',
                                       f'big {dice.randrange(1, 65000)}', 'garbage 0000', 'garbage 01002a']))
        script += ['suspend', 'log after', 'reply', 'complete 0']
        def answer(libxl):
            wait_until(lambda: ('xc', 'after') in libxl.logs(), 40, 'the last words')
            libxl.reply(-12345)
            return libxl.wait()
        wrapped = Libxl(self, script)
        self.assertEqual(answer(wrapped), 0, wrapped.said())
        self.resume()
        wait_until(lambda: not self.host.journals(), what='the guest let go')
        direct = Libxl(self, script, direct=True)
        self.assertEqual(answer(direct), 0)
        self.assertEqual(wrapped.bytes, direct.bytes)
        self.assertGreater(len(wrapped.bytes), 1000000)
        self.assertEqual(wrapped.did()[1:], direct.did()[1:])
        self.assertIn('reply -12345', wrapped.did())

    def test_message_that_is_cut_off_is_passed_on(self):
        before = self.host.create(1)
        libxl = Libxl(self, ['log words', 'garbage ff000100', 'exit 9'])
        self.assertEqual(libxl.wait(), 9)
        self.assertTrue(libxl.bytes.endswith(b'\xff\x00\x01\x00'), libxl.bytes)
        self.wait_restored(before)

    def test_two_guests_at_once(self):
        script = ['log starting', f'await {self.mark("go")}', 'suspend', 'complete 0']
        for domid in (1, 2):
            self.host.create(domid)
        both = [Libxl(self, script, domid) for domid in (1, 2)]
        for libxl in both:
            libxl.helper_pid()
        self.assertEqual(sorted(session['domid'] for session in self.sessions()), [1, 2])
        self.touch('go')
        self.assertEqual([libxl.wait() for libxl in both], [0, 0])

    # ---- what is not guarded ----

    def test_other_saves_and_restores_go_straight_to_the_real_helper(self):
        before = self.host.create(1)
        for options in ({'flags': 0}, {'flags': 2}, {'stream_type': 1}, {'stream_type': 2}, {'mode': '--restore-domain'},
                        {'domid': 0}, {'domid': 'x'}, {'flags': ''}):
            libxl = Libxl(self, ['log words', f'touch {self.mark("there")}', f'await {self.mark("go")}', 'complete 0'],
                          **options)
            self.wait_for('there')
            self.assertEqual(libxl.helper_pid(), libxl.process.pid, options)  # in our place
            self.assertEqual((self.sessions(), self.host.snapshot(1)), ([], before))
            self.touch('go')
            self.assertEqual(libxl.wait(), 0)
            self.assertEqual((libxl.did()[0].split(' ')[2:], libxl.said()), (libxl.arguments, ''))
            os.unlink(self.mark('there'))
            os.unlink(self.mark('go'))

    def test_without_a_daemon(self):
        self.host.create(1)
        self.host.kill_daemon()
        libxl = Libxl(self, ['suspend', 'complete 0'])
        self.assertEqual((libxl.wait(), libxl.numbers()), (0, [SUSPEND, COMPLETE]))
        self.assertIn('without a guard: p2mguardd does not run', libxl.said())
        libxl = Libxl(self, ['suspend', 'complete 0'], P2MGUARD_SAVE_POLICY='permissive')
        self.assertEqual(libxl.wait(), 0)
        libxl = Libxl(self, ['suspend', 'complete 0'], P2MGUARD_SAVE_POLICY='strict')
        self.assertEqual((libxl.wait(), libxl.numbers(), libxl.did()), (1, [], []))
        self.assertIn('not saved, for nobody guards it: p2mguardd does not run', libxl.said())

    def test_bad_environment(self):
        self.host.create(1)
        for key, value, expected in (('P2MGUARD_SAVE_POLICY', 'stern', 'strict or permissive'),
                                     ('P2MGUARD_STEADY_MS', '1s', 'milliseconds'), ('P2MGUARD_STEADY_MS', '-1', 'milli'),
                                     ('P2MGUARD_SENT_TARGET', 'xl', 'expected store or asked')):
            libxl = Libxl(self, ['complete 0'], **{key: value})
            self.assertEqual((libxl.wait(), libxl.did()), (1, []))
            self.assertIn(expected, libxl.said())
            self.assertIn(value, libxl.said())

    def test_real_helper_that_is_not_there(self):
        before = self.host.create(1)
        libxl = Libxl(self, [], P2MGUARD_REAL_SAVE_HELPER='/nonexistent')
        self.assertEqual(libxl.wait(), 127)
        self.wait_restored(before)

    def test_domain_that_is_not_guardable(self):
        libxl = Libxl(self, ['complete 0'], 9)  # no such domain: the real helper says what it thinks of that
        self.assertEqual(libxl.wait(), 0)
        self.assertIn('without a guard', libxl.said())

    # ---- the guest moves ----

    def second_attempt(self, number=2):
        session = self.only_session()
        self.assertEqual((session['state'], session['hold'], session['owner']['caller']), ('held', 'retry', 'save-helper'))
        libxl = Libxl(self, ['suspend', 'complete 0'])
        self.assertEqual(libxl.wait(), 0, libxl.said())
        session = self.only_session()
        self.assertEqual((session['attempt'], session['hold']), (number, 'suspended'))
        self.assertEqual(libxl.numbers(), [SUSPEND, COMPLETE])

    def test_guest_that_moves_while_it_is_copied(self):
        self.host.create(1)
        libxl = Libxl(self, [f'touch {self.mark("there")}', f'await {self.mark("never")}'])
        self.wait_for('there')
        self.host.machine.set(1, 'tot_pages', 65530)
        self.assertEqual(libxl.wait(), 0)
        self.assertEqual((libxl.numbers(), libxl.retval()), ([COMPLETE], -1))
        self.assertIn('SIGTERM', libxl.did())
        self.assertIn('retry: domain 1: the guest\'s page count changed', libxl.said())
        self.second_attempt()

    def test_guest_that_has_moved_is_not_suspended(self):
        self.host.create(1)
        libxl = Libxl(self, [f'touch {self.mark("there")}', f'await {self.mark("go")}', 'suspend', 'complete 0'])
        self.wait_for('there')
        self.host.daemon.send_signal(signal.SIGSTOP)  # so that only the final verdict can tell
        self.host.machine.set(1, 'tot_pages', 65530)
        self.touch('go')
        libxl.helper_pid()
        self.host.daemon.send_signal(signal.SIGCONT)
        self.assertEqual(libxl.wait(), 0)
        self.assertEqual((libxl.numbers(), libxl.retval()), ([COMPLETE], -1))
        self.assertEqual(self.host.machine.get(1, 'flags'), 0)
        self.second_attempt()

    def test_guest_that_nobody_migrates_again_is_thawed(self):
        before = self.host.create(1)
        libxl = Libxl(self, [f'touch {self.mark("there")}', f'await {self.mark("never")}'])
        self.wait_for('there')
        self.host.machine.set(1, 'tot_pages', 65530)
        self.assertEqual(libxl.wait(), 0)
        self.client.call('events.subscribe')
        self.host.machine.set(1, 'tot_pages', 65536)
        self.assertEqual(self.client.event('session.gone')['reason'], 'grace-expired')
        self.wait_restored(before)

    def test_attempts_are_used_up(self):
        self.host.create(1)
        for attempt in (1, 2, 3):
            there = f'there{attempt}'
            libxl = Libxl(self, [f'touch {self.mark(there)}', f'await {self.mark("never")}'])
            self.wait_for(there)
            self.host.machine.set(1, 'tot_pages', 65530 - attempt)
            self.assertEqual(libxl.wait(), 0)
            self.assertIn('retry' if attempt < 3 else 'abort', libxl.said())
        wait_until(lambda: not self.host.journals(), what='the guest let go')

    def test_guest_on_its_way_to_another_size_is_refused_before_a_page_is_copied(self):
        self.host.create(1, mode='slow')
        self.host.mem_set(1, 200000)
        wait_until(lambda: self.host.tot_pages(1) < 65536, what='ballooning')
        libxl = Libxl(self, ['suspend', 'complete 0'])
        self.assertEqual((libxl.wait(), libxl.did(), libxl.numbers()), (1, [], []))
        self.assertIn('was on its way to another size', libxl.said())
        self.second_attempt()

    def test_target_that_changed_lately_is_refused_before_a_page_is_copied(self):
        self.host.create(1)
        self.host.mem_set(1, 200000)
        self.host.wait_rest(1, 200000)
        libxl = Libxl(self, ['suspend', 'complete 0'], P2MGUARD_STEADY_MS='60000')
        self.assertEqual((libxl.wait(), libxl.did(), libxl.numbers()), (1, [], []))
        self.assertIn('has changed within the last', libxl.said())
        self.second_attempt()

    def test_storm(self):
        self.host.create(1)
        self.host.storm(1, interval=0.2)
        done = []
        for _ in range(3):
            libxl = Libxl(self, ['progress frames', 'suspend', 'complete 0'], P2MGUARD_STEADY_MS='10000')
            done.append(libxl.wait())
            if done[-1] == 0:
                break
        self.assertEqual(done, [1, 0])

    # ---- a toolstack that sends the target it was asked for itself ----

    def asked(self, script=('suspend', 'complete 0'), **options):
        return Libxl(self, script, P2MGUARD_STEADY_MS='60000', P2MGUARD_SENT_TARGET='asked', **options)

    def on_its_way(self, kib=200000, mode='slow'):
        self.host.create(1, mode=mode)
        self.host.mem_set(1, kib)
        wait_until(lambda: self.host.tot_pages(1) != 65536, what='ballooning')

    def assert_saved_at(self, libxl, target_kib):
        self.assertEqual((libxl.wait(60), libxl.said(), libxl.numbers()), (0, '', [SUSPEND, COMPLETE]))
        session = self.only_session()
        self.assertEqual((session['hold'], session['wanted_target_kib']), ('suspended', target_kib))
        self.assertLessEqual(session['baseline']['tot_kib'], target_kib + 1024)
        return session

    def test_asked_guest_is_held_where_it_was_asked_to_be(self):
        self.on_its_way()
        session = self.assert_saved_at(self.asked(), 200000)
        self.assertEqual((session['attempt'], session['target_kib']), (1, 200000))

    def test_asked_guest_that_grows_is_held_at_once(self):
        self.on_its_way(400000)
        session = self.assert_saved_at(self.asked(), 400000)
        self.assertLess(session['baseline']['tot_kib'], 400000)

    def spoilt(self):
        """A guest that is held for the next attempt."""
        self.host.create(1)
        libxl = self.asked([f'touch {self.mark("there")}', f'await {self.mark("never")}'])
        self.wait_for('there')
        self.host.machine.set(1, 'tot_pages', 65530)
        self.assertEqual(libxl.wait(), 0)
        self.assertEqual(self.only_session()['hold'], 'retry')
        return self.only_session()['session']

    def test_asked_for_less_between_two_attempts(self):
        first = self.spoilt()
        self.host.mem_set(1, 200000)
        session = self.assert_saved_at(self.asked(), 200000)
        self.assertNotEqual(session['session'], first)

    def test_asked_for_more_between_two_attempts(self):
        first = self.spoilt()
        self.host.mem_set(1, 280000)
        session = self.assert_saved_at(self.asked(), 280000)
        self.assertEqual((session['session'], session['attempt']), (first, 2))

    def test_asked_guest_whose_distance_from_its_target_is_not_known(self):
        self.host.create(1, offset_kib=8192)
        libxl = self.asked()
        self.assertEqual((libxl.wait(60), libxl.said(), libxl.numbers()), (0, '', [SUSPEND, COMPLETE]))

    def test_asked_guest_is_waited_for_no_longer_than_libxl_does(self):
        for end in ('terminate', 'vanish'):
            self.on_its_way()
            libxl = self.asked()
            wait_until(lambda: self.client.call('daemon.info')['connections'] > 1, what='the wrapper')
            if end == 'vanish':
                libxl.vanish()
            else:
                libxl.process.terminate()
            self.assertEqual((libxl.wait(5), libxl.did()), (1, []))
            self.assertEqual((self.host.journals(), self.host.target(1)), ([], '200000'))
            self.host.destroy(1)

    def test_libvirtd_is_known_by_its_name(self):
        for name in ('libvirtd', 'virtxend'):
            program = self.mark(name)
            shutil.copy('/bin/sh', program)
            self.on_its_way()
            libxl = Libxl(self, ['suspend', 'complete 0'], P2MGUARD_STEADY_MS='60000', parent=[program, '-c', '"$0" "$@"; exit $?'])
            self.assert_saved_at(libxl, 200000)
            self.host.destroy(1)
            wait_until(lambda: not self.host.journals(), what='the end of the session')

    # ---- somebody dies ----

    def copying(self, **options):
        libxl = Libxl(self, ['log starting', f'touch {self.mark("there")}', f'await {self.mark("go")}', 'suspend', 'complete 0'],
                      **options)
        self.wait_for('there')
        return libxl

    def test_libxl_vanishes(self):
        before = self.host.create(1)
        libxl = self.copying()
        pid = libxl.helper_pid()
        libxl.vanish()
        self.wait_restored(before, 2)
        wait_until(lambda: not runs(pid), 2, 'the helper gone')
        self.assertIn('SIGTERM', libxl.did())

    def test_libxl_vanishes_while_the_guest_is_being_frozen(self):
        before = self.host.create(1, mode='stubborn')
        libxl = Libxl(self, ['complete 0'])
        wait_until(self.host.journals, what='a journal')
        libxl.vanish()
        wait_until(lambda: not self.host.journals(), 2, 'the guest let go')
        self.assertEqual(libxl.wait(), 1)
        self.assertEqual(self.host.snapshot(1), before)

    def test_wrapper_is_killed(self):
        before = self.host.create(1)
        libxl = self.copying()
        pid = libxl.helper_pid()
        libxl.process.kill()
        self.wait_restored(before, 2)
        wait_until(lambda: not runs(pid), 2, 'the helper gone')

    def test_libxl_calls_it_off(self):
        before = self.host.create(1)
        libxl = self.copying()
        libxl.process.terminate()
        self.assertEqual(libxl.wait(), 0)
        self.assertEqual((libxl.numbers(), libxl.retval()), ([COMPLETE], -1))
        self.assertIn('SIGTERM', libxl.did())
        self.wait_restored(before, 2)

    def test_libxl_calls_it_off_while_the_guest_is_being_frozen(self):
        before = self.host.create(1, mode='stubborn')
        libxl = Libxl(self, ['complete 0'])
        wait_until(self.host.journals, what='a journal')
        libxl.process.terminate()
        self.assertEqual((libxl.wait(), libxl.did()), (1, []))
        wait_until(lambda: not self.host.journals(), 2, 'the guest let go')
        self.assertEqual(self.host.snapshot(1), before)

    def test_helper_is_killed(self):
        before = self.host.create(1)
        libxl = self.copying()
        os.kill(libxl.helper_pid(), signal.SIGKILL)
        self.assertEqual(libxl.wait(), 128 + signal.SIGKILL)
        self.wait_restored(before, 2)

    def test_helper_fails(self):
        before = self.host.create(1)
        libxl = Libxl(self, ['log no receiver', 'complete -1'])
        self.assertEqual((libxl.wait(), libxl.retval()), (0, -1))
        self.wait_restored(before, 2)

    def test_libxl_cannot_suspend_the_guest(self):
        before = self.host.create(1)
        libxl = Libxl(self, ['suspend', 'complete 0'], replies=False)
        wait_until(lambda: SUSPEND in libxl.numbers(), what='suspend')
        self.resume()
        libxl.reply(0)
        wait_until(lambda: COMPLETE in libxl.numbers(), what='complete')
        libxl.reply(0)
        self.assertEqual((libxl.wait(), libxl.retval()), (0, -1))
        self.wait_restored(before, 2)

    def test_daemon_is_killed(self):
        """The next one lets the guest go, which may move from then on: the save ends, whatever the policy."""
        for policy in ('permissive', 'strict'):
            before = self.host.create(1)
            libxl = self.copying(P2MGUARD_SAVE_POLICY=policy)
            self.host.kill_daemon()
            wait_until(lambda libxl=libxl: 'nobody guards domain 1 any more' in libxl.said(), what='what is said about it')
            self.touch('go')
            self.assertEqual((libxl.wait(), libxl.numbers(), libxl.retval()), (0, [COMPLETE], -1))
            self.host.start_daemon()
            self.wait_restored(before)
            self.host.destroy(1)
            os.unlink(self.mark('there'))
            os.unlink(self.mark('go'))

    def test_daemon_that_hangs_is_none(self):
        self.host.create(1)
        libxl = self.copying(P2MGUARD_SAVE_POLICY='strict')
        self.host.daemon.send_signal(signal.SIGSTOP)
        self.touch('go')
        status = libxl.wait(40)
        self.host.daemon.send_signal(signal.SIGCONT)
        self.assertEqual((status, libxl.numbers(), libxl.retval()), (0, [COMPLETE], -1))
        self.assertIn('does not answer', libxl.said())

    # ---- somebody guards the guest already ----

    def test_session_of_somebody_else_is_used_and_left_alone(self):
        self.host.create(1)
        session = self.client.hold(1)
        libxl = Libxl(self, ['suspend', 'complete 0'])
        self.assertEqual(libxl.wait(), 0, libxl.said())
        after = self.only_session()
        self.assertEqual((after['session'], after['hold'], after['owner']['caller']), (session['session'], 'connection', None))

    def test_session_of_somebody_else_that_is_spoilt(self):
        self.host.create(1)
        self.client.hold(1)
        self.host.machine.set(1, 'tot_pages', 65530)
        libxl = Libxl(self, ['suspend', 'complete 0'])
        self.assertEqual((libxl.wait(), libxl.did()), (1, []))
        self.assertIn('guarded by somebody else, and not held', libxl.said())

    def around(self, *script, after='true', command=None):
        """p2mguardctl, and what libxl does with the environment that it has from it."""
        path = self.mark('script')
        with open(path, 'w', encoding='ascii') as file:
            file.write('\n'.join(script) + '\n')
        moves = f'"$LIBXL_SAVE_HELPER" --save-domain 9 -1 1 1 8 0 9>/dev/null </dev/zero >{self.mark("out")} && {after}'
        return subprocess.Popen([BUILD + '/p2mguardctl', '--socket', self.host.control, '--json', 'migrate', '--policy',
                                 'quiet_ms=50', '--policy', 'settle_ms=100', '1', '--', 'sh', '-c', command or moves],
                                env=dict(os.environ, SCRIPT=path, P2MGUARD_REAL_SAVE_HELPER=REAL, P2MGUARD_STEADY_MS='60000',
                                         P2MGUARD_SAVE_HELPER=BUILD + '/save-helper'),
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def test_p2mguardctl_around_it(self):
        self.host.create(1)
        process = self.around('log words', 'exit 0')
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, err)
        self.assertEqual(len(json.loads(out.splitlines()[-1])['attempts']), 1)

    def test_p2mguardctls_daemon_is_killed_before_the_helper_is_started(self):
        self.host.create(1)
        command = (f'touch {self.mark("there")}; while [ ! -e {self.mark("go")} ]; do sleep 0.01; done; '
                   '"$LIBXL_SAVE_HELPER" --save-domain 9 -1 1 1 8 0 9>/dev/null </dev/zero >/dev/null')
        process = self.around('suspend', 'complete 0', command=command)
        wait_until(lambda: os.path.exists(self.mark('there')), 40, 'the command')
        self.host.kill_daemon()
        self.touch('go')
        self.assertNotEqual(process.wait(60), 0)
        process.communicate()
        self.assertFalse(os.path.exists(self.mark('script.did')))
        self.host.start_daemon()

    def test_p2mguardctls_daemon_is_killed(self):
        """A migration that has lost its guard while pages are copied fails, and the guest stays where it is."""
        before = self.host.create(1)
        process = self.around('touch ' + self.mark('there'), 'await ' + self.mark('go'), 'page', 'suspend', 'complete 0',
                              after=f'grep -q "complete 0" {self.mark("script.did")}')  # which libxl goes by
        wait_until(lambda: os.path.exists(self.mark('there')), 40, 'pages to be copied')
        self.host.kill_daemon()
        wait_until(lambda: 'SIGTERM' in self.did(), 40, 'the helper told to stop')
        self.touch('go')
        out, err = process.communicate(timeout=60)
        summary = json.loads(out.splitlines()[-1])
        self.assertEqual((process.returncode, summary['outcome'], summary['unguarded']), (1, 'command-failed', True), err)
        self.assertIn('complete -1', ' '.join(self.did()))
        self.host.start_daemon()
        self.wait_restored(before)

    def did(self):
        with open(self.mark('script.did'), encoding='ascii') as file:
            return file.read().splitlines()


class Adopt(GuardCase):
    """guard.adopt itself."""

    def test_hold_follows_the_new_owner(self):
        before = self.host.create(1)
        session = self.client.hold(1)
        other = self.host.client()
        record = other.call('guard.adopt', session=session['session'])
        self.assertEqual((record['hold'], record['state']), ('connection', 'held'))
        self.client.close()
        self.assertEqual(other.call('guard.verdict', session=session['session'])['verdict'], 'proceed')
        self.client = self.host.client()
        other.close()
        wait_until(lambda: not self.host.journals(), what='the guest let go')
        self.assertEqual(self.host.snapshot(1), before)

    def test_detached(self):
        self.host.create(1)
        session = self.client.hold(1)
        self.client.call('guard.adopt', session=session['session'], hold='detached')
        self.client.close()
        self.client = self.host.client()
        self.assertEqual(self.client.call('guard.show', session=session['session'])['hold'], 'detached')
        self.assert_held(1)

    def test_retry_hold_ends_with_the_grace(self):
        before = self.host.create(1)
        session = self.client.hold(1, policy={'retry_grace_ms': 300})
        self.client.call('events.subscribe')
        self.client.call('guard.adopt', session=session['session'], hold='retry')
        self.assertEqual(self.client.event('session.adopted')['hold'], 'retry')
        self.assertEqual(self.client.event('session.gone')['reason'], 'grace-expired')
        self.assertEqual(self.host.snapshot(1), before)

    def test_what_cannot_be_adopted(self):
        self.host.create(1)
        session = self.client.hold(1)['session']
        self.assert_rpc_error(-32602, 'guard.adopt', session=session, hold='forever')
        self.assert_rpc_error(-32602, 'guard.begin', domain=1, hold='retry')
        self.assert_rpc_error(-32602, 'guard.begin', domain=1, hold='suspended')
        for caller in ('', 'x' * 32, 'a.b-c_D9'):
            self.assert_rpc_error(-32003, 'guard.begin', domain=1, caller=caller)
        for caller in ('x' * 33, 'a b', 'a\n', '\u00e9'):
            self.assert_rpc_error(-32602, 'guard.begin', domain=1, caller=caller)
        self.assert_rpc_error(-32002, 'guard.adopt', session='1-00000000')
        self.client.call('guard.end', session=session, outcome='cancelled')
        self.assert_rpc_error(-32007, 'guard.adopt', session=session)
        self.host.create(2, mode='stubborn')
        freezing = self.client.call('guard.begin', domain=2)['session']
        self.assert_rpc_error(-32007, 'guard.adopt', session=freezing, hold='retry')
        self.assertEqual(self.client.call('guard.adopt', session=freezing, hold='detached')['hold'], 'detached')


class Steady(GuardCase):
    """target_steady_ms: since when, at least, the target had been the same when the session began."""

    def steady(self):
        session = self.client.hold(1)
        self.end(session, 'cancelled')
        return session['target_steady_ms']

    def test_grows_until_the_target_changes(self):
        self.host.create(1)
        wait_until(lambda: self.steady() > 300, what='300 ms without a change')
        self.host.mem_set(1, 262144)  # the same again is no change
        self.assertGreater(self.steady(), 300)
        self.host.mem_set(1, 200000)
        self.host.wait_rest(1, 200000)
        self.assertLess(self.steady(), 5000)
        first = self.steady()
        self.assertGreater(self.steady(), first)

    def test_nothing_is_known_after_a_blind_time(self):
        self.host.create(1)
        wait_until(lambda: self.steady() > 1500, what='1500 ms without a change')
        self.host.kill_daemon()
        self.host.start_daemon()
        self.client = self.host.client()
        self.assertLess(self.steady(), 1500)


if __name__ == '__main__':
    unittest.main()
