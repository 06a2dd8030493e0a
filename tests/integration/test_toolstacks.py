# SPDX-License-Identifier: LGPL-2.1-or-later
"""The examples of p2mguard-toolstacks(7), as they stand there: the programs run against the daemon.

xl and emu-manager are stand-ins that write down how they were called, and what a guest under guard was like then.
"""
import configparser
import os
import re
import signal
import subprocess
import unittest

import manual
from fixture import BUILD, PATIENT, wait_until
from test_guard import GuardCase

MANUAL = manual.FOLDER + '/p2mguard-toolstacks.7'
PROGRAMS = {'emu-manager-guarded', 'xl-migrate-guarded', 'guarded'}
SHELLS = (['dash'], ['bash', '--posix'])

# Sessions that settle quickly, whoever begins them.
CONFIGURATION = PATIENT + '[policy]\nquiet_ms = 50\nsettle_ms = 100\nretry_backoff_ms = 50\n'

# A toolstack's program. The guest's own record says whether it is held; what else it does is in the file "does".
STAND_IN = '''#!/bin/sh
{
	echo "$0 $#"
	[ $# -eq 0 ] || printf '%s\\n' "$@"
	p2mguardctl --json list
} >>"$log"
[ ! -e "$does" ] || . "$does"
'''


class Examples(unittest.TestCase):
    def test_programs_are_what_a_shell_takes(self):
        found = manual.programs(MANUAL)
        self.assertEqual(set(found), PROGRAMS)
        for name in PROGRAMS:
            for shell in SHELLS:
                status = subprocess.run([*shell, '-n'], input=found[name], text=True, check=False, capture_output=True)
                self.assertEqual((status.returncode, status.stderr), (0, ''), (name, shell))

    def test_drop_in_names_the_helper(self):
        unit = configparser.ConfigParser(interpolation=None)
        unit.optionxform = str
        unit.read_string(next(example.text for example in manual.examples(MANUAL) if example.kind == 'unit'))
        self.assertEqual(dict(unit['Service']),
                         {'Environment': 'LIBXL_SAVE_HELPER=/usr/libexec/p2mguard/save-helper'})


class Programs(GuardCase):
    configuration = CONFIGURATION

    def setUp(self):
        super().setUp()
        self.folder = self.host.folder + '/bin'
        self.log, self.does = self.host.folder + '/log', self.host.folder + '/does'
        os.mkdir(self.folder)
        for name, text in manual.programs(MANUAL).items():
            self.program(name, text)
        for name in ('xl', 'emu-manager', 'mover'):
            self.program(name, STAND_IN)
        self.program('p2mguardctl', f'#!/bin/sh\nexec {BUILD}/p2mguardctl --socket {self.host.control} "$@"\n')
        self.environment = dict(os.environ, PATH=self.folder + ':' + os.environ['PATH'], log=self.log, does=self.does,
                                EMU_MANAGER=self.folder + '/emu-manager')

    def program(self, name, text):
        with open(f'{self.folder}/{name}', 'w', encoding='utf-8') as file:
            file.write(text)
        os.chmod(file.name, 0o755)

    def let_it(self, script):
        """What the stand-in does from its next call on."""
        with open(self.does, 'w', encoding='utf-8') as file:
            file.write(script)

    def start(self, shell, name, *arguments, **options):
        return subprocess.Popen([*shell, f'{self.folder}/{name}', *arguments], env=self.environment, text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)

    def run_it(self, *arguments):
        process = self.start(*arguments)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def calls(self):
        """(program, arguments, state of the guest), and forgets them. The state is None for one not under guard."""
        with open(self.log, encoding='utf-8') as file:
            lines = file.read().splitlines()
        os.unlink(self.log)
        calls = []
        while lines:
            program, count = lines.pop(0).rsplit(' ', 1)
            arguments = [lines.pop(0) for _ in range(int(count))]
            state = re.search(r'"state": *"(\w+)"', lines.pop(0)) if lines and lines[0][0] in '[{' else None
            calls.append((os.path.basename(program), arguments, state and state.group(1)))
        return calls

    def each_shell(self):
        """With a guest of its own."""
        for domid, shell in enumerate(SHELLS, 1):
            yield shell, domid, self.host.create(domid)

    def assert_put_back(self, domid, before):
        self.assertEqual(self.host.snapshot(domid), before)
        self.assertEqual(self.host.journals(), [])

    # ---- xl-migrate-guarded ----

    # As OpenNebula calls it: the ssh command is one argument, with blanks and quotes in it.
    SSH = ['-s', "su - oneadmin -c 'ssh other sudo xl migrate-receive'"]

    def test_xl_is_run_with_the_same_arguments_while_the_guest_is_held(self):
        for shell, domid, before in self.each_shell():
            arguments = [*self.SSH, f'guest{domid}', 'other']
            status, _, err = self.run_it(shell, 'xl-migrate-guarded', *arguments)
            self.assertEqual(status, 0, err)
            self.assertEqual(self.calls(), [('xl', ['migrate', *arguments], 'held')])
            self.assert_put_back(domid, before)

    def test_guest_that_moves_is_migrated_again(self):
        self.host.create(1)
        marks = {name: f'{self.host.folder}/{name}' for name in ('running', 'again')}
        self.let_it('[ ! -e {again} ] || exit 0; touch {again}; touch {running}; exec sleep 60'.format(**marks))
        process = self.start(SHELLS[0], 'xl-migrate-guarded', 'guest1', 'other')
        wait_until(lambda: os.path.exists(marks['running']), 40, 'the first attempt')
        self.host.machine.set(1, 'tot_pages', 65530)
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, err)
        self.assertEqual([call[0] for call in self.calls()], ['xl', 'xl'])
        self.assertEqual(self.host.journals(), [])

    def test_failing_xl_is_no_success_and_not_repeated(self):
        for shell, domid, before in self.each_shell():
            self.let_it('exit 4')
            status, _, _ = self.run_it(shell, 'xl-migrate-guarded', f'guest{domid}', 'other')
            self.assertEqual(status, 1)
            self.assertEqual(len(self.calls()), 1)
            self.assert_put_back(domid, before)

    def test_guest_that_is_unknown_is_not_migrated(self):
        status, _, err = self.run_it(SHELLS[0], 'xl-migrate-guarded', 'nobody', 'other')
        self.assertEqual(status, 1)
        self.assertIn('nobody', err)
        self.assertFalse(os.path.exists(self.log))

    def test_too_few_arguments_are_for_xl_to_complain_of(self):
        self.let_it('exit 2')
        for arguments in ((), ('guest1',)):
            status, _, _ = self.run_it(SHELLS[0], 'xl-migrate-guarded', *arguments)
            self.assertEqual(status, 2)
            self.assertEqual(self.calls(), [('xl', ['migrate', *arguments], None)])

    def test_without_a_daemon_xl_is_run_once_as_it_is(self):
        self.host.create(1)
        self.host.stop_daemon()
        self.let_it('exit 7')
        for shell in SHELLS:
            status, _, _ = self.run_it(shell, 'xl-migrate-guarded', *self.SSH, 'guest1', 'other')
            self.assertEqual(status, 7)
            self.assertEqual(self.calls(), [('xl', ['migrate', *self.SSH, 'guest1', 'other'], None)])

    # ---- emu-manager-guarded ----

    def emu_manager(self, domid, mode, *more):
        """As xenopsd calls it."""
        return ['-controloutfd', '9', '-controlinfd', '10', '-fd', '11', '-mode', mode, '-domid', str(domid), *more]

    def test_live_save_by_emu_manager_is_guarded(self):
        for shell, domid, before in self.each_shell():
            for mode in ('save', 'hvm_save'):
                arguments = self.emu_manager(domid, mode, '-dm', 'qemu', '-live', 'true', '-debug', 'true')
                status, out, err = self.run_it(shell, 'emu-manager-guarded', *arguments)
                self.assertEqual((status, out), (0, ''), err)
                self.assertEqual(self.calls(), [('emu-manager', arguments, 'held')])
                self.assert_put_back(domid, before)

    def test_everything_else_goes_straight_to_emu_manager(self):
        self.host.create(1)
        for shell in SHELLS:
            for arguments in (self.emu_manager(1, 'save'), self.emu_manager(1, 'save', '-live', 'false'),
                              self.emu_manager(1, 'hvm_restore', '-live', 'true'), ['-supports', 'migration-v2'], []):
                status, _, err = self.run_it(shell, 'emu-manager-guarded', *arguments)
                self.assertEqual((status, err), (0, ''))
                self.assertEqual(self.calls(), [('emu-manager', arguments, None)])

    def test_emu_manager_has_its_descriptors_and_its_status_is_passed_on(self):
        for shell, domid, before in self.each_shell():
            self.let_it('echo suspend: >&9; read -r answer <&8; echo "$answer" >>"$log.answer"; exit 2')
            reader, writer = os.pipe()
            to_reader, to_writer = os.pipe()
            os.write(to_writer, b'done\n')
            self.addCleanup(os.close, reader)
            self.addCleanup(os.close, to_writer)
            # The shell cannot be told of higher numbers.
            command = (f'exec 9>&{writer} 8<&{to_reader}; exec {" ".join(shell)} {self.folder}/emu-manager-guarded '
                       f'{" ".join(self.emu_manager(domid, "save", "-live", "true"))}')
            process = subprocess.Popen(['bash', '-c', command], env=self.environment, stdin=subprocess.DEVNULL,
                                       pass_fds=(writer, to_reader))
            os.close(writer)
            os.close(to_reader)
            self.assertEqual(process.wait(60), 2)
            self.assertEqual(os.read(reader, 100), b'suspend:\n')
            self.assertEqual(os.read(reader, 100), b'')  # nothing that was started has kept it
            with open(self.log + '.answer', encoding='utf-8') as file:
                self.assertEqual(file.read(), 'done\n')
            os.unlink(self.log + '.answer')
            self.calls()
            self.assert_put_back(domid, before)

    def test_guest_that_is_gone_after_its_save(self):
        self.host.create(1)
        self.let_it(f'touch {self.host.folder}/saving; while [ ! -e {self.host.folder}/saved ]; do sleep 0.05; done')
        process = self.start(SHELLS[0], 'emu-manager-guarded', *self.emu_manager(1, 'save', '-live', 'true'))
        wait_until(lambda: os.path.exists(self.host.folder + '/saving'), 40, 'the save')
        self.host.destroy(1)
        wait_until(lambda: self.host.journals() == [], what='the journal dropped')
        with open(self.host.folder + '/saved', 'wb'):
            pass
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0)

    def test_emu_manager_works_where_nobody_can_guard(self):
        self.host.create(1)
        self.host.stop_daemon()
        for shell in SHELLS:
            arguments = self.emu_manager(1, 'save', '-live', 'true')
            self.assertEqual(self.run_it(shell, 'emu-manager-guarded', *arguments)[0], 0)
            self.assertEqual(self.calls(), [('emu-manager', arguments, None)])

    # ---- guarded ----

    def test_command_is_run_while_the_guest_is_held(self):
        for shell, domid, before in self.each_shell():
            for exit_status in (0, 5):
                self.let_it(f'exit {exit_status}')
                status, _, err = self.run_it(shell, 'guarded', f'guest{domid}', 'mover', 'two words', '')
                self.assertEqual(status, exit_status)
                self.assertEqual('proceed: nothing changed' in err, exit_status != 0, err)
                self.assertEqual(self.calls(), [('mover', ['two words', ''], 'held')])
                self.assert_put_back(domid, before)

    def test_command_is_not_run_when_the_guest_cannot_be_held(self):
        self.assertEqual(self.run_it(SHELLS[0], 'guarded', 'nobody', 'mover')[0], 1)
        self.host.stop_daemon()
        self.assertEqual(self.run_it(SHELLS[0], 'guarded', '1', 'mover')[0], 3)
        self.assertFalse(os.path.exists(self.log))

    def test_told_to_end_it_lets_the_guest_go(self):
        for shell, domid, before in self.each_shell():
            self.let_it(f'touch {self.host.folder}/running{domid}; exec sleep 60')
            process = self.start(shell, 'guarded', str(domid), 'mover', start_new_session=True)
            wait_until(lambda name=f'{self.host.folder}/running{domid}': os.path.exists(name), 40, 'the command')
            os.killpg(process.pid, signal.SIGTERM)
            process.communicate(timeout=60)
            self.assertEqual(process.returncode, 1)
            self.assert_put_back(domid, before)

    # ---- what is said of libvirt ----

    def test_guest_that_is_left_held_for_a_retry_is_let_go_by_its_name(self):
        self.host.create(1, name='web')
        session = self.client.hold(1)['session']
        self.client.call('guard.adopt', session=session, hold='retry')
        self.host.mem_set(1, 200000)
        status = subprocess.run([self.folder + '/p2mguardctl', 'end', 'web', 'failed'], check=False, timeout=30,
                                stdout=subprocess.DEVNULL)
        self.assertEqual(status.returncode, 0)
        self.host.wait_rest(1, 200000)
        self.assertEqual(self.host.journals(), [])
